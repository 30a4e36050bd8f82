"""Feeds: what readers of streams wait at, of one batch or of all. Events are kept once for all, and only the latest."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from actors.batch.events import FINAL_EVENTS, EventName
from storage.records import EventRecord

if TYPE_CHECKING:
    from actors.loop import IOLoop
    from actors.service import BatchService
    from storage.storage import Storage

RING = 128
"""The latest events of a batch that are kept; who is further behind reads the journal."""
ALL_RING, ALL_SECONDS, ALL_MOST = 2048, 30.0, 65_536
"""Of all batches the latest events are kept, and more for a while, since one command may end a batch of thousands; but
never more than the last number. Who is further behind is let go."""
_PIECE = 256
_ENDS = frozenset({*(name.value for name in FINAL_EVENTS.values()), EventName.BATCH_DELETED.value})
_NO_ENDS = frozenset({EventName.BATCH_UPDATED.value, "job.settled"})
"""They change nothing about whether a batch has ended."""
_PAGE = 1000
"""Events of a batch that a look brings at most."""
_SLACK = 10.0
"""Seconds between what an end says of its time and its COMMIT, at most."""
_KEPT = 10_000
"""So many batches that have ended are remembered: what is recorded of them later is told once."""


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


class _Look:
    """What a look has found."""

    def __init__(self, at: float, position: int) -> None:
        self.at, self.position = at, position
        self.open: dict[str, int] = {}
        """The number of the last event of each batch that has not ended, or did just now."""
        self.events: dict[str, list[EventRecord]] = {}


class Everything:
    """The events of all batches from now on, as long as anybody reads. Used on the listener's loop.

    What this process records is told at once, if all before it was. The rest is looked for: in the batches that have
    not ended, or ended since the last look, and among the late events, which are recorded of ended batches.
    """

    def __init__(self, service: BatchService, io: IOLoop) -> None:
        self._service, self._io = service, io
        self.readers = Broadcast()
        self._began = self._seen = service.now()
        self._position: int | None = None
        """From where on late events are new; None: nothing was looked at yet."""
        self._told: dict[str, int] = {}
        """The number of the last event of each batch that was told, or recorded before the beginning."""
        self._behind: set[str] = set()
        """The batches of which the last look has not brought all."""

    def take(self, batch_id: str, events: list[EventRecord]) -> None:
        """Tell what this process has recorded of a batch. The bell is rung by the caller."""
        if self._position is None or (batch_id not in self._told and events[0].sequence != 1):
            return  # a look finds out what comes first
        self._tell(batch_id, events, self._told.get(batch_id, 0))

    async def begin(self) -> None:
        """Find out what is old, once.

        Raises:
            StorageError: the database can't be asked.
        """
        if self._position is None:
            await self.look()

    async def look(self) -> None:
        """Tell what was recorded since the last look; the first one finds out what is old.

        Raises:
            StorageError: the database can't be asked.
        """
        before, told, behind = self._position, dict(self._told), set(self._behind)
        found = await self._io.offload(self._service.look, lambda storage: self._found(storage, before, told, behind))
        if before is None:
            self._told = {**found.open, **self._told}
        for batch_id, events in found.events.items():
            self._tell(batch_id, events, events[0].sequence - 1)
        self._behind = {batch_id for batch_id, events in found.events.items() if len(events) == _PAGE}
        self._seen, self._position = found.at, found.position
        self._forget(found.open)
        self.readers.bell.ring()

    def _tell(self, batch_id: str, events: list[EventRecord], before: int) -> None:
        told = self._told.get(batch_id, before)
        if events[0].sequence > told + 1:
            return  # another process has recorded some before them: the next look brings all, in order
        for event in events:
            if event.sequence > told:
                self.readers.take(event)
                told = event.sequence
        self._told[batch_id] = told

    def _found(self, storage: Storage, before: int | None, told: Mapping[str, int], behind: set[str]) -> _Look:
        """Off the loop."""
        late = storage.journal.late
        found = _Look(self._service.now(), late.position())  # before all else: what comes meanwhile is seen again
        found.open = storage.batches.moving(self._seen - _SLACK)
        if before is None:
            found.open |= {batch_id: last for batch_id, (_, last) in late.since(0).items()}
            return found
        new = late.since(before)
        heads = found.open | {batch_id: last for batch_id, (_, last) in new.items()}
        for batch_id in heads.keys() | behind:
            known = told.get(batch_id)
            if known is None:
                known = self._before(storage, batch_id, heads[batch_id], new.get(batch_id))
            if batch_id in behind or known < heads[batch_id]:
                events = storage.journal.read(batch_id, known + 1, _PAGE)
                if events:
                    found.events[batch_id] = events
        return found

    def _before(self, storage: Storage, batch_id: str, head: int, late: tuple[int, int] | None) -> int:
        """The number before the first event of a batch that was recorded since the beginning."""
        first = storage.journal.first_since(batch_id, self._began - _SLACK)
        return min(head + 1 if first is None else first, head + 1 if late is None else late[0]) - 1

    def _forget(self, still_open: Mapping[str, int]) -> None:
        """Forget the batches that ended first, if there are many."""
        if len(self._told) > len(still_open) + 2 * _KEPT:
            ended = [batch_id for batch_id in self._told if batch_id not in still_open]
            for batch_id in ended[:-_KEPT]:
                del self._told[batch_id]
