"""Feeds: what readers of streams wait at. Events are kept here once for all readers, and only the latest."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice

from actors.batch.events import FINAL_EVENTS, EventName
from storage.records import EventRecord

RING = 128
"""The latest events of a batch that are kept; who is further behind reads the journal."""
ALL_RING, ALL_SECONDS, ALL_MOST = 2048, 30.0, 65_536
"""Of all batches the latest events are kept, and more for a while, since one command may end a batch of thousands; but
never more than the last number. Who is further behind is let go."""
_PIECE = 256
_ENDS = frozenset({*(name.value for name in FINAL_EVENTS.values()), EventName.BATCH_DELETED.value})
_NO_ENDS = frozenset({EventName.BATCH_UPDATED.value, "job.settled"})
"""They change nothing about whether a batch has ended."""


def frame(record: EventRecord, *, numbered: bool = True) -> bytes:
    """An event as `text/event-stream` has it."""
    number = f"id: {record.sequence}\n" if numbered else ""
    return f"{number}data: {record.body}\n\n".encode()


class Bell:
    """Wakes all who wait for it."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        """Wake them."""
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, seconds: float) -> bool:
        """Wait to be woken; False: nothing came in this time."""
        event = self._event
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            return False
        return True


class Feed:
    """The stream of one batch."""

    def __init__(self, batch_id: str) -> None:
        self.batch_id = batch_id
        self.head = 0
        """The number of the last event that is known of."""
        self.ended = False
        """Whether no further event is expected."""
        self.readers = 0
        self.bell = Bell()
        self._ring: deque[tuple[int, bytes]] = deque(maxlen=RING)

    def take(self, records: Iterable[EventRecord]) -> None:
        """Note events of this batch, in order; those that are known already are left out."""
        for record in records:
            if record.sequence <= self.head:
                continue
            if self._ring and record.sequence != self._ring[-1][0] + 1:
                self._ring.clear()  # some are missing: they are read from the journal
            self._ring.append((record.sequence, frame(record)))
            self.head = record.sequence
            if record.type not in _NO_ENDS:
                self.ended = record.type in _ENDS
        self.bell.ring()

    def stands(self, head: int, *, ended: bool) -> None:
        """Note what the database says."""
        if head >= self.head:
            self.head, self.ended = head, ended
            self.bell.ring()

    def kept(self, after: int) -> Sequence[tuple[int, bytes]] | None:
        """The events behind a number; None: they are not all kept."""
        if not self._ring or self._ring[0][0] > after + 1 or self._ring[-1][0] < self.head:
            return None
        return [each for each in self._ring if each[0] > after]


class Broadcast:
    """The stream of all batches."""

    def __init__(self) -> None:
        self.count = 0
        """How many events came so far."""
        self.bell = Bell()
        self._ring: deque[tuple[float, bytes]] = deque(maxlen=ALL_MOST)

    def take(self, record: EventRecord) -> None:
        """Note an event. The bell is rung by whoever has brought all."""
        now = time.monotonic()
        self._ring.append((now, frame(record, numbered=False)))
        while len(self._ring) > ALL_RING and self._ring[0][0] < now - ALL_SECONDS:
            self._ring.popleft()
        self.count += 1

    def after(self, count: int) -> list[bytes] | None:
        """Some of the events after so many; None: they are not all kept."""
        behind = self.count - count
        if behind > len(self._ring):
            return None
        if behind <= _PIECE:  # from the end, which is near
            return [each for _, each in islice(reversed(self._ring), behind)][::-1]
        first = len(self._ring) - behind
        return [each for _, each in islice(self._ring, first, first + _PIECE)]
