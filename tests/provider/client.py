"""The provider as tests see it: a real process that is started, asked, spoiled, killed and ended.

It shares no code with the server: everything goes over its door for tests.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from http.client import HTTPException
from pathlib import Path
from time import monotonic
from typing import Any, cast

from tests.servers.lifecycle import Server
from tests.servers.port import Port

Json = dict[str, Any]

_LEDGER = Path(__file__).with_name("ledger.py")
_MARGIN = 10.0
"""Seconds beyond what the server was given, before it is taken for dead."""


class ProviderError(Exception):
    """The provider refused what a test asked of it, or did not start."""


class Provider(Server):
    """A Videos API of a test's own, on a port that stays its own while it is dead.

    with Provider(latency=0.1, api_key="sk-test") as provider:
        provider.fault(on="create", do="lose_response")
        ...
        provider.wait(accepted=1)
        assert provider.summary()["paid_per_prompt"] == {"a cat": 1}

    The options are those of `options.Options`, the faults those of `faults`.
    """

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._process: subprocess.Popen[str] | None = None
        self._folder = Path(tempfile.mkdtemp(prefix="provider-"))
        self._port = Port()
        self.base_url = f"http://127.0.0.1:{self._port.number}/v1"
        self.admin_url = f"http://127.0.0.1:{self._port.number}/_"
        self.other_url = ""
        """Where redirects lead to; another one after a restart."""

    @property
    def port(self) -> int:
        return self._port.number

    @property
    def pid(self) -> int:
        return self._running().pid

    def ledger(self) -> Json:
        """Everything: the counts of `summary`, and lists of `posts`, `videos`, `elsewhere` and `faults`."""
        return self._ask("GET", "ledger")

    def summary(self) -> Json:
        return self._ask("GET", "summary")

    def options(self, **changes: Any) -> None:
        """Change options from now on; videos in the making stay as they are."""
        self._ask("POST", "options", changes)

    def fault(self, *, on: str | list[str], do: str, **how: Any) -> None:
        self._ask("POST", "faults", {"on": on, "do": do, **how})

    def faults(self) -> list[dict[str, Any]]:
        return cast("list[dict[str, Any]]", self._ask("GET", "faults")["faults"])

    def clear_faults(self) -> None:
        self._ask("DELETE", "faults")

    def finish(self, *ids: str, match: str = "", status: str | None = None, error: Any = None) -> list[str]:
        """End running videos now, all or those named; return the ids of those that this ended."""
        how = {"match": match, "status": status, "error": error} | ({"ids": ids} if ids else {})
        return cast("list[str]", self._ask("POST", "finish", how)["ended"])

    def hold(self) -> None:
        """Let no video end by itself until `release`; `finish` still ends them."""
        self._ask("POST", "hold")

    def release(self, what: str | None = None) -> None:
        """Let go of held "videos", of hanging "requests", or of both."""
        self._ask("POST", "release", {"what": what})

    def forget(self) -> None:
        """Know no video any more, as a server that was restarted."""
        self._ask("POST", "forget")

    def reset(self) -> None:
        self._ask("POST", "reset")

    def wait(self, timeout: float = 10.0, **counts: int) -> dict[str, int]:
        """Wait until each count is at least, or with the suffix `_at_most` at most, what is given.

        Counts: the numbers of `summary`, `hanging`, `faults` (fired) and `requests_<route>`.
        """
        query = urllib.parse.urlencode({"timeout": timeout, **counts})
        answer = self._ask("GET", f"wait?{query}", timeout=timeout)
        if not answer["came"]:
            raise TimeoutError(f"{counts} did not come within {timeout} s; it is {answer['counts']}")
        return cast("dict[str, int]", answer["counts"])

    def wait_until(self, predicate: Callable[[Json], object], timeout: float = 10.0) -> Json:
        """Wait until the ledger is as the predicate says; return it. The server tells of each change."""
        deadline = monotonic() + timeout
        ledger = self.ledger()
        while not predicate(ledger):
            left = deadline - monotonic()
            if left <= 0:
                raise TimeoutError(f"the ledger did not become so within {timeout} s; it is {ledger}")
            query = urllib.parse.urlencode({"after": ledger["revision"], "timeout": left})
            ledger = self._ask("GET", f"ledger?{query}", timeout=left)
        return ledger

    def kill(self) -> None:
        """End the server as kill -9 does; its ledger is kept for `restart`."""
        process = self._running()
        try:
            self._ask("POST", "die")
        except (urllib.error.URLError, ConnectionError, HTTPException):
            process.wait(_MARGIN)
        self._end()
        if not self._state.exists():
            raise ProviderError("the provider was dead or deaf already: its ledger is lost")

    def restart(self, *, forget: bool = False) -> None:
        """Start again on the same port with the same ledger; killed first if it runs.

        Videos in the making go on, with their whole latency before them, unless it is to forget them all.
        """
        if self._process is not None:
            self.kill()
        self.start("--forget") if forget else self.start()

    def close(self) -> None:
        self._end()
        self._port.release()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _state(self) -> Path:
        return self._folder / "state"

    def start(self, *flags: str) -> None:
        ours = ["--tied", f"--port={self._port.number}", f"--state={self._state}", *flags]
        self._process = subprocess.Popen(
            [sys.executable, str(_LEDGER), *ours, *_arguments(self._options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        line = cast("Any", self._process.stdout).readline()
        if not line:
            code = self._process.wait()
            raise ProviderError(f"the provider ended with {code} before it was ready: see its stderr")
        self.other_url = json.loads(line)["other_url"]
        self._state.unlink(missing_ok=True)

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise ProviderError("the provider is not running")
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with process:
                process.kill()

    def _ask(self, method: str, path: str, body: Json | None = None, timeout: float = 0) -> Json:
        self._running()
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self.admin_url}/{path}", data, {"Content-Type": "application/json"}, method=method
        )
        try:
            with _OPENER.open(request, timeout=timeout + _MARGIN) as response:
                return cast("Json", json.load(response))
        except urllib.error.HTTPError as error:
            with error:
                raise ProviderError(f"{method} /_/{path}: {error.read().decode()}") from error


_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Goes to the provider directly, whatever proxy the environment names."""


def _arguments(options: Mapping[str, Any]) -> list[str]:
    given = ((name.replace("_", "-"), value) for name, value in options.items() if value is not None)
    return [f"--{flag}={_argument(value)}" for flag, value in given]


def _argument(value: object) -> str:
    if isinstance(value, Mapping | bool):
        return json.dumps(value)
    if isinstance(value, tuple | list):
        return "-".join(map(str, value))
    return str(value)
