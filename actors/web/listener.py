"""Listener: aiohttp.web on a loop of its own, in a thread of its own: no client, however slow, slows an actor.

Its connections are aiohttp's own, apart from what they answer to what is no HTTP, and how many there may be.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, cast

from aiohttp import web

from actors.errors import SettingsError
from actors.loop import IOLoop
from actors.settings.groups import read_listen
from actors.web.application import HEADERS, application
from actors.web.handlers import Site
from actors.web.metrics import Metrics
from actors.web.problems import refused
from actors.web.security import Access, is_loopback

if TYPE_CHECKING:
    from actors.service import BatchService

logger = logging.getLogger(__name__)
MOST = 2000
"""Connections."""
_REQUEST_SECONDS = 30.0
"""How long a connection may take to send its first request."""
_IDLE_SECONDS = 75.0
"""How long one may be silent after an answer: longer than proxies keep theirs."""
_SHUT_SECONDS = 3.0


def checked_address(listen: str, token: str | None) -> tuple[str, int]:
    """Host and port of WEB_LISTEN.

    Raises:
        SettingsError: other machines could ask there, and need no token.
    """
    host, port = read_listen(listen)
    if token is None and not is_loopback(host):
        raise SettingsError(
            f"WEB_LISTEN={listen}: other machines can reach {host}, so it needs a token: set WEB_TOKEN, "
            f"or listen on this machine only, with WEB_LISTEN=127.0.0.1:{port}"
        )
    return host, port


class Listener:
    """What `serve --web` listens with."""

    def __init__(self, service: BatchService, listen: str, token: str | None, *, makes_videos: bool = True) -> None:
        """Listen at once.

        Args:
            service: what is told of. Its metrics begin now.
            listen: `[HOST:]PORT`.
            token: what requests must carry, apart from health and metrics.
            makes_videos: whether this process does, and needs for it a lease, a key and a folder that it can write to.

        Raises:
            SettingsError: it can't listen there.
        """
        host, port = checked_address(listen, token)
        self._service, self._metrics, self._makes_videos = service, Metrics(), makes_videos
        self._io = IOLoop("sora-web")
        self._waiting: set[web.RequestHandler] = set()
        """Connections that have not sent a request yet."""
        try:
            self._runner, self.port = self._io.submit(self._open(host, port, token)).result()
        except OSError as error:
            self._io.close()
            raise SettingsError(f"WEB_LISTEN={listen}: {_why(error, host, port)}") from error
        except BaseException:
            self._io.close()
            raise
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{self.port}"
        service.observe(self._metrics)
        service.announce_budget()

    def close(self) -> None:
        """Close every connection, and end the loop."""
        with suppress(TimeoutError):
            self._io.submit(self._shut()).result(_SHUT_SECONDS)
        self._io.close()

    async def _open(self, host: str, port: int, token: str | None) -> tuple[web.AppRunner, int]:
        settings = self._service.settings
        access = Access(token, read_only=settings.web_read_only, public_url=settings.web_public_url)
        self.site = Site(self._service, self._io, self._metrics, access, self._makes_videos)
        made = application(self.site)
        made.on_response_prepare.append(self._has_asked)
        # A compressed body is refused, so nobody's small one becomes a large one here.
        runner = web.AppRunner(
            made, access_log=None, handle_signals=False, shutdown_timeout=1.0, auto_decompress=False,
            keepalive_timeout=_IDLE_SECONDS,
        )  # fmt: skip
        await runner.setup()
        try:
            self._server = await self._io.loop.create_server(self._factory(runner), host, port, reuse_address=True)
        except OSError:
            await runner.cleanup()
            raise
        return runner, int(self._server.sockets[0].getsockname()[1])

    async def _shut(self) -> None:
        self._server.close()
        await self._runner.cleanup()

    def _factory(self, runner: web.AppRunner) -> Callable[[], asyncio.Protocol]:
        """Makes what handles a connection. They get a quarter of a process's files at most: actors need some, too."""
        server = runner.server
        assert server is not None
        most = most_connections()

        def connected() -> asyncio.Protocol:
            if len(server.connections) >= most:
                return _Full()
            connection = cast("_Connection", server())
            connection.__class__ = _Connection  # a server makes only aiohttp's own
            self._waiting.add(connection)
            self._io.loop.call_later(_REQUEST_SECONDS, self._close_if_silent, connection)
            return connection

        return connected

    def _close_if_silent(self, connection: web.RequestHandler) -> None:
        if connection in self._waiting:
            self._waiting.discard(connection)
            connection.force_close()

    async def _has_asked(self, request: web.Request, _: web.StreamResponse) -> None:
        self._waiting.discard(request.protocol)


class _Full(asyncio.Protocol):
    """Closes a connection at once: there are too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


def _why(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} of {host} is in use: end the program that has it, or choose another port"
    if error.errno == errno.EACCES:
        return f"port {port} may not be used by this user: choose one above 1023"
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is not an address of this machine: use 127.0.0.1, or 0.0.0.0 for all of them"
    return f"it can't listen there: {error.strerror or error}"


class _Connection(web.RequestHandler):
    """Aiohttp's own, that answers what is no HTTP with a problem, and without a traceback."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if request.writer.output_size > 0 or exc is None or status >= 500:
            return super().handle_error(request, status, exc, message)
        told = {"action": "web_refused", "status": status, "error": repr(exc)[:200]}
        logger.info("rejected a request that is not HTTP", extra=told)
        first = next(iter((message or "").strip().splitlines()), "").rstrip(":. ")
        response = refused(status, f"not a readable HTTP request: {first or 'bad request'}").problem.response()
        response.headers.update(HEADERS)
        response.force_close()
        return response


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
