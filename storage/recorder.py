"""Recorder: the one writing thread of a process. Writes that arrive together are committed together.

A write is a function that runs inside the transaction and is answered after its COMMIT. It may run more than once
(another write failed the group, the connection was lost), so it must have no effects outside the database. While the
database is unavailable, locked or full, the recorder holds its tasks and retries.
"""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from storage.database import Database, NotAlone
from storage.failures import DatabaseClosed, is_outage
from storage.timing import backoff

T = TypeVar("T")
logger = logging.getLogger(__name__)

GROUP = 256
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0


@dataclass(slots=True)
class _Task:
    run: Callable[[], Any]
    answer: Future[Any]
    writes: bool
    until: float = math.inf
    """By the monotonic clock: if an outage lasts longer, the task fails."""


@dataclass(frozen=True, slots=True)
class Away:
    """The database can't be written to."""

    reason: str
    until: float
    """When the next attempt is made, by the monotonic clock."""


class Recorder:
    """Takes writes (and the I/O loop's reads, which must not block it) and answers each with a Future."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._closing, self._over = threading.Event(), threading.Event()
        self.away: Away | None = None
        """Why nothing can be written at the moment; None: it can."""
        self.on_commit: Callable[[float], object] = lambda _seconds: None
        """Called in its thread after each COMMIT, with the seconds that the transaction took."""
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def write(self, run: Callable[[], T], *, patience: float = math.inf) -> Future[T]:
        """Call `run` in a transaction; the answer comes after its COMMIT.

        Args:
            run: the write.
            patience: the seconds of an outage after which it fails with a TimeoutError.
        """
        return self._put(run, writes=True, patience=patience)

    def read(self, run: Callable[[], T]) -> Future[T]:
        """Call `run` outside a transaction, after all earlier tasks."""
        return self._put(run, writes=False)

    def close(self, timeout: float = 5.0) -> bool:
        """Finish all tasks, then stop. Tasks that an unavailable database holds up fail.

        A write that takes longer is interrupted, rolled back, and fails.

        Returns:
            Whether the thread has ended. If it is busy with something else, it ends after that.
        """
        if not self._closing.is_set():
            self._tasks.put(None)
            self._thread.join(timeout / 2)
            self._closing.set()
            self._thread.join(timeout / 2)
            if self._thread.is_alive():
                logger.warning(
                    "closing: a write took longer than %g s and is rolled back", timeout,
                    extra={"action": "close", "database": self._database.place},
                )  # fmt: skip
                self._database.break_off()
                self._thread.join(timeout)
        return not self._thread.is_alive()

    def _put(self, run: Callable[[], T], *, writes: bool, patience: float = math.inf) -> Future[T]:
        answer: Future[T] = Future()
        self._tasks.put(_Task(run, answer, writes, time.monotonic() + patience))
        if self._over.is_set():
            self._refuse_the_rest()
        return answer

    def _run(self) -> None:
        stopping = False
        try:
            while not stopping:
                group, stopping = self._gather()
                try:
                    self._handle(group)
                except BaseException as error:  # noqa: BLE001  (whoever waits must hear of it)
                    for task in group:
                        self._fail(task, error)
                if self._database.path is not None:
                    self._database.peewee.close()  # the process may fork (see storage.connections)
        finally:
            self._over.set()
            self._database.peewee.discard()
            self._refuse_the_rest()

    def _fail(self, task: _Task, error: BaseException) -> None:
        if not task.answer.done():
            task.answer.set_exception(self._closed() if self._database.broken_off else error)

    def _closed(self) -> DatabaseClosed:
        return DatabaseClosed(f"the database {self._database.place} is closed")

    def _refuse_the_rest(self) -> None:
        """After the end, in any thread: fail the tasks that come too late."""
        with suppress(queue.Empty):
            while True:
                late = self._tasks.get_nowait()
                if late is not None and late.answer.set_running_or_notify_cancel():
                    late.answer.set_exception(self._closed())

    def _gather(self) -> tuple[list[_Task], bool]:
        """Wait for one task, then take all others that have arrived; None marks the last."""
        group: list[_Task] = []
        task = self._tasks.get()
        while task is not None:
            # A synchronous call that gave up has cancelled its answer.
            if task.answer.set_running_or_notify_cancel():
                group.append(task)
            if len(group) == GROUP or self._tasks.empty():
                return group, False
            task = self._tasks.get()
        return group, True

    def _handle(self, group: list[_Task]) -> None:
        failures = 0
        while group:
            try:
                if self._database.peewee.is_closed():
                    self._database.peewee.connect()
                self._commit([task for task in group if task.writes])
                group = [task for task in group if not task.answer.done()]
                for task in group:
                    self._answer(task)
                group = []
                self.away = None
            except Exception as error:
                if not is_outage(error) or self._closing.is_set():
                    self.away = None
                    raise
                pause = backoff(failures, _FIRST_PAUSE, _LONGEST_PAUSE)
                failures += 1
                self.away = Away(str(self._database.explained(error)), time.monotonic() + pause)
                logger.warning(
                    "the database is unavailable; retrying",
                    extra={"action": "database_away", "database": self._database.place, "error": str(error).strip()},
                )
                self._database.peewee.discard()
                self._closing.wait(pause)
                for task in group:
                    if task.until <= time.monotonic() and not task.answer.done():
                        task.answer.set_exception(TimeoutError("the database stayed unavailable"))
                group = [task for task in group if not task.answer.done()]

    def _commit(self, group: list[_Task], *, alone: bool = False) -> None:
        if not group:
            return
        began = time.monotonic()
        try:
            with self._database.begin(alone=alone):
                values = [task.run() for task in group]
        except Exception as error:
            if is_outage(error):
                raise
            if len(group) > 1:  # one write is wrong, or has to be alone; the others must not suffer for it
                for task in group:
                    self._commit([task])
            elif isinstance(error, NotAlone) and not alone:
                self._commit(group, alone=True)
            else:
                self._fail(group[0], error)
            return
        for task, value in zip(group, values, strict=True):
            task.answer.set_result(value)
        self.on_commit(time.monotonic() - began)

    def _answer(self, task: _Task) -> None:
        try:
            value = task.run()
        except Exception as error:
            if is_outage(error):
                raise
            self._fail(task, error)
        else:
            task.answer.set_result(value)
