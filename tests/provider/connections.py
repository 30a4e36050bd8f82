"""Connections that end badly, and requests that are kept waiting."""

import asyncio
import socket
import struct
from collections.abc import Callable

from aiohttp import web

_RST_ON_CLOSE = struct.pack("ii", 1, 0)


class Gate:
    """Where requests hang until they are released or their time is up."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._waiting: set[asyncio.Future[None]] = set()

    def __len__(self) -> int:
        return len(self._waiting)

    async def wait(self, seconds: float | None) -> None:
        released = asyncio.get_running_loop().create_future()
        self._waiting.add(released)
        self._changed()
        await asyncio.wait((released,), timeout=seconds)
        self._waiting.discard(released)

    def open(self) -> None:
        for released in self._waiting:
            if not released.done():
                released.set_result(None)


def close(request: web.Request) -> web.Response:
    """Close the connection after what was already written; the response is for aiohttp only."""
    if request.transport is not None:
        request.transport.close()
    return web.Response()


def reset(request: web.Request) -> web.Response:
    """End the connection with an RST."""
    if request.transport is not None:
        connection = request.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST_ON_CLOSE)
        request.transport.abort()
    return web.Response()


def is_open(request: web.Request) -> bool:
    return request.transport is not None and not request.transport.is_closing()
