"""Handlers: what they are made from (`Site`), and how they say what they take, what they answer, and who may ask."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from aiohttp import web
from pydantic import BaseModel

from actors.loop import DaemonThreads
from actors.web.problems import Problem
from actors.web.watching import Watcher

if TYPE_CHECKING:
    from actors.loop import IOLoop
    from actors.service import BatchService
    from actors.web.metrics import Metrics
    from actors.web.security import Access

T = TypeVar("T")
H = TypeVar("H", bound=Callable[..., Awaitable[web.StreamResponse]])
JSON = "application/json"
Schema = Mapping[str, Any]
TEXT: Schema = {"type": "string"}
BINARY: Schema = {"type": "string", "format": "binary"}
FLAG: Schema = {"type": "boolean"}
NUMBER: Schema = {"type": "integer", "minimum": 1}
PageOf = Callable[[web.Request, Problem], web.StreamResponse | None]
"""Shows an error as a page, where a browser asks; None: as JSON."""
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


@dataclass(frozen=True, slots=True)
class Sent:
    """What is sent."""

    model: type[BaseModel]
    kinds: tuple[str, ...] = (JSON,)
    required: bool = False
    without: tuple[str, ...] = ()
    """Fields of the model that the path says."""


@dataclass(frozen=True, slots=True)
class Operation:
    """What a route takes and answers."""

    answers: Mapping[int, Mapping[str, type[BaseModel] | Schema]]
    """By status, by content type; no content type: no body."""
    problems: tuple[int, ...] = ()
    """The statuses of errors, beside those of every route."""
    query: Mapping[str, Schema] = field(default_factory=dict)
    headers: Mapping[str, Schema] = field(default_factory=dict)
    body: Sent | None = None
    told: tuple[str, ...] = ()
    """The headers of answers."""
    open: bool = False
    """Whether no token is needed."""


def operation(
    answers: Mapping[int, Mapping[str, type[BaseModel] | Schema]],
    *problems: int,
    query: Mapping[str, Schema] | None = None,
    headers: Mapping[str, Schema] | None = None,
    body: Sent | None = None,
    told: tuple[str, ...] = (),
    open: bool = False,  # noqa: A002  (as in Operation)
) -> Callable[[H], H]:
    """Describe a handler; its docstring is the summary."""

    def describe(handler: H) -> H:
        handler.operation = Operation(answers, problems, query or {}, headers or {}, body, told, open)  # type: ignore[attr-defined]
        return handler

    return describe


def public(handler: H) -> H:
    """Mark what is answered without a token, such as the form of the login."""
    handler.public = True  # type: ignore[attr-defined]
    return handler


def changes_nothing(handler: H) -> H:
    """Mark a POST that changes no batch: WEB_READ_ONLY does not refuse it."""
    handler.changes_nothing = True  # type: ignore[attr-defined]
    return handler
