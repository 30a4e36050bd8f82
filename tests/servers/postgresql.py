"""A PostgreSQL cluster of the tests' own: made, started, killed and removed.

It listens on 127.0.0.1 alone, asks for a password, and is as durable as a real one. It knows nothing of the
project. What the machine has of PostgreSQL is the business of `postgresql_programs`.
"""

import atexit
import base64
import contextlib
import hashlib
import hmac
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import threading
import uuid
from collections import deque
from pathlib import Path
from secrets import token_hex

import psycopg
from psycopg import sql

from tests.servers.lifecycle import Server
from tests.servers.packages import ServerError
from tests.servers.port import HOST, Port
from tests.servers.postgresql_programs import Programs, programs
from tests.servers.processes import children

USER = "postgres"

_READY = "database system is ready to accept connections"
_PATIENCE = 60.0
"""Seconds that a start, a recovery or a stop may take."""

_SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "synchronous_commit": "on",
    "fsync": "on",
    "max_connections": "200",
    "logging_collector": "off",  # its messages come to us
    "lc_messages": "C",  # in words that we know
    "timezone": "UTC",
}

_WHEN_WE_ARE_GONE = 'read -r _; kill -QUIT "$1"; sleep 1; rm -rf -- "$2"'
"""What a shell does when its input ends: when the test session dies, however it does."""


class PostgreSQL(Server):
    """One cluster, on a port that stays its own while it is down.

    with PostgreSQL() as server:
        url = server.url(server.create_database())

    `settings` are added to the server's configuration, e.g. `PostgreSQL(max_connections="20")`.
    """

    def __init__(self, **settings: str) -> None:
        self._programs = programs()
        self._port = Port()
        self._settings = _SETTINGS | {"port": str(self.port)} | settings
        self._password = token_hex(16)
        self._folder: Path | None = None
        self._server: _Server | None = None

    @property
    def port(self) -> int:
        return self._port.number

    @property
    def pid(self) -> int:
        return self._running().pid

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://{USER}:{self._password}@{HOST}:{self.port}/{database}"

    def start(self) -> None:
        """Start it, and wait until it takes connections; the first time, make the cluster."""
        if self._server is not None:
            return
        made = self._folder is None
        if self._folder is None:
            self._folder = _folder_for(self._programs)
            atexit.register(self.close)
            self._make_cluster(self._folder)
        self._server = _Server(self._programs, self._folder, self._settings)
        self._server.wait_until_ready()
        if made:
            self._make_connecting_quick()

    def stop(self) -> None:
        """End it at once, with no more writes, as `pg_ctl stop -m immediate`; its data stay for `start`."""
        self._end(signal.SIGQUIT)

    def kill(self) -> None:
        """End it as kill -9 does, its backends with it; its data stay for `start`."""
        self._running().kill_backends()
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Start it again, stopped first if it runs; it recovers as after a crash."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop it and remove it all."""
        self.stop()
        self._port.release()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            atexit.unregister(self.close)
            self._folder = None

    def create_database(self, encoding: str = "UTF8") -> str:
        """Make an empty database with a name of its own; return the name."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        how = sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING {} LOCALE 'C'")
        self._execute(how.format(sql.Identifier(name), sql.Literal(encoding)))
        return name

    def drop_database(self, name: str) -> None:
        """Remove a database, whoever is still connected to it: each takes 7 MB."""
        self._execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def _running(self) -> "_Server":
        if self._server is None:
            raise ServerError("this PostgreSQL is not running")
        return self._server

    def _end(self, how: signal.Signals) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.end(how)

    def _make_cluster(self, folder: Path) -> None:
        secret = folder / "password"
        secret.write_text(self._password)
        _give(secret, self._programs)
        words = ["--auth=scram-sha-256", f"--pwfile={secret}", f"--username={USER}"]
        words += ["--encoding=UTF8", "--no-locale", "--no-sync"]
        done = subprocess.run(
            [self._programs.initdb, "-D", folder / "data", *words],
            capture_output=True,
            text=True,
            check=False,
            cwd=folder,
            env=_environment(),
            **self._programs.run_as,
        )
        secret.unlink()
        if done.returncode:
            raise ServerError(f"initdb ended with {done.returncode}: {done.stderr}")

    def _make_connecting_quick(self) -> None:
        """Hash the password once instead of 4096 times: it is random, and a connection took 20 ms."""
        verifier = _scram_verifier(self._password, rounds=1)
        self._execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(USER), sql.Literal(verifier)))

    def _execute(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(statement)


class _Server:
    """One run of the server: its process, what it says, and a shell that ends it should we be killed."""

    def __init__(self, programs: Programs, folder: Path, settings: dict[str, str]) -> None:
        flags = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        self._process = subprocess.Popen(
            [programs.postgres, "-D", folder / "data", *flags],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            cwd=folder,
            env=_environment(),
            start_new_session=True,  # Ctrl-C is for the tests
            **programs.run_as,
        )
        self._watch = subprocess.Popen(
            ["/bin/sh", "-c", _WHEN_WE_ARE_GONE, "sh", str(self._process.pid), str(folder)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        self._said: deque[str] = deque(maxlen=50)
        self._ready_or_gone = threading.Event()
        self._ready = False
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_until_ready(self) -> None:
        self._ready_or_gone.wait(_PATIENCE)
        if not self._ready:
            raise ServerError("PostgreSQL did not start; it said:\n" + "".join(self._said))

    def kill_backends(self) -> None:
        """Kill what the server started; a backend that computes would notice its server's death much later."""
        self._process.send_signal(signal.SIGSTOP)  # it starts no more of them
        for child in children(self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)

    def end(self, how: signal.Signals) -> None:
        """Signal it, and wait until it and all its backends are gone: they hold the other end of `stderr`."""
        self._process.send_signal(how)
        self._end_watch()  # while the process is not yet waited for, so that its id is nobody else's
        self._listener.join(_PATIENCE)
        if self._listener.is_alive():
            self._process.kill()
            raise ServerError(f"PostgreSQL ({self.pid}) was still there {_PATIENCE} s after {how.name}")
        self._process.wait()

    def _end_watch(self) -> None:
        self._watch.kill()
        with contextlib.suppress(BrokenPipeError):
            self._watch.communicate()

    def _listen(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as said:
            for line in said:
                self._said.append(line)
                if _READY in line:
                    self._ready = True
                    self._ready_or_gone.set()
        self._ready_or_gone.set()


def _folder_for(programs: Programs) -> Path:
    """Make a folder that is the server's, where the server's user can get to it."""
    places = [Path(place).resolve() for place in (tempfile.gettempdir(), "/tmp", "/var/tmp")]
    place = next((place for place in places if not programs.run_as or _anybody_enters(place)), None)
    if place is None:
        raise ServerError(f"no folder for PostgreSQL's data that its user can enter: {places}")
    folder = Path(tempfile.mkdtemp(prefix="postgresql-", dir=place))
    _give(folder, programs)
    return folder


def _anybody_enters(folder: Path) -> bool:
    return all(step.is_dir() and step.stat().st_mode & stat.S_IXOTH for step in (folder, *folder.parents))


def _give(path: Path, programs: Programs) -> None:
    if programs.run_as:
        os.chown(path, programs.run_as["user"], programs.run_as["group"])


def _environment() -> dict[str, str]:
    """Leave out the variables that PostgreSQL would heed: they are about somebody else's server."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}


def _scram_verifier(password: str, rounds: int) -> str:
    salt = os.urandom(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, rounds)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    return f"SCRAM-SHA-256${rounds}:{_base64(salt)}${_base64(stored)}:{_base64(server)}"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
