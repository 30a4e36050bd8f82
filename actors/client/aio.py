"""AsyncBatchClient: `BatchClient` for asyncio programs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Self

from actors.client.batches import TIMEOUT, BatchClient
from actors.client.line import SOURCE
from actors.client.stream import EventFeed, EventStream
from actors.events import Event
from actors.model import Batch, BatchVideoRequest, CancellationSummary

_TICK = 0.5


class AsyncBatchClient:
    """The same methods as coroutines, and events to iterate over with `async for`."""

    def __init__(self, url: str | None = None, *, source: str = SOURCE, timeout: float = TIMEOUT) -> None:
        """As `BatchClient`."""
        self._client = BatchClient(url, source=source, timeout=timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def create(self, request: BatchVideoRequest | Mapping[str, Any], *, process: bool = True) -> str:
        """As `BatchClient.create`."""
        return await asyncio.to_thread(lambda: self._client.create(request, process=process))

    async def process(self, batch_id: str, concurrency: int | None = None) -> None:
        """As `BatchClient.process`."""
        await asyncio.to_thread(self._client.process, batch_id, concurrency)

    async def cancel(self, batch_id: str, reason: str | None = None) -> CancellationSummary:
        """As `BatchClient.cancel`."""
        return await asyncio.to_thread(self._client.cancel, batch_id, reason)

    async def retry(
        self,
        batch_id: str,
        job_ids: Sequence[str] | None = None,
        changes: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        pay_again: bool = False,
    ) -> None:
        """As `BatchClient.retry`."""
        await asyncio.to_thread(lambda: self._client.retry(batch_id, job_ids, changes, pay_again=pay_again))

    async def report(self, batch_id: str) -> Batch:
        """As `BatchClient.report`."""
        return await asyncio.to_thread(self._client.report, batch_id)

    async def events(self, batch_id: str, from_sequence: int | None = 1) -> AsyncIterator[Event]:
        """As `BatchClient.events`."""
        stream = await asyncio.to_thread(self._client.events, batch_id, from_sequence)
        try:
            while not stream.ended:
                event = await asyncio.to_thread(stream.next, _TICK)
                if event is not None:
                    yield event
        finally:
            await _close(stream)

    async def subscribe(self, *keys: str) -> AsyncIterator[dict[str, Any]]:
        """As `BatchClient.subscribe`."""
        feed = await asyncio.to_thread(self._client.subscribe, *keys)
        try:
            while True:
                document = await asyncio.to_thread(feed.next, _TICK)
                if document is not None:
                    yield document
        finally:
            await _close(feed)

    async def close(self) -> None:
        """As `BatchClient.close`."""
        await asyncio.to_thread(self._client.close)


async def _close(source: EventStream | EventFeed) -> None:
    """Also when the task was cancelled: the thread that waits lets go within half a second."""
    await asyncio.shield(asyncio.to_thread(source.close))
