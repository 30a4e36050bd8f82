"""A RabbitMQ node of the tests' own, with the project's `rabbitmq.conf`: made, started, killed and removed.

It listens on 127.0.0.1 alone, on a port that stays its own while it is down.
"""

import atexit
import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pika

from tests.servers.lifecycle import Server
from tests.servers.packages import ServerError, find_or_install
from tests.servers.port import HOST, Port

_FOLDERS = ("/usr/lib/rabbitmq/bin", "/opt/homebrew/sbin", "/usr/local/sbin")
_CONFIGURATION = Path(__file__).parents[2] / "rabbitmq.conf"
_LISTENER = "listeners.tcp.1 = 127.0.0.1:5672"
_PATIENCE = 90.0
"""Seconds that a start may take."""
_VHOSTS = 20
"""So many are made at once: each call of rabbitmqctl takes a second."""
_MAKE_VHOSTS = """lists:foreach(fun(Name) -> rabbit_vhost:add(Name, <<"tests">>),
  rabbit_auth_backend_internal:set_permissions(<<"guest">>, Name, <<".*">>, <<".*">>, <<".*">>, <<"tests">>)
end, [NAMES])."""
_WHEN_WE_ARE_GONE = 'read -r _; kill -s KILL -- "-$1"; ERL_EPMD_PORT=$2 epmd -kill; rm -rf -- "$3"'
"""What a shell does when its input ends: when the test session dies, however it does."""


class RabbitMQ(Server):
    """One node. What it keeps survives `kill` and `start`."""

    def __init__(self) -> None:
        self._program = find_or_install("RabbitMQ", _find, "rabbitmq-server")
        self._ports = [Port() for _ in range(3)]
        self._folder: Path | None = None
        self._vhosts: list[str] = []
        self._vhost_count = 0
        self._server: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@{HOST}:{self._ports[0].number}/"

    def fresh_url(self) -> str:
        """Of a virtual host that nobody has used: its exchanges and queues are its user's alone."""
        if not self._vhosts:
            first = self._vhost_count + 1
            self._vhost_count += _VHOSTS
            self._vhosts = [f"test{number}" for number in range(first, self._vhost_count + 1)]
            names = ", ".join(f'<<"{name}">>' for name in self._vhosts)
            self.control("eval", _MAKE_VHOSTS.replace("NAMES", names))
        return self.url + self._vhosts.pop()

    def connect(self) -> Any:
        """A blocking connection."""
        return pika.BlockingConnection(pika.URLParameters(self.url))

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        if self._server is not None:
            return
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="sora-batch-rabbitmq-"))
            atexit.register(self.close)
            self._configure(self._folder)
        with (self._folder / "output").open("ab") as output:
            self._server = subprocess.Popen(
                [self._program], env=self._environment(self._folder), cwd=self._folder, stdin=subprocess.DEVNULL,
                stdout=output, stderr=subprocess.STDOUT, start_new_session=True, **_user(),
            )  # fmt: skip
        words = [str(self._server.pid), str(self._ports[2].number), str(self._folder)]
        self._guard = subprocess.Popen(
            ["sh", "-c", _WHEN_WE_ARE_GONE, "sh", *words], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        self._wait_until_ready()

    def kill(self) -> None:
        """End it as kill -9 does; its data stay for `start`.

        Not before its quorum queues would survive: one that was declared in the last seconds is stuck after a kill.
        """
        pause, deadline = threading.Event(), time.monotonic() + _PATIENCE
        while not self._keeps_its_quorum_queues():
            if time.monotonic() > deadline:
                raise ServerError(f"RabbitMQ did not write its quorum queues down within {_PATIENCE} s")
            pause.wait(0.05)
        self._end()

    def _keeps_its_quorum_queues(self) -> bool:
        assert self._folder is not None
        for home in self._folder.glob("data/*/quorum/*"):
            known = [(home / file).read_bytes() for file in ("names.dets", "meta.dets")]
            queues = [each.name.encode() for each in home.iterdir() if each.is_dir()]
            if not all(queue in text for queue in queues for text in known):
                return False
        return True

    def _end(self) -> None:
        assert self._server is not None
        assert self._guard is not None
        with self._guard:
            self._guard.kill()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._server.pid, signal.SIGKILL)
        self._server.wait()
        self._server = None

    def control(self, *words: str) -> str:
        """Run rabbitmqctl; return what it prints."""
        assert self._folder is not None
        environment, program = self._environment(self._folder), Path(self._program).with_name("rabbitmqctl")
        done = subprocess.run(
            [program, "--quiet", "-n", environment["RABBITMQ_NODENAME"], *words], env=environment, cwd=self._folder,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=_PATIENCE, **_user(),
        )  # fmt: skip
        if done.returncode:
            raise ServerError(f"rabbitmqctl {' '.join(words)} failed:\n{done.stdout}{done.stderr}")
        return done.stdout

    def close_all_connections(self) -> None:
        self.control("close_all_connections", "a test closes them")

    @contextlib.contextmanager
    def memory_alarm(self) -> Iterator[None]:
        """As if its memory were full."""
        self.control("set_vm_memory_high_watermark", "absolute", "1MB")
        try:
            yield
        finally:
            self.control("set_vm_memory_high_watermark", "0.4")

    @contextlib.contextmanager
    def disk_alarm(self) -> Iterator[None]:
        """As if its disk were full."""
        self.control("set_disk_free_limit", "1000000GB")
        try:
            yield
        finally:
            self.control("set_disk_free_limit", "256MB")

    def close(self) -> None:
        """End it, and remove what it has written."""
        if self._server is not None:
            self._end()
        if self._folder is not None:
            environment = os.environ | {"ERL_EPMD_PORT": str(self._ports[2].number)}
            subprocess.run(["epmd", "-kill"], env=environment, capture_output=True, check=False)
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
            atexit.unregister(self.close)
        for port in self._ports:
            port.release()

    def _configure(self, folder: Path) -> None:
        settings = _CONFIGURATION.read_text()
        assert _LISTENER in settings
        (folder / "rabbitmq.conf").write_text(
            settings.replace(_LISTENER, f"listeners.tcp.1 = {HOST}:{self._ports[0].number}")
        )
        (folder / "enabled_plugins").write_text("[].\n")
        user = _user()
        if user:
            for path in (folder, *folder.iterdir()):
                os.chown(path, user["user"], user["group"])

    def _environment(self, folder: Path) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "ERL_EPMD_ADDRESS": HOST,
            "ERL_EPMD_PORT": str(self._ports[2].number),
            "ERL_EPMD_RELAXED_COMMAND_CHECK": "1",  # it may be ended although it has not noticed the node's end
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_DIST_PORT": str(self._ports[1].number),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_NODENAME": f"sora{self._ports[0].number}@localhost",
            "RABBITMQ_PID_FILE": str(folder / "pid"),
        }

    def _wait_until_ready(self) -> None:
        pause, deadline = threading.Event(), time.monotonic() + _PATIENCE
        while True:
            try:
                with socket.create_connection((HOST, self._ports[0].number), 1):
                    pass  # pika makes much ado about a refusal
                self.connect().close()
            except (pika.exceptions.AMQPError, OSError):
                assert self._server is not None
                assert self._folder is not None
                if self._server.poll() is not None or time.monotonic() > deadline:
                    output = (self._folder / "output").read_text(errors="replace")
                    raise ServerError(f"RabbitMQ did not start:\n{output[-3000:]}") from None
                pause.wait(0.1)
            else:
                return


def _user() -> dict[str, Any]:
    """As whom it runs: not as root."""
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam("rabbitmq")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _find() -> str | None:
    places = [f"{folder}/rabbitmq-server" for folder in _FOLDERS]
    return next((place for place in places if os.access(place, os.X_OK)), None) or shutil.which("rabbitmq-server")
