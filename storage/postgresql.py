"""PostgreSQL: the settings of its connections, and the detection of poolers that keep no session."""

from __future__ import annotations

import os
import select
from typing import Any
from urllib.parse import parse_qs, urlsplit

import peewee

from storage.connections import Pool
from storage.failures import POSTGRESQL_URL, DatabaseError, DatabaseRefused
from storage.secrets import Secrets
from storage.urls import place_of, read_url

IDLE_IN_TRANSACTION_MILLISECONDS = 5000
_NOTICES_A_LOST_HOST = {
    "connect_timeout": 10,
    "tcp_user_timeout": 20_000,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}
"""For libpq, in seconds (the second one in milliseconds): a host that stops answering counts as unreachable. The
system's own timeouts, 15 minutes or two hours, would block everything that a process was given."""
_IDLE = "idle_in_transaction_session_timeout"
_WRITERS = 0x50_4A_BA_7D
"""The key of the advisory lock that every transaction that writes shares, but one that has to be alone."""
_CANCEL_SECONDS, _ANSWER_SECONDS = 2.0, 10.0
_NO_SESSION = (
    "DATABASE_URL leads to a connection pooler in transaction or statement mode, which keeps no session (locks, "
    "settings, prepared statements); set pool_mode = session for this database, or connect to PostgreSQL directly"
)
_NO_SECOND = (
    f"DATABASE_URL leads to a connection pooler that gave no second connection within {_ANSWER_SECONDS:g} s; raise its "
    "pool size (each process of sora-batch needs about 5 connections), or connect to PostgreSQL directly"
)


def postgresql_at(url: str, secrets: Secrets) -> PooledPostgresql:
    """The database of a URL. Connects to nothing yet.

    Raises:
        DatabaseError: the URL can't be used, or the driver is not installed.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        why = secrets.mask(str(error))
        raise DatabaseError(f"DATABASE_URL can't be used: {why}; expected {POSTGRESQL_URL}") from None
    meant = read_url(url)
    # libpq would take the end of the password for the host, and show it.
    if parts.netloc.count("@") > 1 or "/" in f"{meant.user}{meant.password}":
        raise DatabaseError(
            "DATABASE_URL can't be used: in the user name and password, write @ as %40 and / as %2F; "
            f"expected {POSTGRESQL_URL}"
        )
    try:
        import psycopg  # noqa: F401  (peewee would not say what is wrong with it)
    except ImportError as error:
        raise DatabaseError(
            f"DATABASE_URL={place_of(url)!r} needs the PostgreSQL driver ({error}); "
            "install it: pip install 'sora-batch[postgresql]'"
        ) from error
    return PooledPostgresql(url)


class PooledPostgresql(Pool, peewee.PostgresqlDatabase):
    """PostgreSQL through psycopg."""

    _adapter: Any

    def __init__(self, url: str) -> None:
        self._checked = False
        given = parse_qs(urlsplit(url).query)
        # Settings there take precedence. (Ours come after connecting: a pooler may refuse any `options`.)
        said = " ".join([*given.get("options", []), os.environ.get("PGOPTIONS", "")])
        self._limit = "" if _IDLE in said else str(IDLE_IN_TRANSACTION_MILLISECONDS)
        super().__init__(
            # libpq parses the whole URL: options such as sslmode stay the user's.
            url.replace("postgres://", "postgresql://", 1),
            autoconnect=False,
            prefer_psycopg3=True,
            # A database of no encoding (SQL_ASCII, as a cluster has that was made without a locale) would give bytes.
            client_encoding="UTF8",
            **{name: value for name, value in _NOTICES_A_LOST_HOST.items() if name not in given},
        )

    def begin(self, isolation_level: Any = None, *, alone: bool = False) -> None:  # noqa: ARG002  (peewee's)
        """Begin a transaction; `alone`: while no other one writes.

        The lock comes before every other one that a transaction takes, so that no two wait for each other because of
        it. In one text with BEGIN: it costs no round trip.
        """
        lock = "pg_advisory_xact_lock" if alone else "pg_advisory_xact_lock_shared"
        with peewee.__exception_wrapper__:  # type: ignore[attr-defined]
            # Never prepared: that is for one statement.
            self.cursor().execute(f"BEGIN; SELECT {lock}({_WRITERS})", prepare=False)

    def _begin_session(self, conn: Any) -> None:
        # A process suspended in a transaction would keep a batch's row locked, and nobody could take the batch over.
        set_limit = f", set_config('{_IDLE}', '{self._limit}', FALSE)" if self._limit else ""
        (pid, *_) = conn.execute(f"SELECT pg_backend_pid(){set_limit}").fetchone()
        # A pooler reports a process id of its own.
        if not self._checked and pid != conn.pgconn.backend_pid:
            self._refuse_without_session(conn, pid)
        self._checked = True

    def _refuse_without_session(self, conn: Any, pid: int) -> None:
        """Check that this is a session: one server process, used by nobody else meanwhile.

        Raises:
            DatabaseRefused: it is not.
        """
        pids = [conn.execute("SELECT pg_backend_pid()").fetchone()[0]]
        other = self._adapter.connect(self, **self.connect_params)
        try:
            other.pgconn.send_query(b"BEGIN; SELECT pg_backend_pid()")
            if not select.select([other.pgconn.socket], [], [], _ANSWER_SECONDS)[0]:
                raise DatabaseRefused(_NO_SECOND)
            results = []
            while (result := other.pgconn.get_result()) is not None:
                results.append(result.get_value(0, 0) if result.ntuples else None)
            pids.append(conn.execute("SELECT pg_backend_pid()").fetchone()[0])
        finally:
            other.close()
        another = int(results[-1] or 0)
        if another in (0, pid) or set(pids) != {pid}:
            raise DatabaseRefused(_NO_SESSION)

    def _is_dead(self, conn: Any) -> bool:
        return bool(conn.closed or self._adapter.is_connection_closed(conn))

    def _is_reusable(self, conn: Any) -> bool:
        return bool(self._adapter.is_connection_reusable(conn))

    def _break_off(self, conn: Any) -> None:
        conn.cancel_safe(timeout=_CANCEL_SECONDS)
