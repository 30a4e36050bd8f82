"""`/livez`, `/readyz` and `/metrics`: for whatever watches a service."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from aiohttp import web

from actors.errors import ErrorCode, FieldError, StorageError
from actors.loop import Coalescer
from actors.web.health import LONGEST, Check, Health
from actors.web.operations import JSON, TEXT, operation
from actors.web.problems import Problem

if TYPE_CHECKING:
    from actors.web.site import Site
    from storage.unfinished import Unfinished


_STATUS = {
    "type": "object",
    "properties": {"status": {"const": "ok"}, "checks": {"type": "array", "items": {"type": "string"}}},
    "required": ["status", "checks"],
}


def routes(site: Site) -> Iterable[web.RouteDef]:
    """Health and metrics, open to everybody."""
    probes = Probes(site)
    return [
        web.get("/livez", probes.live),
        web.get("/readyz", probes.ready),
        web.get("/metrics", probes.scrape),
    ]


class Probes:
    """Answers them."""

    def __init__(self, site: Site) -> None:
        self._site, self._health = site, Health(site.service, site.io, makes_videos=site.makes_videos)
        self._scrapes: Coalescer[None, Unfinished | None] = Coalescer(self._count)

    @operation({200: {JSON: _STATUS}}, 503, open=True)
    async def live(self, _: web.Request) -> web.Response:
        """Whether the process does anything at all."""
        return _as_response(await self._health.live())

    @operation({200: {JSON: _STATUS}}, 503, open=True)
    async def ready(self, _: web.Request) -> web.Response:
        """Whether it has all that it needs."""
        return _as_response(await self._health.ready())

    @operation({200: {"text/plain": TEXT, "application/openmetrics-text": TEXT}}, open=True)
    async def scrape(self, request: web.Request) -> web.Response:
        """The metrics, as Prometheus reads them."""
        try:
            async with asyncio.timeout(LONGEST):
                unfinished = await self._scrapes.do(None)
        except TimeoutError:
            unfinished = None
        access = self._site.access
        budgets = unfinished.budgets if unfinished and (access.token is None or access.is_known(request)) else None
        body, content_type = self._site.metrics.exposition(request.headers.get("Accept", ""), unfinished, budgets)
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _count(self, scrapes: list[None]) -> Sequence[Unfinished | None]:
        """One reading for all who wait: many that scrape cost the database no more than one."""
        try:
            unfinished = await self._site.call(self._site.service.unfinished)
        except StorageError:
            return [None] * len(scrapes)
        return [unfinished] * len(scrapes)


def _as_response(checks: Sequence[Check]) -> web.Response:
    failed = [check for check in checks if not check.ok]
    if failed:
        errors = [FieldError(check.name, check.message, "ok", ErrorCode.UNAVAILABLE.value) for check in failed]
        text = f"failed: {', '.join(check.name for check in failed)}"
        return Problem(503, ErrorCode.UNAVAILABLE, text, tuple(errors), {"Retry-After": "1"}).response()
    document = {"status": "ok", "checks": [check.name for check in checks]}
    return web.Response(body=json.dumps(document).encode(), content_type="application/json")
