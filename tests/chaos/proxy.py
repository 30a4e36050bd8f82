"""A network that fails: small TCP proxies in front of servers, whose connections are cut, delayed or left half-open.

One thread with an event loop for all of them. A proxy's port stays its own while the server behind it is away: then a
connection is taken and reset, as a load balancer does it.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Self

HOST = "127.0.0.1"
_RST_ON_CLOSE = struct.pack("ii", 1, 0)
_CHUNK = 65_536
_PATIENCE = 10.0


class Network:
    """The thread of all proxies."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="network", daemon=True)
        self._thread.start()
        self._proxies: list[Proxy] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def proxy(self, target: int) -> Proxy:
        """Take connections on a new port, for the server at the port `target`."""
        proxy = Proxy(self, target)
        self._proxies.append(proxy)
        return proxy

    def do(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Have something done in the thread; wait for it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_PATIENCE)

    def close(self) -> None:
        for proxy in self._proxies:
            proxy.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_PATIENCE)
        self._loop.close()


class Proxy:
    """One port in front of a server's. Its methods may be called from any thread."""

    def __init__(self, network: Network, target: int) -> None:
        self._network, self._target = network, target
        self._links: set[_Link] = set()
        self._server: asyncio.Server | None = None
        self.lag = 0.0
        """Seconds that each piece of what passes takes longer."""
        self.swallows = False
        self.port: int = network.do(self._listen())

    def cut(self) -> int:
        """Reset all connections; return how many there were."""
        return int(self._network.do(self._cut(list(self._links))))

    def delay(self, seconds: float) -> None:
        """Have all that passes from now on come so much later."""
        self.lag = seconds

    def half_open(self) -> None:
        """Leave connections as they are, and swallow what either side says or that it leaves; new ones too."""
        self._network.do(self._half_open())

    def mend(self) -> None:
        """Let all pass again. What had swallowed something can't go on: it is reset, as keepalives would end it."""
        self.lag, self.swallows = 0.0, False
        self._network.do(self._cut([link for link in self._links if link.deaf]))

    def close(self) -> None:
        self._network.do(self._close())

    # --- in the thread

    async def _listen(self) -> int:
        self._server = await asyncio.start_server(self._connected, HOST, 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link(self, (reader, writer))
        self._links.add(link)
        try:
            await link.run(self._target)
        finally:
            self._links.discard(link)
            link.over.set()

    async def _cut(self, links: list[_Link]) -> int:
        for link in links:
            link.reset()
        return len(links)

    async def _half_open(self) -> None:
        self.swallows = True
        for link in self._links:
            link.deaf = True

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._cut(list(self._links))
        for link in list(self._links):
            await asyncio.wait_for(link.over.wait(), _PATIENCE / 2)


_Side = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Link:
    """One connection through a proxy: the client's side, and the server's."""

    def __init__(self, proxy: Proxy, client: _Side) -> None:
        self._proxy, self._client = proxy, client
        self._sides = [client]
        self._ended, self.over = asyncio.Event(), asyncio.Event()
        self.deaf = proxy.swallows

    async def run(self, target: int) -> None:
        try:
            server = await asyncio.open_connection(HOST, target)
        except OSError:
            self.reset()
            return
        self._sides.append(server)
        pumps = [asyncio.create_task(self._pump(*ends)) for ends in ((self._client, server), (server, self._client))]
        await asyncio.wait([*pumps, ended := asyncio.create_task(self._ended.wait())], return_when="FIRST_COMPLETED")
        for task in (*pumps, ended):
            task.cancel()
        # What was passed on is still sent; a side that was reset is closed already.
        for _, writer in self._sides:
            writer.close()
        for _, writer in self._sides:
            with suppress(OSError, TimeoutError):
                await asyncio.wait_for(writer.wait_closed(), _PATIENCE)

    async def _pump(self, source: _Side, sink: _Side) -> None:
        """Pass on what comes, until one side ends or fails; when half-open, not even that is passed on."""
        reader, writer = source[0], sink[1]
        try:
            while chunk := await reader.read(_CHUNK):
                if self._proxy.lag:
                    await asyncio.sleep(self._proxy.lag)
                if not self.deaf:
                    writer.write(chunk)
                    await writer.drain()
        except OSError:
            pass
        if self.deaf:
            await self._ended.wait()

    def reset(self) -> None:
        """End it with an RST to both sides."""
        for _, writer in self._sides:
            connection = writer.transport.get_extra_info("socket")
            with suppress(OSError):  # its other end was faster
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST_ON_CLOSE)
            writer.transport.abort()
        self._ended.set()
