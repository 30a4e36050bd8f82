"""Watcher: the one that watches the journal for all readers of streams in this process.

What this process records comes from the recorder, right after its COMMIT. What others record is looked for a few
times a second, with one query for all readers, and only while there are any.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from actors.errors import SoraBatchError
from actors.web.feeds import Broadcast, Everything, Feed
from storage.states import FINAL_BATCH

if TYPE_CHECKING:
    from actors.loop import IOLoop
    from actors.service import BatchService
    from storage.records import EventRecord
    from storage.storage import Storage

logger = logging.getLogger(__name__)
LOOK_SECONDS = 0.2
"""Between two looks at what other processes have recorded."""
PAGE = 200
"""Events of one batch that a look brings at most."""
_SHARE = 10
"""A look that takes long is followed by a pause that is so many times as long."""


class Watcher:
    """Used on the listener's loop, apart from what the recorder tells."""

    def __init__(self, service: BatchService, io: IOLoop) -> None:
        self._service, self._io = service, io
        self._feeds: dict[str, Feed] = {}
        self._all: Everything | None = None
        self._all_readers = 0
        self._looking: asyncio.Task[None] | None = None
        self.closed = False
        """Whether every stream is to end: its reader resumes at another service."""
        self._end = service.listen(self._recorded)

    def close(self) -> None:
        """Watch nothing any more, and end every stream."""
        self._end()
        self.closed = True
        for feed in self._feeds.values():
            feed.bell.ring()
        self._ring()

    @asynccontextmanager
    async def feed(self, batch_id: str) -> AsyncIterator[Feed]:
        """The feed of a batch, which knows where the batch is.

        Raises:
            StorageError: the database can't be asked.
        """
        feed = self._feeds.setdefault(batch_id, Feed(batch_id))
        feed.readers += 1
        try:
            self._note({batch_id: feed}, await self._io.offload(self._standings, [batch_id]))
            self._look()
            yield feed
        finally:
            feed.readers -= 1
            if not feed.readers:
                del self._feeds[batch_id]

    @asynccontextmanager
    async def everything(self) -> AsyncIterator[Broadcast]:
        """The feed of all batches, from now on.

        Raises:
            StorageError: the database can't be asked.
        """
        self._all_readers += 1
        try:
            if self._all is None:
                self._all = Everything(self._service, self._io)
            all_of_them = self._all
            await all_of_them.begin()
            self._look()
            yield all_of_them.readers
        finally:
            self._all_readers -= 1
            if not self._all_readers:
                self._all = None

    async def page(self, batch_id: str, after: int) -> list[EventRecord]:
        """Events behind a number, from the journal."""
        return await self._io.offload(self._service.recorded, batch_id, after + 1, PAGE)

    # --- what this process records

    def _recorded(self, events: list[EventRecord]) -> None:
        """In the recorder's thread."""
        if self._feeds or self._all is not None:
            self._io.call(self._take, events)

    def _take(self, events: list[EventRecord]) -> None:
        by_batch: dict[str, list[EventRecord]] = {}
        for event in events:
            by_batch.setdefault(event.batch_id, []).append(event)
        for batch_id, some in by_batch.items():
            feed = self._feeds.get(batch_id)
            if feed is not None:
                feed.take(some)
            if self._all is not None:
                self._all.take(batch_id, some)
        self._ring()

    def _ring(self) -> None:
        if self._all is not None:
            self._all.readers.bell.ring()

    # --- what others record

    def _look(self) -> None:
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_on())

    async def _look_on(self) -> None:
        pause = LOOK_SECONDS
        while not self.closed and (self._feeds or self._all is not None):
            await asyncio.sleep(pause)
            began = time.monotonic()
            try:
                feeds = dict(self._feeds)
                if feeds:
                    self._note(feeds, await self._io.offload(self._standings, list(feeds)))
                if self._all is not None:
                    await self._all.look()
            except SoraBatchError as error:  # away: readers wait, as batches do
                logger.debug("could not read the journal", extra={"action": "watch", "error": str(error)})
            pause = max(LOOK_SECONDS, _SHARE * (time.monotonic() - began))

    def _standings(self, batch_ids: list[str]) -> dict[str, tuple[int, bool, list[EventRecord]]]:
        """Off the loop: the last number of each batch, whether it has ended, and its events that nobody has yet."""
        known = {batch_id: feed.head for batch_id in batch_ids if (feed := self._feeds.get(batch_id)) is not None}

        def read(storage: Storage) -> dict[str, tuple[int, bool, list[EventRecord]]]:
            found: dict[str, tuple[int, bool, list[EventRecord]]] = {}
            heads = storage.batches.heads(batch_ids)
            for batch_id in batch_ids:
                if batch_id in heads:
                    head, status = heads[batch_id]
                    ended = status in FINAL_BATCH
                else:
                    head, ended = storage.journal.last_sequence(batch_id), True
                before = known.get(batch_id, 0)
                fresh = storage.journal.read(batch_id, before + 1, PAGE) if 0 < before < head else []
                found[batch_id] = (head, ended, fresh)
            return found

        return self._service.look(read)

    def _note(self, feeds: Mapping[str, Feed], found: Mapping[str, tuple[int, bool, list[EventRecord]]]) -> None:
        for batch_id, (head, ended, fresh) in found.items():
            feed = feeds[batch_id]
            if fresh:
                feed.take(fresh)
            if head > feed.head or (head == feed.head and ended != feed.ended):
                feed.stands(head, ended=ended)
