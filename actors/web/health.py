"""Health: whether a running service has all that it needs, by the list that `doctor` has, too. And metrics.

What is answered names no path and no host, since anybody may ask; why a check fails is logged, when it begins to.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from aiohttp import web

from actors.coalescer import Coalescer
from actors.errors import ErrorCode, FieldError, StorageError
from actors.needs import FAILED, Check, Need, needs, store_obstacle
from actors.web.handlers import JSON, TEXT, operation
from actors.web.problems import Problem

if TYPE_CHECKING:
    from actors.loop import IOLoop
    from actors.rabbitmq.connection import Connection
    from actors.service import BatchService
    from actors.web.handlers import Site
    from storage.unfinished import Unfinished

logger = logging.getLogger(__name__)
LONGEST = 2.0
"""Seconds that a check of a running service may take: what does not answer by then is lost."""
_BEAT_SECONDS = 5.0
_LOOP = "the loop that makes videos does not answer"
_STATUS = {
    "type": "object",
    "properties": {"status": {"const": "ok"}, "checks": {"type": "array", "items": {"type": "string"}}},
    "required": ["status", "checks"],
}


def routes(site: Site) -> Iterable[web.RouteDef]:
    """For whatever watches a service: open to everybody."""
    probes = _Probes(site)
    return [
        web.get("/livez", probes.live),
        web.get("/readyz", probes.ready),
        web.get("/metrics", probes.scrape),
    ]


class _Probes:
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


class Health:
    """The checks of a running service, each made when it is asked for: between two questions it costs nothing."""

    def __init__(self, service: BatchService, io: IOLoop, *, makes_videos: bool = True) -> None:
        """Check nothing yet.

        Args:
            service: whose health.
            io: the loop that asks. The checks are made beside it, each by one thread at a time.
            makes_videos: whether this process does; if not, it needs no lease, no key and no folder to write to.
        """
        self._service, self._io = service, io
        looks: dict[Need, Callable[[], str | None]] = {
            Need.DATABASE: self._database,
            Need.LEASE: self._lease,
            Need.STORE: lambda: store_obstacle(service.stores),
            Need.KEY: self._key,
            Need.RABBITMQ: self._rabbitmq,
        }
        self._looks = {need: looks[need] for need in needs(service.settings, makes_videos=makes_videos)}
        self._running: dict[Need, asyncio.Future[str | None]] = {}
        self._failed: frozenset[Need] = frozenset()

    async def live(self) -> list[Check]:
        """Whether the loop that carries the actors still turns; no database is asked."""
        answered = self._io.loop.create_future()
        self._service.beat(lambda: self._io.call(_answer, answered))
        done, _ = await asyncio.wait({answered}, timeout=_BEAT_SECONDS)
        return [Check("loop", ok=bool(done), message=_LOOP if not done else "turns")]

    async def ready(self) -> list[Check]:
        """Whether the service can make videos and tell of them: each check, the failed ones with a sentence."""
        whys = await asyncio.gather(*(self._why(name) for name in self._looks))
        reasons = {name: why for name, why in zip(self._looks, whys, strict=True) if why is not None}
        self._log(reasons)
        return [
            Check(name, ok=name not in reasons, message=FAILED[name] if name in reasons else "ok")
            for name in self._looks
        ]

    async def _why(self, name: Need) -> str | None:
        """Why a check fails. One that still hangs is not begun a second time."""
        running = self._running.get(name)
        if running is None:
            running = self._running[name] = asyncio.ensure_future(self._io.offload(self._looks[name]))
            running.add_done_callback(lambda done: self._over(name, done))
        done, _ = await asyncio.wait({running}, timeout=LONGEST)
        if not done:
            return f"no answer within {LONGEST:g} s"
        error = running.exception()
        return repr(error) if error is not None else running.result()

    def _over(self, name: Need, done: asyncio.Future[str | None]) -> None:
        del self._running[name]
        if not done.cancelled():
            done.exception()  # nobody may have waited so long for it

    def _log(self, reasons: dict[Need, str]) -> None:
        failed = frozenset(reasons)
        if failed == self._failed:
            return
        self._failed = failed
        if failed:
            told = "; ".join(f"{name}: {why}" for name, why in reasons.items())
            logger.warning("not ready", extra={"action": "not_ready", "failed": ",".join(reasons), "error": told})
        else:
            logger.info("ready", extra={"action": "ready"})

    def _database(self) -> str | None:
        obstacle = self._service.write_obstacle
        if obstacle is None:
            try:
                self._service.ping()
            except StorageError as error:
                obstacle = str(error)
        return obstacle

    def _lease(self) -> str | None:
        if self._service.is_idle:  # `demo --web` whose batch has ended: the next one renews it
            return None
        try:
            return None if self._service.lease_is_current else "the lease has run out, or was not yet taken"
        except StorageError:
            return None  # by its own clock it lasts; that the database is away is another check's to say

    def _key(self) -> str | None:
        return "the server refused the key" if self._service.key_refused else None

    def _rabbitmq(self) -> str | None:
        connection = self._service.broker
        assert connection is not None
        if not connection.is_open:
            return f"not connected ({connection.why!r})" if connection.why else "not connected"
        if not connection.standing.works:
            return "a connection is down, or the broker accepts no messages"
        return None if _answers(connection) else f"no answer within {LONGEST:g} s"


def _answers(connection: Connection) -> bool:
    """Whether the broker answers at this moment: a connection to one that hangs looks open for a minute."""
    answered = threading.Event()

    def opened(channel: object) -> None:
        answered.set()
        channel.close()  # type: ignore[attr-defined]

    def ask() -> None:
        if connection.is_open:
            connection.open_channel(opened)

    connection.call(ask)
    return answered.wait(LONGEST / 2)


def _answer(answered: asyncio.Future[None]) -> None:
    if not answered.done():
        answered.set_result(None)
