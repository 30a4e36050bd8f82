"""Site: what a group of routes is made from."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from actors.loop import DaemonThreads
from actors.web.security import PageOf
from actors.web.watching import Watcher

if TYPE_CHECKING:
    from actors.loop import IOLoop
    from actors.service import BatchService
    from actors.web.metrics import Metrics
    from actors.web.security import Access

T = TypeVar("T")
_WRITERS, _FILES = 8, 5


@dataclass
class Site:
    """What handlers use. They run on `io`'s loop, and never block it."""

    service: BatchService
    io: IOLoop
    metrics: Metrics
    access: Access
    makes_videos: bool = True
    """Whether this process makes videos, or only shows and queues them."""
    page_of: PageOf = lambda _request, _problem: None
    """Set by the page: shows an error to a browser."""
    stops: list[Callable[[], object]] = field(default_factory=list)
    """Called on the loop before the connections are closed: they end streams, which would be waited for."""
    watcher: Watcher = field(init=False)
    """What streams of events wait at."""
    _writers: DaemonThreads = field(default_factory=lambda: DaemonThreads(_WRITERS), init=False)
    _files: DaemonThreads = field(default_factory=lambda: DaemonThreads(_FILES), init=False)

    def __post_init__(self) -> None:
        self.watcher = Watcher(self.service, self.io)
        self.stops.append(self.watcher.close)

    async def call(self, function: Callable[..., T], *arguments: object) -> T:
        """Call a method of the service, which blocks, beside the loop."""
        return await self.io.offload(function, *arguments)

    async def change(self, function: Callable[..., T], *arguments: object) -> T:
        """The same for what writes, which may take seconds: in threads of its own, so that readers don't wait for it.

        Nobody stops it: a client that goes away doesn't leave half of it done.
        """
        return await asyncio.shield(self.io.loop.run_in_executor(self._writers, partial(function, *arguments)))

    async def work(self, function: Callable[..., T], *arguments: object) -> T:
        """The same for files and pictures: a slow store, or a large sheet, holds up no check of the health."""
        return await self.io.loop.run_in_executor(self._files, partial(function, *arguments))

    def stop(self) -> None:
        """End the streams."""
        for stop in self.stops:
            stop()

    def close(self) -> None:
        """End the threads."""
        self._writers.shutdown()
        self._files.shutdown()
