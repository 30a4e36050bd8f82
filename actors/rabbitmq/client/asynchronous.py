"""AsyncBatchClient: `BatchClient` for asyncio programs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from actors.batch.events import Event
from actors.rabbitmq.client.blocking import BatchClient
from actors.rabbitmq.client.calls import TIMEOUT
from actors.rabbitmq.client.feed import TICK, EventFeed
from actors.rabbitmq.client.rpc import SOURCE
from actors.rabbitmq.client.stream import EventStream

P = ParamSpec("P")
T = TypeVar("T")


class _Thread:
    """A thread of our own: we wait for a long time, and the program's executor is for others."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, "sora-client")

    async def do(self, work: Callable[[], T]) -> T:
        return await asyncio.wrap_future(self._executor.submit(work))

    def end(self, last: Callable[[], object]) -> asyncio.Future[object]:
        """Do this after the current work, then end the thread, whether or not somebody waits for that."""
        done = self._executor.submit(last)
        self._executor.shutdown(wait=False)
        return asyncio.shield(asyncio.wrap_future(done))


def _in_the_thread(
    method: Callable[Concatenate[BatchClient, P], T],
) -> Callable[Concatenate[AsyncBatchClient, P], Coroutine[Any, Any, T]]:
    @wraps(method)
    async def call(self: AsyncBatchClient, /, *given: P.args, **named: P.kwargs) -> T:
        if self._thread is None:
            self._thread = _Thread()
        return await self._thread.do(lambda: method(self._client, *given, **named))

    return call


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

    create = _in_the_thread(BatchClient.create)
    process = _in_the_thread(BatchClient.process)
    cancel = _in_the_thread(BatchClient.cancel)
    retry = _in_the_thread(BatchClient.retry)
    update = _in_the_thread(BatchClient.update)
    delete = _in_the_thread(BatchClient.delete)
    report = _in_the_thread(BatchClient.report)
    fetch = _in_the_thread(BatchClient.fetch)
    listening = _in_the_thread(BatchClient.listening)

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


async def _each(join: Callable[[], EventStream | EventFeed]) -> AsyncIterator[Any]:
    thread, joined = _Thread(), list[EventStream | EventFeed]()
    try:
        await thread.do(lambda: joined.append(join()))
        (source,) = joined
        while not source.ended:
            item = await thread.do(lambda: source.next(TICK))
            if item is not None:
                yield item
    finally:
        closed = thread.end(lambda: [each.close() for each in joined])
        if joined:  # within half a second; otherwise it is still joining, and nobody should wait for that
            await closed
