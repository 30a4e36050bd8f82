"""The application: the groups of routes behind one guard. A new group is one line here."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from aiohttp import web

from actors.web import api, files, health, page, sessions
from actors.web.problems import refused
from actors.web.security import guard, stamp
from actors.web.site import Site

GROUPS: tuple[Callable[[Site], Iterable[web.AbstractRouteDef]], ...] = (
    health.routes,
    sessions.routes,
    files.routes,
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
    made.middlewares.append(guard(site.access, site.page_of))

    async def close(_: web.Application) -> None:
        site.close()

    async def stop(_: web.Application) -> None:
        site.stop()

    made.on_shutdown.append(stop)
    made.on_cleanup.append(close)
    return made


def _expecting(route: web.AbstractRouteDef) -> web.AbstractRouteDef:
    """The route; an `Expect` that can't be met is answered with a problem."""
    if not isinstance(route, web.RouteDef):
        return route
    return web.RouteDef(route.method, route.path, route.handler, {**route.kwargs, "expect_handler": _expected})


async def _expected(request: web.Request) -> web.StreamResponse | None:
    expects = request.headers.get("Expect", "")
    if expects.lower() != "100-continue":
        text = f"Expect {expects[:80]!r} can't be met: leave it out, or send 100-continue"
        return refused(417, text).problem.response()
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0  # nothing of the answer was sent yet
    return None
