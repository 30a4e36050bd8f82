"""EventPublisher: publishes recorded events, in order within each batch, and marks what the broker has confirmed.

The journal is its only source. It publishes what this process records right after the COMMIT, and what others recorded
and left unpublished for a second. Every process sends a contiguous run from the watermark on, so first appearances are
in order whoever sends. Everything runs in the connection's thread; the database is accessed through the recorder.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import TypeVar

from actors.rabbitmq.connection import Connection, State
from actors.rabbitmq.outgoing import BatchCursor, properties_of
from actors.rabbitmq.refusals import ConnectionGone
from actors.rabbitmq.topology import EVENTS
from storage.publications import Unpublished
from storage.recorder import Recorder
from storage.records import EventRecord
from storage.storage import Storage

T = TypeVar("T")
logger = logging.getLogger(__name__)
UNCONFIRMED = 1000
"""The most unconfirmed events; the rest wait in the journal."""
LOOK = 1.0
OTHERS_WAIT = 1.0
"""Seconds after which another process publishes an event that its own process has not published."""
_ENDED_LATELY, _EVERYTHING_EVERY, _MARK_AFTER = 900.0, 600.0, 0.1
_PAGE, _BATCHES = 200, 50
_REFUSALS, _REMEMBERED = 5, 2000


class EventPublisher:
    """See the module."""

    def __init__(self, connection: Connection, storage: Storage, recorder: Recorder) -> None:
        """Connects with the first event recorded here, or when it is started."""
        self._connection, self._storage, self._recorder = connection, storage, recorder
        self._fresh: deque[list[EventRecord]] = deque()
        self._cursors: OrderedDict[str, BatchCursor] = OrderedDict()
        self._behind: OrderedDict[str, None] = OrderedDict()
        self._flying = self._session = 0
        self._reading = self._marking = self._looked_once = self._woken = False
        self._everything_at = 0.0
        storage.journal.listener = self._recorded
        connection.on_open.append(self._opened)
        connection.on_lost.append(self._lost)

    def start(self) -> None:
        """From now on publish what is recorded here, and what others leave unpublished."""
        self._connection.start()

    def close(self, seconds: float) -> None:
        """Publish the rest, if the broker is reachable and accepts it."""
        self._storage.journal.listener = None
        deadline, done = time.monotonic() + seconds, threading.Event()
        if not self._connection.started:
            return
        while self._connection.takes_messages and time.monotonic() < deadline:
            self._connection.call(partial(self._tell_when_done, done))
            if done.wait(0.05):
                break
        self._connection.call(self._lost)  # the database closes next: use it no more

    def _recorded(self, events: list[EventRecord]) -> None:
        """After a COMMIT, in the recorder's thread."""
        if self._connection.state is not State.OPEN:
            self._connection.start()
            return  # it is found in the journal once the broker is reachable
        self._fresh.append(events)
        if not self._woken:
            self._woken = True
            self._connection.call(self._take_fresh)

    # --- in the connection's thread

    def _lost(self) -> None:
        """Drop pending queries and confirms."""
        self._session += 1

    def _opened(self) -> None:
        """A new connection: nothing is in flight, and everything unmarked is sent again."""
        self._session += 1
        self._flying = 0
        self._reading = self._marking = self._looked_once = self._woken = False
        for each in (self._cursors, self._behind, self._fresh):
            each.clear()
        self._everything_at = 0.0
        self._look()

    def _ask(self, future: Future[T], then: Callable[[T], object]) -> None:
        """Continue with the database's answer in this thread, unless the connection has changed by then."""

        def arrived() -> None:
            error = future.exception()
            if error is None:
                then(future.result())
            else:  # the database failed: look for everything unmarked again, a little later
                logger.error("could not read or mark events", extra={"action": "publishing", "error": repr(error)})
                self._reading = self._marking = False
                self._connection.call_later(LOOK, self._opened)

        now = self._of_this_session(arrived)
        future.add_done_callback(lambda _: self._connection.call(now))

    def _later(self, seconds: float, function: Callable[[], object]) -> None:
        self._connection.call_later(seconds, self._of_this_session(function))

    def _of_this_session(self, function: Callable[[], object]) -> Callable[[], object]:
        session = self._session
        return lambda: function() if session == self._session else None

    def _look(self) -> None:
        """Once a second: find batches with unpublished events."""
        now = self._storage.database.time()
        everything = now - self._everything_at > _EVERYTHING_EVERY
        if everything:
            self._everything_at = now
        ended_after = 0.0 if everything else now - _ENDED_LATELY
        recorded_before = now + 1e9 if everything else now - OTHERS_WAIT
        behind = partial(self._storage.publications.behind, recorded_before=recorded_before, ended_after=ended_after)
        self._ask(self._recorder.read(behind), self._looked)

    def _looked(self, behind: dict[str, int]) -> None:
        self._looked_once = True
        for batch_id, last in behind.items():
            cursor = self._cursors.get(batch_id)
            if cursor is None or (cursor.sent < last and not cursor.resting):
                self._behind[batch_id] = None
        self._catch_up()
        self._later(LOOK, self._look)

    def _take_fresh(self) -> None:
        """Send what this process has recorded: normally it follows what was sent, and needs no query."""
        self._woken = False
        if self._connection.state is not State.OPEN:
            return  # it is found in the journal
        while self._fresh:
            for event in self._fresh.popleft():
                self._take(event)
        self._catch_up()
        self._connection.flush()

    def _take(self, event: EventRecord) -> None:
        cursor = self._cursors.get(event.batch_id)
        if cursor is None and event.sequence == 1:
            cursor = self._cursors[event.batch_id] = BatchCursor(event.batch_id, 0, 0, 0)
        if cursor and event.sequence == cursor.sent + 1 and not cursor.resting and self._flying < UNCONFIRMED:
            self._send(cursor, event)
        elif cursor is None or event.sequence > cursor.sent:
            self._behind[event.batch_id] = None

    def _catch_up(self) -> None:
        """Read the next events of the batches that are behind."""
        if self._reading or not self._behind or self._flying >= UNCONFIRMED // 2:
            return
        ids = [self._behind.popitem(last=False)[0] for _ in range(min(_BATCHES, len(self._behind)))]
        sent = {batch_id: self._cursors[batch_id].sent if batch_id in self._cursors else -1 for batch_id in ids}
        self._reading = True
        next_of = partial(self._storage.publications.next_of, sent, max(1, _PAGE // len(ids)))
        self._ask(self._recorder.read(next_of), self._caught_up)

    def _caught_up(self, found: list[Unpublished]) -> None:
        self._reading = False
        for unpublished in found:
            cursor = self._cursor_of(unpublished)
            if cursor.resting:
                continue
            for event in unpublished.events:
                if event.sequence > cursor.sent:  # the gap was pruned
                    if event.sequence > cursor.sent + 1 and cursor.confirmed == cursor.sent:
                        cursor.confirmed = event.sequence - 1
                    self._send(cursor, event)
            if unpublished.more:
                self._behind[unpublished.batch_id] = None
        self._catch_up()
        self._connection.flush()

    def _cursor_of(self, unpublished: Unpublished) -> BatchCursor:
        batch_id, published = unpublished.batch_id, unpublished.published
        cursor = self._cursors.setdefault(batch_id, BatchCursor(batch_id, published, published, published))
        if published > cursor.sent:  # another process has published those
            cursor.sent = cursor.confirmed = cursor.marked = published
        return cursor

    def _send(self, cursor: BatchCursor, event: EventRecord) -> None:
        cursor.sent = event.sequence
        self._flying += 1
        settled = partial(self._settled, cursor, event.sequence, cursor.run, self._session)
        self._connection.send(EVENTS, event.key, event.body.encode(), properties_of(event), settled)

    def _settled(self, cursor: BatchCursor, sequence: int, run: int, session: int, error: Exception | None) -> None:
        if session != self._session:
            return
        self._flying -= 1
        if isinstance(error, ConnectionGone) or run != cursor.run:
            return
        if error is not None and cursor.refusals < _REFUSALS:
            self._refused(cursor, sequence)
            return
        # Refused often enough: all other queues have it by now, and the full one is configured to reject.
        cursor.settle(sequence, refused=error is not None)
        if not self._marking:
            self._marking = True
            self._later(_MARK_AFTER, self._mark)
        if self._behind:
            self._catch_up()

    def _refused(self, cursor: BatchCursor, sequence: int) -> None:
        """A subscriber's queue is full: restart only this batch at its watermark, after a pause."""
        pause = cursor.restart()
        logger.warning(
            "a full queue refused an event; publishing its batch again from there",
            extra={"action": "event_refused", "batch_id": cursor.batch_id, "sequence": sequence, "seconds": pause},
        )
        self._later(pause, partial(self._rested, cursor))

    def _rested(self, cursor: BatchCursor) -> None:
        cursor.resting = False
        self._behind[cursor.batch_id] = None
        self._catch_up()

    def _mark(self) -> None:
        marks = {each.batch_id: each.confirmed for each in self._cursors.values() if each.confirmed > each.marked}
        self._marking = bool(marks)
        if marks:
            self._ask(
                self._recorder.write(partial(self._storage.publications.mark, marks)), lambda _: self._marked(marks)
            )

    def _marked(self, marks: dict[str, int]) -> None:
        for batch_id, sequence in marks.items():
            if (cursor := self._cursors.get(batch_id)) is not None:
                cursor.marked = max(cursor.marked, sequence)
                self._cursors.move_to_end(batch_id)
        while len(self._cursors) > _REMEMBERED and next(iter(self._cursors.values())).idle:
            self._cursors.popitem(last=False)
        self._mark()

    def _tell_when_done(self, done: threading.Event) -> None:
        unmarked = any(cursor.marked < cursor.sent and not cursor.resting for cursor in self._cursors.values())
        if self._looked_once and not (self._fresh or self._behind or self._reading or unmarked):
            done.set()
