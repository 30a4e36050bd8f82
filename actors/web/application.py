"""The application: the groups of routes behind one guard, and what every answer carries. A new group is one line."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from aiohttp import web

from actors.web import api, files, health, page, pictures
from actors.web.handlers import Site
from actors.web.problems import Problem, problem_of, refused
from actors.web.security import OPEN

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware

logger = logging.getLogger(__name__)
REQUEST_ID = web.RequestKey("request_id", str)
"""What `X-Request-Id` says, or was made up in its place."""
_LONGEST_REQUEST_ID = 128
HEADERS = {
    "Cache-Control": "no-store",
    "Server": "sora-batch",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}
"""What every answer has, unless its handler says otherwise."""
GROUPS: tuple[Callable[[Site], Iterable[web.RouteDef]], ...] = (
    health.routes,
    files.routes,
    pictures.routes,
    api.routes,
    page.routes,
)
"""Each makes its routes. What stands first is matched first."""


def application(site: Site) -> web.Application:
    """All that is answered."""
    made = web.Application(client_max_size=site.service.settings.command_max_bytes)
    made.on_response_prepare.append(stamp)
    for routes in GROUPS:
        made.add_routes(map(_expecting, routes(site)))
    made.middlewares.append(guard(site))

    async def close(_: web.Application) -> None:
        site.close()

    async def stop(_: web.Application) -> None:
        site.stop()

    made.on_shutdown.append(stop)
    made.on_cleanup.append(close)
    return made


def _expecting(route: web.RouteDef) -> web.RouteDef:
    """The route; an `Expect` that can't be met is answered with a problem."""
    return web.RouteDef(route.method, route.path, route.handler, {**route.kwargs, "expect_handler": _expected})


async def _expected(request: web.Request) -> web.StreamResponse | None:
    expects = request.headers.get("Expect", "")
    if expects.lower() != "100-continue":
        text = f"Expect {expects[:80]!r} can't be met: leave it out, or send 100-continue"
        return refused(417, text).problem.response()
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0  # nothing of the answer was sent yet
    return None


def guard(site: Site) -> Middleware:
    """What each request passes before it is handled; and what becomes of an error."""

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        request[REQUEST_ID] = _request_id(request)
        began = time.monotonic()
        try:
            await site.access.check(request)
            response = await handler(request)
        except web.HTTPRedirection as redirection:
            _log(request, redirection.status, time.monotonic() - began)
            raise
        except Exception as error:  # noqa: BLE001  (whatever it is, the client gets a problem)
            found = _problem(request, error)
            response = site.page_of(request, found) or found.response()
        _log(request, response.status, time.monotonic() - began)
        return response

    return guarded


async def stamp(request: web.Request, response: web.StreamResponse) -> None:
    """Give an answer the headers that every answer has, before it begins; a handler's own ones stand."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers["Server"] = HEADERS["Server"]  # aiohttp names itself and Python before
    response.headers["X-Request-Id"] = request.get(REQUEST_ID) or _request_id(request)


def _problem(request: web.Request, error: Exception) -> Problem:
    found = problem_of(error)
    if found is None or found.status >= 500:
        what = {"action": "web_failed", "path": request.path[:200], "request_id": request[REQUEST_ID]}
        if found is not None:
            logger.warning("a request failed", extra={**what, "error": str(error)})
            return found
        logger.error("a request failed", exc_info=error, extra=what)
        text = f"the service failed to process this request; its log says why, at request_id {request[REQUEST_ID]}"
        return refused(500, text).problem
    if isinstance(error, web.HTTPException):
        return refused(
            found.status, f"{request.method} {request.path[:200]}: {found.detail}", headers=found.headers
        ).problem
    return found


def _log(request: web.Request, status: int, seconds: float) -> None:
    logger.log(
        logging.DEBUG if request.path in OPEN else logging.INFO,
        "answered a request",
        extra={
            "action": "web",
            "request_id": request[REQUEST_ID],
            "method": request.method,
            "path": request.path[:200],
            "status": status,
            "ms": round(seconds * 1000, 1),
        },
    )


def _request_id(request: web.Request) -> str:
    given = request.headers.get("X-Request-Id", "")
    if 0 < len(given) <= _LONGEST_REQUEST_ID and given.isascii() and given.isprintable():
        return given
    return secrets.token_hex(8)
