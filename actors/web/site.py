"""Site: what a group of routes is made from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from actors.web.security import PageOf

if TYPE_CHECKING:
    from actors.loop import IOLoop
    from actors.service import BatchService
    from actors.web.metrics import Metrics
    from actors.web.security import Access

T = TypeVar("T")


@dataclass
class Site:
    """What handlers use. They run on `io`'s loop, and never block it."""

    service: BatchService
    io: IOLoop
    metrics: Metrics
    access: Access
    page_of: PageOf = lambda _request, _problem: None
    """Set by the page: shows an error to a browser."""

    async def call(self, function: Callable[..., T], *arguments: object) -> T:
        """Call a method of the service, which blocks, beside the loop."""
        return await self.io.offload(function, *arguments)
