"""Opens a database by its URL: SQLite or PostgreSQL behind one interface.

Owns the connections (a pool), the transaction of every write and the database's clock.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

import peewee

from storage.connections import PooledSqlite
from storage.failures import POSTGRESQL_URL, DatabaseClosed, DatabaseError, is_outage, way_out
from storage.migrations import migrate, migrating_alone
from storage.secrets import Secrets
from storage.timing import boottime
from storage.urls import place_of

T = TypeVar("T")
logger = logging.getLogger(__name__)

BUSY_SECONDS = 5.0


class NotAlone(Exception):
    """A transaction is to be run again while no other one writes. The recorder does so."""


class Database:
    """One database, usable from every thread. Connects on first use, not when created."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._local = threading.local()
        self.postgresql = url.startswith(("postgresql://", "postgres://"))
        self.path: Path | None = None
        self._secrets = Secrets(urls=[url])
        self._ahead: float | None = None
        self.broken_off = False
        """Writes that are still running when it is closed stop here."""
        self.peewee: Any = self._of_postgresql() if self.postgresql else self._of_sqlite()
        clock = "date_part('epoch', clock_timestamp())" if self.postgresql else "(julianday('now')-2440587.5)*86400.0"
        self.clock = clock
        """The database's time in seconds since 1970, as SQL. (SQLite's unixepoch('subsec') needs 3.42.)"""
        self.in_list = "= ANY(?)" if self.postgresql else "IN (SELECT value FROM json_each(?))"
        """Behind a column: it has one of the texts that `listed` gives for the parameter. One text for any number."""

        self.pairs = (
            "SELECT value ->> 0, (value ->> 1)::integer FROM json_array_elements(?::json)"
            if self.postgresql
            else "SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?)"
        )
        """Rows of a text and a number, from a JSON list of such pairs."""

    def _of_postgresql(self) -> Any:
        from storage.postgresql import postgresql_at

        return postgresql_at(self.url, self._secrets)

    def _of_sqlite(self) -> Any:
        if not self.url.startswith("sqlite:///"):
            raise DatabaseError(
                f"DATABASE_URL={place_of(self.url)!r}: expected sqlite:///FILE (four slashes for an absolute path) "
                f"or {POSTGRESQL_URL}"
            )
        self.path = Path(unquote(self.url.removeprefix("sqlite:///"))).absolute()
        busy = int(BUSY_SECONDS * 1000)
        pragmas = {"busy_timeout": busy, "journal_mode": "wal", "synchronous": "full", "foreign_keys": 1}
        return PooledSqlite(str(self.path), pragmas=pragmas, autoconnect=False, check_same_thread=False)

    def list_parameter(self, texts: Iterable[str]) -> Any:
        """Texts as the one parameter of `in_list`."""
        return list(texts) if self.postgresql else json.dumps(list(texts))

    @property
    def place(self) -> str:
        """Where it is, for a person: the absolute path, or the URL without its password."""
        if self.path is not None:
            return str(self.path)
        place = place_of(self.url)
        return place if re.search(r"://[^/]*:|:///", place) else re.sub(r"(://[^/]*)", r"\1:5432", place)

    @contextlib.contextmanager
    def connection(self) -> Iterator[None]:
        """Hold a connection of the pool for this thread."""
        with self.peewee.connection_context():
            yield

    @contextlib.contextmanager
    def begin(self, *, alone: bool = False) -> Iterator[None]:
        """A write transaction; `alone`: while no other process has one.

        IMMEDIATE on SQLite: a deferred one that reads first fails at its first write, and it is always alone.
        """
        after = self._local.after_commit = []
        self._local.alone = alone or not self.postgresql
        with self.peewee.atomic(alone=alone) if self.postgresql else self.peewee.atomic("IMMEDIATE"):
            yield
        for act in after:
            try:
                act()
            except Exception:  # it is committed: the caller must not believe otherwise and repeat it
                logger.exception("an action after COMMIT failed", extra={"action": "after_commit"})

    def be_alone(self) -> None:
        """See that no other process is writing, until this transaction ends.

        Raises:
            NotAlone: run it again, in `begin(alone=True)`.
        """
        if not self._local.alone:
            raise NotAlone

    def after_commit(self, act: Callable[[], object]) -> None:
        """Run something quick in this thread after its transaction commits; never, if it does not."""
        self._local.after_commit.append(act)

    def read(self, query: Callable[[], T]) -> T:
        """Run a query outside a transaction; repeated if the pooled connection was dead.

        Raises:
            DatabaseClosed: it was closed before or during the query.
            DatabaseError: the database is unreachable, locked, corrupt or newer than the program.
        """
        try:
            try:
                with self.connection():
                    return query()
            except peewee.DatabaseError as error:
                if not (self.postgresql and is_outage(error)):
                    raise
                self.peewee.end_idle()
                with self.connection():
                    return query()
        except peewee.DatabaseError as error:
            if self.peewee.ended:  # it was broken off
                raise DatabaseClosed(f"the database {self.place} is closed") from self._shown(error)
            raise self.explained(error) from self._shown(error)

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> Any:
        """Run SQL text (`?` marks a parameter). For hot statements: building them costs more than running them.

        Raises:
            DatabaseClosed: it was closed, and this write had not finished in time.
        """
        if self.broken_off:
            raise DatabaseClosed(f"the database {self.place} is closed")
        return self.peewee.execute_sql(sql.replace("?", "%s") if self.postgresql else sql, parameters)

    def now(self) -> float:
        """The database's time, in seconds since 1970."""
        return self.told_time(float(self.execute(f"SELECT {self.clock}").fetchone()[0]))

    def told_time(self, now: float) -> float:
        """Set the clock of `time` to the time that the database just reported."""
        self._ahead = now - boottime()
        return now

    def time(self) -> float:
        """The database's time without a query: its last reported time plus the time elapsed since.

        For all that is recorded and compared by other processes: their machines' clocks may differ.
        """
        return time.time() if self._ahead is None else self._ahead + boottime()

    def open(self) -> list[str]:
        """Create or migrate the schema.

        Returns:
            The names of the migrations that were applied.

        Raises:
            DatabaseError: as `read`.
        """
        if self.path is not None and not self.path.parent.is_dir():
            raise DatabaseError(
                f"the database {self.place} can't be created: the folder {self.path.parent} does not exist; "
                "create it or set DATABASE_URL"
            )
        self.check_writable()
        try:
            with migrating_alone(self):
                applied = migrate(self)
                self.now()
        except (peewee.DatabaseError, OSError) as error:
            raise self.explained(error) from self._shown(error)
        return applied

    def check_writable(self) -> None:
        """SQLite opens even a read-only file, and fails at the first write.

        Checks permissions without opening the file: closing it would drop the locks that SQLite has on it.

        Raises:
            DatabaseError: the file, or its folder, is not writable.
        """
        if self.path is None:
            return
        for place in (self.path, self.path.parent):  # SQLite's log is in the same folder
            if place.exists() and not os.access(place, os.W_OK):
                what = "folder" if place.is_dir() else "file"
                raise DatabaseError(
                    f"the database {self.place} can't be used: the {what} {place} is not writable; "
                    "make it writable or set DATABASE_URL"
                )

    def explained(self, error: Exception) -> DatabaseError:
        """One sentence that names the database, the problem and the way out."""
        text = next(iter(self._secrets.mask(str(error)).strip().splitlines()), type(error).__name__)
        return DatabaseError(f"the database {self.place} can't be used: {text}; {way_out(text, self.path)}")

    def describe(self, error: BaseException | None) -> str:
        """An error for a person: as by `explained`, if it is the database's."""
        return (
            str(self.explained(error)) if isinstance(error, peewee.DatabaseError) else self._secrets.mask(repr(error))
        )

    def _shown(self, error: Exception) -> Exception | None:
        """The cause to raise from; None if it quotes a secret, which a traceback would show."""
        return error if self._secrets.mask(str(error)) == str(error) else None

    def break_off(self) -> None:
        """Abort what other threads do with it: their statements fail, and their transactions are rolled back."""
        self.broken_off = True
        self.peewee.interrupt()

    def close(self, seconds: float = 2.0) -> bool:
        """Close every connection, each in the thread that uses it; abort what takes longer than `seconds`.

        Returns:
            Whether all are closed. One still in use by a thread is closed when the thread returns it.
        """
        self.peewee.end()
        if self.peewee.unused(seconds):
            return True
        self.break_off()
        return bool(self.peewee.unused(seconds))
