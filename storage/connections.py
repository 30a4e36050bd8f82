"""The connections of a database: each is used by one thread at a time, and closed by the thread that uses it.

A pool of our own: peewee's closes connections while threads use them, which crashes the interpreter with SQLite, and
holds one lock while it connects, so that an unresponsive host would block closing.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import peewee

from storage.failures import DatabaseClosed, DatabaseRefused

FORK_SECONDS = 10.0
"""How long a fork waits for other threads' SQLite operations."""
_CLOSED = "the database is closed"


class Pool(peewee.Database):
    """Keeps returned connections for the next thread. A mixin for peewee's databases."""

    _state: Any

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        # peewee holds its lock while it connects. It guards nothing: its state is per thread.
        self._lock = contextlib.nullcontext()
        self.guard = threading.Condition()
        self.ended = False
        """No more connections are handed out."""
        self._idle: list[Any] = []
        self._used: dict[int, tuple[Any, int]] = {}
        """By the connection's id: the connection and the thread that uses it."""
        self._opening = 0
        self._held = False

    def _connect(self) -> Any:
        while (kept := self._take()) is not None:
            if not self._is_dead(kept):
                return kept
            self._drop(kept)
        try:
            made = super()._connect()  # type: ignore[misc]
            try:
                self._begin_session(made)
            except BaseException:
                made.close()
                raise
        except BaseException:
            with self.guard:
                self._opening -= 1
                self.guard.notify_all()
            raise
        with self.guard:
            self._opening -= 1
            self._used[id(made)] = (made, threading.get_ident())
        if self.ended:
            self._drop(made)
            raise DatabaseClosed(_CLOSED)
        return made

    def _take(self) -> Any:
        """An idle connection; None: the caller opens one."""
        with self.guard:
            self.guard.wait_for(lambda: not self._held)
            if self.ended:
                raise DatabaseClosed(_CLOSED)
            if not self._idle:
                self._opening += 1
                return None
            kept = self._idle.pop()
            self._used[id(kept)] = (kept, threading.get_ident())
            return kept

    def _close(self, conn: Any) -> None:
        """Keep it for the next thread, or close it, in the thread that used it."""
        usable = self._is_reusable(conn)
        with self.guard:
            if usable and not self.ended and id(conn) in self._used:
                del self._used[id(conn)]
                self._idle.append(conn)
                self.guard.notify_all()
                return
        self._drop(conn)

    def _drop(self, conn: Any) -> None:
        with self.guard:  # not to be interrupted while it is closed
            self._used.pop(id(conn), None)
            with contextlib.suppress(Exception):  # unusable, whatever the error
                conn.close()
            self.guard.notify_all()

    def discard(self) -> None:
        """Close this thread's connection: it may be broken."""
        if not self.is_closed():
            conn = self._state.conn
            self._state.reset()
            self._drop(conn)

    def end_idle(self) -> None:
        """Close the idle connections."""
        with self.guard:
            while self._idle:
                self._drop(self._idle.pop())

    def end(self) -> None:
        """Hand out no more. Connections in use by other threads are closed when returned."""
        with self.guard:
            self.ended = True
        if not self.is_closed() and not self.in_transaction():
            self.close()
        self.end_idle()

    def unused(self, seconds: float) -> bool:
        """Wait until no other thread uses one; returns whether that happened."""
        with self.guard:
            return self.guard.wait_for(lambda: not (self._opening or any(self._of_others())), seconds)

    def interrupt(self) -> None:
        """Abort the database operations of other threads."""
        with self.guard:
            for conn in self._of_others():
                with contextlib.suppress(Exception):  # it has finished by itself
                    self._break_off(conn)

    def hold(self) -> None:
        """Before a fork: ensure that no thread has or gets a connection."""
        self.guard.acquire()
        self._held = True
        self.unused(FORK_SECONDS)
        self.end_idle()

    def go_on(self) -> None:
        """After a fork."""
        self._held = False
        self.guard.notify_all()
        self.guard.release()

    @property
    def open_connections(self) -> list[Any]:
        """Those that were in use, or being opened, when the process was forked."""
        return [conn for conn, _ in self._used.values()] + [None] * self._opening

    def _of_others(self) -> Iterator[Any]:
        own = threading.get_ident()
        return (conn for conn, thread in list(self._used.values()) if thread != own)

    def _begin_session(self, conn: Any) -> None:
        """Do what a new connection needs."""

    def _is_dead(self, conn: Any) -> bool:
        raise NotImplementedError

    def _is_reusable(self, conn: Any) -> bool:
        raise NotImplementedError

    def _break_off(self, conn: Any) -> None:
        raise NotImplementedError


class PooledSqlite(Pool, peewee.SqliteDatabase):
    """SQLite. After some failures, such as a full disk, it has rolled back by itself."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        _pools.add(self)

    def _connect(self) -> Any:
        if self.database in _unusable:
            raise DatabaseRefused(
                f"the database {self.database} can't be used in this process: another thread was using it during "
                "the fork; fork before the service has work, or start a new process (spawn)"
            )
        return super()._connect()

    def rollback(self) -> None:
        """Roll back an open transaction only: a second rollback would be an error, and hide the first."""
        if self.connection().in_transaction:
            super().rollback()

    def _is_dead(self, _conn: sqlite3.Connection) -> bool:
        return False

    def _is_reusable(self, conn: sqlite3.Connection) -> bool:
        if conn.in_transaction:
            conn.rollback()
        return True

    def _break_off(self, conn: sqlite3.Connection) -> None:
        conn.interrupt()


# SQLite and fork: a child inherits what the library believes about a file's locks, but not the locks. If it then opened
# the file, its log could be deleted under it. So during a fork this process has no connection to any file; and if one
# can't be closed in time, the child does not open that file.

_pools: weakref.WeakSet[PooledSqlite] = weakref.WeakSet()
_one_fork_at_a_time = threading.Lock()
_forking: list[PooledSqlite] = []
_unusable: set[Any] = set()
_inherited: list[Any] = []
"""Connections that this process must not even close."""


def _before_fork() -> None:
    _one_fork_at_a_time.acquire()
    for pool in list(_pools):
        _forking.append(pool)
        pool.hold()


def _after_fork() -> None:
    while _forking:
        _forking.pop().go_on()
    _one_fork_at_a_time.release()


def _after_fork_in_child() -> None:
    for pool in _forking:
        pool.ended = True
        if pool.open_connections:
            _unusable.add(pool.database)
            _inherited.append(pool.open_connections)
    _after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)
