"""AsyncBatchClient: `BatchClient` for asyncio programs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self, TypeVar

from actors.batch.events import Event
from actors.batch.requests import BatchVideoRequest
from actors.batch.views import Batch, CancellationSummary
from actors.rabbitmq.client.blocking import TIMEOUT, BatchClient
from actors.rabbitmq.client.rpc import SOURCE
from actors.rabbitmq.client.stream import EventFeed, EventStream

T = TypeVar("T")
_TICK = 0.5


class _Thread:
    """A thread of our own: those of the program's executor are for others, and we wait for long."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, "sora-client")

    async def do(self, work: Callable[[], T]) -> T:
        return await asyncio.wrap_future(self._executor.submit(work))

    def end(self, last: Callable[[], object]) -> asyncio.Future[object]:
        """Do this, once it has done what was begun; then it ends, whether somebody waits for that or not."""
        done = self._executor.submit(last)
        self._executor.shutdown(wait=False)
        return asyncio.shield(asyncio.wrap_future(done))


class AsyncBatchClient:
    """The same methods as coroutines, and events to iterate over with `async for`."""

    def __init__(self, url: str | None = None, *, source: str = SOURCE, timeout: float = TIMEOUT) -> None:
        """As `BatchClient`."""
        self._client = BatchClient(url, source=source, timeout=timeout)
        self._thread: _Thread | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def create(self, request: BatchVideoRequest | Mapping[str, Any], *, process: bool = True) -> str:
        """As `BatchClient.create`."""
        return await self._do(lambda: self._client.create(request, process=process))

    async def process(self, batch_id: str, concurrency: int | None = None) -> None:
        """As `BatchClient.process`."""
        await self._do(lambda: self._client.process(batch_id, concurrency))

    async def cancel(self, batch_id: str, reason: str | None = None) -> CancellationSummary:
        """As `BatchClient.cancel`."""
        return await self._do(lambda: self._client.cancel(batch_id, reason))

    async def retry(
        self,
        batch_id: str,
        job_ids: Sequence[str] | None = None,
        changes: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        pay_again: bool = False,
        move_server: bool = False,
    ) -> None:
        """As `BatchClient.retry`."""
        consents = {"pay_again": pay_again, "move_server": move_server}
        await self._do(lambda: self._client.retry(batch_id, job_ids, changes, **consents))

    async def report(self, batch_id: str) -> Batch:
        """As `BatchClient.report`."""
        return await self._do(lambda: self._client.report(batch_id))

    async def listening(self) -> bool:
        """As `BatchClient.listening`."""
        return await self._do(self._client.listening)

    def events(self, batch_id: str, from_sequence: int | None = 1) -> AsyncIterator[Event]:
        """As `BatchClient.events`."""
        return _each(lambda: self._client.events(batch_id, from_sequence))

    def subscribe(self, *keys: str) -> AsyncIterator[dict[str, Any]]:
        """As `BatchClient.subscribe`."""
        return _each(lambda: self._client.subscribe(*keys))

    async def close(self) -> None:
        """As `BatchClient.close`."""
        if self._thread is not None:
            thread, self._thread = self._thread, None
            await thread.end(self._client.close)

    async def _do(self, work: Callable[[], T]) -> T:
        if self._thread is None:
            self._thread = _Thread()
        return await self._thread.do(work)


async def _each(join: Callable[[], EventStream | EventFeed]) -> AsyncIterator[Any]:
    thread, joined = _Thread(), list[EventStream | EventFeed]()
    try:
        await thread.do(lambda: joined.append(join()))
        (source,) = joined
        while not source.ended:
            item = await thread.do(lambda: source.next(_TICK))
            if item is not None:
                yield item
    finally:
        closed = thread.end(lambda: [each.close() for each in joined])
        if joined:  # within half a second; else it is still joining, and nobody shall wait for that
            await closed
