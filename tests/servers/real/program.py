"""A server's process: on a port of its own, waited for, killed and started again; it never outlives us."""

import json
import os
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from tests.servers.packages import ServerError
from tests.servers.port import Port

_PATIENCE = 180.0
"""Seconds that a start may take."""
_WITH_A_GUARD = 'exec 3<&0; { read -r _ <&3; kill -s KILL 0; } & exec "$@" </dev/null 3<&-'
"""A shell that becomes the server, and leaves one that kills the group when our end of its input closes."""
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_QUIET = {
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # it would fetch its table of prices
    "NO_PROXY": "127.0.0.1",
    "VLLM_NO_USAGE_STATS": "1",
}
"""Nothing leaves this machine."""


class Program:
    """At most one process at a time, with its output in a file."""

    def __init__(self, command: Sequence[object], log: Path, ready: str, **environment: str) -> None:
        """Prepare it.

        Args:
            command: `{port}` in it is the port.
            log: where its output is appended.
            ready: a path that is answered once the server is ready.
            environment: besides what keeps it on this machine.
        """
        self._port = Port()
        self.url = f"http://127.0.0.1:{self._port.number}"
        self.command = [str(word).replace("{port}", str(self._port.number)) for word in command]
        self._log, self._ready = log, ready
        self._environment = {"PATH": os.environ["PATH"], "HOME": str(log.parent), **_QUIET, **environment}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *flags: str) -> None:
        """Start it, with further flags, and wait until it is ready.

        Raises:
            ServerError: it ended, or was not ready in time.
        """
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", _WITH_A_GUARD, "sh", *self.command, *flags],
                env=self._environment, cwd=self._log.parent, stdin=subprocess.PIPE, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        pause, deadline = threading.Event(), time.monotonic() + _PATIENCE
        while not answers(self.url + self._ready):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise ServerError(f"{self.command[0]} did not start; the end of {self._log}:\n{self.tail()}")
            pause.wait(0.1)

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def send(self, number: int) -> None:
        """Send a signal to it."""
        assert self._process is not None
        os.killpg(self._process.pid, number)

    def kill(self) -> None:
        """End it as kill -9 does."""
        process, self._process = self._process, None
        if process is not None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()

    def close(self) -> None:
        self.kill()
        self._port.release()

    def tail(self) -> str:
        return self._log.read_text(errors="replace")[-2000:]


def fetched(url: str, key: str) -> Any:
    """A JSON document of a server's."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"})
    with OPENER.open(request, timeout=_PATIENCE) as answer:
        return json.load(answer)


def answers(url: str) -> bool:
    """Whether a server is there, even if it wants a key."""
    try:
        OPENER.open(url, timeout=5).close()
    except HTTPError as error:
        error.close()
        return error.code < 500
    except OSError:
        return False
    return True
