"""A pgbouncer of the tests' own, before a PostgreSQL of theirs. It ends with the tests, however they end."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

from tests.servers.lifecycle import Server
from tests.servers.packages import ServerError, find_or_install
from tests.servers.port import HOST, Port
from tests.servers.postgresql_programs import unprivileged

_PLACES = ("/usr/sbin/pgbouncer", "/usr/local/sbin/pgbouncer", "/opt/homebrew/bin/pgbouncer")
_PATIENCE = 30.0
_WHEN_WE_ARE_GONE = 'read -r _; kill -TERM "$1"; rm -rf -- "$2"'


class PgBouncer(Server):
    """One pooler in front of the server that a URL names.

    with PgBouncer(server.url(name), pool_mode="session") as pooler:
        Database(pooler.url)
    """

    def __init__(self, behind: str, **settings: str) -> None:
        self._program, self._run_as = find_or_install("pgbouncer", _find, "pgbouncer"), unprivileged()
        parts = urlsplit(behind)
        self._port = Port()
        self.url = parts._replace(netloc=f"{parts.username}:{parts.password}@{HOST}:{self._port.number}").geturl()
        self._settings = {
            "listen_addr": HOST,
            "listen_port": str(self._port.number),
            "unix_socket_dir": "",
            "auth_type": "scram-sha-256",
            **settings,
        }
        self._target = f"host={HOST} port={parts.port}"
        self._user = f'"{parts.username}" "{parts.password}"\n'
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._watch: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        folder = self._folder = Path(tempfile.mkdtemp(prefix="pgbouncer-", dir="/tmp"))
        lines = [f"{name} = {value}" for name, value in self._settings.items()]
        users, configuration = folder / "users.txt", folder / "pgbouncer.ini"
        users.write_text(self._user)
        configuration.write_text(
            "\n".join(["[databases]", f"* = {self._target}", "[pgbouncer]", f"auth_file = {users}", *lines, ""])
        )
        for path in (folder, users, configuration):
            if self._run_as:
                os.chown(path, self._run_as["user"], self._run_as["group"])
        with (folder / "output").open("wb") as output:
            self._process = subprocess.Popen(
                [self._program, configuration], cwd=folder, stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True, **self._run_as,
            )  # fmt: skip
        self._watch = subprocess.Popen(
            ["/bin/sh", "-c", _WHEN_WE_ARE_GONE, "sh", str(self._process.pid), str(folder)],
            stdin=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        self._wait_until_ready(folder)

    def _wait_until_ready(self, folder: Path) -> None:
        pause, deadline = threading.Event(), time.monotonic() + _PATIENCE
        while True:
            try:
                socket.create_connection((HOST, self._port.number), 1).close()
            except OSError:
                assert self._process is not None
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise ServerError(f"pgbouncer did not start:\n{(folder / 'output').read_text()}") from None
                pause.wait(0.05)
            else:
                return

    def close(self) -> None:
        """End it, and remove what it has written."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(_PATIENCE)
        if self._watch is not None:
            self._watch.kill()
            self._watch.communicate()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._port.release()


def _find() -> str | None:
    return next((place for place in _PLACES if os.access(place, os.X_OK)), None) or shutil.which("pgbouncer")
