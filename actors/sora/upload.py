"""Upload: the body of a create on its way out. Only it knows whether a byte has left. And Once: the same of a DELETE.

A server makes no video from a body that lacks its end. So the clock is checked before each block, and the last one is
so small, and sent so late, that the system takes it at once: a suspended process has nothing left to send when it
wakes.
"""

from __future__ import annotations

import asyncio
import select
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import aiohttp

from actors.sora.requests import Body
from storage.timing import boottime

_BLOCK, _LAST = 65_536, 4096
_LOOK_AGAIN = 0.01
_RST_ON_CLOSE = struct.pack("ii", 1, 0)


class SendForbidden(Exception):
    """The guard of a request forbids sending it."""


class Upload(aiohttp.Payload):
    """The body of a create. It checks whether it may still be sent in the very step that sends it.

    aiohttp holds the headers back until then, and headers alone make no video.
    """

    _autoclose = True

    def __init__(self, body: Body, guard: Callable[[], None], longest: float) -> None:
        """Prepare an upload.

        Args:
            body: what to send.
            guard: called directly before the first byte; raises to stop it.
            longest: the seconds from then on after which no more of it is sent.
        """
        super().__init__(body.content, content_type=body.content_type)
        self._content, self._guard, self._longest = body.content, guard, longest
        self._size = len(body.content)
        self._until: float | None = None
        self.stopped: Exception | None = None
        """What the guard raised."""

    @property
    def sent(self) -> bool:
        """Whether a byte has left."""
        return self._until is not None

    @property
    def overdue(self) -> bool:
        """Whether its time is up, suspended time included."""
        return self._until is not None and boottime() > self._until

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """The body as a text."""
        return self._content.decode(encoding, errors)

    async def write(self, writer: Any) -> None:
        """Send it."""
        await self.write_with_length(writer, None)

    async def write_with_length(self, writer: Any, _content_length: int | None) -> None:  # crash point: first byte
        """Send it, in blocks if it is large."""
        try:
            self._guard()
        except Exception as error:
            self.stopped = error
            raise
        self._until = boottime() + self._longest
        size = len(self._content)
        if size <= _LAST:  # a new connection takes this much at once
            await writer.write(self._content)
            return
        _buffer_little(writer.transport)
        last = size - _LAST
        starts = [*range(0, last, _BLOCK), last]
        try:
            for start, end in zip(starts, [*starts[1:], size], strict=True):
                if start > 0:
                    await self._may_go_on(writer, last=start == last)
                await writer.write(self._content[start:end], drain=False)
        except BaseException:
            _reset(writer.transport)
            raise

    async def _may_go_on(self, writer: Any, *, last: bool) -> None:
        """Wait until the system takes another block, and check the clock in the step that sends it."""
        await writer.drain()
        while last and not _takes_more(writer.transport):  # noqa: ASYNC110  (only the system knows)
            await asyncio.sleep(_LOOK_AGAIN)
        if self.overdue:
            raise TimeoutError(f"the upload was cut off after {self._longest:g} s (SORA_SUBMIT_TIMEOUT)")


def _buffer_little(transport: asyncio.Transport) -> None:
    """Keep buffers small, so that the process soon knows how much has really left."""
    transport.set_write_buffer_limits(high=1)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _BLOCK)


def _takes_more(transport: asyncio.Transport | None) -> bool:
    """Whether the system takes a small block whole; true too if the connection is gone, as the write then shows."""
    if transport is None or transport.is_closing():
        return True
    room = select.poll()
    room.register(transport.get_extra_info("socket"), select.POLLOUT)
    return bool(room.poll(0))


def _reset(transport: asyncio.Transport | None) -> None:
    """Reset the connection: nothing that is buffered leaves any more."""
    if transport is None:
        return
    with suppress(OSError):
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST_ON_CLOSE)
    transport.abort()


class Once:
    """A request that must not be repeated: aiohttp repeats a DELETE whose connection was lost."""

    def __init__(self, guard: Callable[[], None]) -> None:
        """`guard`: called directly before the first byte leaves; raises what is to stop it."""
        self._guard = guard
        self.sent = False

    def trace(self) -> aiohttp.TraceConfig:
        """What a session for this one request is made with."""
        trace = aiohttp.TraceConfig()
        trace.on_request_headers_sent.append(self._check)  # called before they are sent
        return trace

    async def _check(self, *_: object) -> None:
        if self.sent:
            raise ConnectionError("the connection was lost")
        self._guard()
        self.sent = True
