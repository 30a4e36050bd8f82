"""An HTTP proxy, of tunnels and of plain requests, that refuses and dies where a test wants it."""

import asyncio
import re
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from tests.servers.http_recorder import taking

_END = "\r\n\r\n"
Death = Literal["before the body", "after the body", "at once"]


@dataclass
class Proxy:
    """Passes everything on, and keeps the heads of what it was asked."""

    says: bytes | None = None
    """Its own answer to each request, of which the server hears nothing."""
    dies: Death | None = None
    heads: list[str] = field(default_factory=list)

    @property
    def lines(self) -> list[str]:
        return [head.partition(" HTTP/")[0] for head in self.heads]

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        await self._serve(head, reader, writer)

    async def _serve(self, head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        method, target, _ = head.partition("\r\n")[0].split(" ")
        if self.dies == "at once":
            return
        if self.says is not None:
            if length := re.search(r"content-length: (\d+)", head, re.IGNORECASE):
                await reader.readexactly(int(length[1]))
            writer.write(self.says)
            await writer.drain()
            return
        url = urlsplit(f"//{target}" if method == "CONNECT" else target)
        there, forth = await asyncio.open_connection(url.hostname, url.port or 80)
        try:
            if method == "CONNECT":
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                await asyncio.gather(_pump(reader, forth), _pump(there, writer))
            else:
                await self._forward(head.replace(target, url._replace(scheme="", netloc="").geturl(), 1), reader, forth)
                if self.dies is None:
                    await _pump(there, writer)
                elif self.dies == "after the body":
                    await there.read(1)  # the server has it all
        finally:
            forth.close()
            with suppress(ConnectionError):
                await forth.wait_closed()

    async def _forward(self, head: str, reader: asyncio.StreamReader, forth: asyncio.StreamWriter) -> None:
        head = re.sub(r"(proxy-authorization|connection): .*\r\n", "", head, flags=re.IGNORECASE)
        forth.write(f"{head.removesuffix(_END)}\r\nConnection: close{_END}".encode())  # one request, one connection
        length = re.search(r"content-length: (\d+)", head, re.IGNORECASE)
        if length and self.dies != "before the body":
            forth.write(await reader.readexactly(int(length[1])))
        await forth.drain()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while piece := await reader.read(65_536):
            writer.write(piece)
            await writer.drain()
    writer.close()


def proxying(proxy: Proxy) -> AbstractAsyncContextManager[str]:
    """Have it work; its host and port."""
    return taking(proxy.take)
