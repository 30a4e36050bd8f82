"""What handles a connection: aiohttp's own, that answers what is no HTTP with a problem, and without a traceback."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import cast

from aiohttp import web

from actors.web.problems import refused
from actors.web.security import HEADERS

logger = logging.getLogger(__name__)
MOST = 2000


class Connection(web.RequestHandler):
    """One connection."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what could not be read as a request, and close."""
        if request.writer.output_size > 0 or exc is None or status >= 500:
            return super().handle_error(request, status, exc, message)
        told = {"action": "web_refused", "status": status, "error": repr(exc)[:200]}
        logger.info("rejected a request that is not HTTP", extra=told)
        first = next(iter((message or "").strip().splitlines()), "").rstrip(":. ")
        response = refused(status, f"not a readable HTTP request: {first or 'bad request'}").problem.response()
        response.headers.update(HEADERS)
        response.force_close()
        return response


def connection_of(server: Callable[[], object]) -> Connection:
    """A connection of a server, which makes only aiohttp's own."""
    made = cast("Connection", server())
    made.__class__ = Connection
    return made


def most_connections() -> int:
    """As many as a quarter of the process's files: actors need some, too. The limit is raised as far as it may be."""
    try:
        import resource
    except ImportError:  # not on Windows
        return MOST
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * MOST if hard == resource.RLIM_INFINITY else min(4 * MOST, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return min(MOST, soft // 4)
