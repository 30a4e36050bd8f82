"""OpenService: the database and the recorder of a service while it is open; closed at exit, useless after a fork."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property, partial
from typing import Any, Self, TypeVar

import peewee

from actors.batch.events import EventName
from actors.errors import DatabaseUnusable, ServiceClosed, StorageError
from actors.needs import database_obstacle
from actors.observer import Observer
from actors.settings import Settings
from actors.stores import stores_of
from storage.database import Database
from storage.failures import DatabaseError
from storage.recorder import Recorder
from storage.records import EventRecord
from storage.states import JobStatus
from storage.storage import Storage
from storage.stores import Stores

logger = logging.getLogger(__name__)
S = TypeVar("S", bound="OpenService")
T = TypeVar("T")
ANSWER_SECONDS, _GRACE_SECONDS = 10.0, 1.0
_ENDS = {
    EventName.JOB_COMPLETED.value: JobStatus.COMPLETED.value,
    EventName.JOB_FAILED.value: JobStatus.FAILED.value,
    EventName.JOB_CANCELLED.value: JobStatus.CANCELLED.value,
}
_shared_lock = threading.Lock()
_shared: Any = None


# Weak: a service without references has no batches to release.
open_services: weakref.WeakSet[OpenService] = weakref.WeakSet()
_inherited: list[OpenService] = []
"""Another process's: what they hold must not be closed here, not even by the garbage collector."""


class OpenService:
    """Reads and writes for any number of threads, and tells who wants to hear of what is recorded."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.observer = Observer()
        self._closed, self._process = False, os.getpid()
        self._lock = threading.RLock()
        try:
            self._database = Database(settings.database_url)
            self._database.open()
        except DatabaseError as error:
            raise DatabaseUnusable(str(error)) from error
        self._storage = Storage(self._database)
        self._recorder = Recorder(self._database)

    @cached_property
    def stores(self) -> Stores:
        """Where files are put, and whence they are had."""
        return stores_of(self.settings)

    @property
    def database_place(self) -> str:
        """Which database this is, for a person."""
        return self._database.place

    @property
    def closed(self) -> bool:
        """Whether `close` was called, or the process was forked since: the threads are in the other process."""
        return self._closed or self._process != os.getpid()

    @property
    def write_obstacle(self) -> str | None:
        """Why the database takes no writes just now; None: it does, as far as anybody has tried."""
        away = self._recorder.away
        return None if away is None else away.reason

    def ping(self) -> None:
        """Ask the database for nothing.

        Raises:
            StorageError: it can't be asked, or its file is gone or not writable.
        """
        if (obstacle := database_obstacle(self._database)) is not None:
            raise StorageError(obstacle)
        self._read(lambda: self._database.execute("SELECT 1").fetchone())

    def now(self) -> float:
        """The database's time, used for all records, in seconds since 1970."""
        return self._database.time()

    def observe(self, observer: Observer) -> None:
        """Have an observer told of what happens here from now on. To be called before anything is processed."""
        self.observer = observer
        self._recorder.on_commit = observer.committed
        self._storage.journal.observers.append(partial(_observe_finished_jobs, observer))

    def listen(self, told: Callable[[list[EventRecord]], object]) -> Callable[[], None]:
        """Have the events that this process records told after their COMMIT, in the committing thread.

        Returns:
            Ends it.
        """
        observers = self._storage.journal.observers
        observers.append(told)

        def end() -> None:
            with suppress(ValueError):
                observers.remove(told)

        return end

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database: the last thing."""
        if not self._database.close():
            logger.warning(
                "closed, but another thread still uses the database; its connection ends when it is done",
                extra={"action": "close", "database": self._database.place},
            )

    # --- how

    def _check_open(self) -> None:
        if self._process != os.getpid():
            raise ServiceClosed("this service was created before a fork; create one in each process")
        if self._closed:
            raise ServiceClosed

    def _write(self, run: Callable[[], T]) -> T:
        """In one transaction of the recorder; perhaps once more, after a COMMIT whose answer was lost."""
        self._check_open()
        answer = self._recorder.write(run, patience=ANSWER_SECONDS)
        try:
            return answer.result(timeout=ANSWER_SECONDS + _GRACE_SECONDS)
        except TimeoutError:
            undone, away = answer.cancel(), self._recorder.away
            if undone:
                self._check_open()
            why = away.reason if away else f"the database {self._database.place} does not answer"
            raise StorageError(
                f"{why} (tried for {ANSWER_SECONDS:g} s); "
                + ("nothing was changed" if undone else "check whether it was done before you try again")
            ) from None
        except (DatabaseError, peewee.DatabaseError) as error:
            self._check_open()
            raise StorageError(
                str(error if isinstance(error, DatabaseError) else self._database.explained(error))
            ) from error

    def _read(self, run: Callable[[], T]) -> T:
        self._check_open()
        try:
            return self._database.read(run)
        except DatabaseError as error:
            self._check_open()
            raise StorageError(str(error)) from error


def _observe_finished_jobs(observer: Observer, events: list[EventRecord]) -> None:
    for event in events:
        if event.type in _ENDS:
            observer.finished(_ENDS[event.type])


def shared_service(make: Callable[[], S]) -> S:
    """The one service of this process; a new one if it was closed."""
    global _shared  # noqa: PLW0603  (there is one per process)
    with _shared_lock:
        if _shared is None or _shared.closed:
            _shared = make()
        service: S = _shared
        return service


@atexit.register
def _close_open_ones() -> None:
    for service in list(open_services):
        service.close()


def _after_fork_in_child() -> None:
    global _shared, _shared_lock
    _inherited.extend(open_services)
    open_services.clear()
    _shared, _shared_lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
