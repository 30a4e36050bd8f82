"""A small HTTP server that keeps what it was asked, and answers as a test says; with TLS, if that is wanted."""

import asyncio
import re
import shutil
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

_PATIENCE = 30.0
VIDEO = b'{"id": "v1", "status": "completed"}'


def answer(body: bytes, status: str = "200 OK", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "Connection: close", "", ""]).encode() + body


@dataclass
class Recorder:
    """Keeps each request's head and the size of its body, and answers by its first line."""

    answers: list[tuple[str, bytes]] = field(default_factory=list)
    hangs: str = "no line"
    """A pattern of the first lines that are never answered."""
    heads: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        length = re.search(r"content-length: (\d+)", head, re.IGNORECASE)
        self.bodies.append(await reader.readexactly(int(length[1])) if length else b"")
        line = head.partition("\r\n")[0]
        if re.search(self.hangs, line):
            await reader.read()  # until the client has enough of it
            return
        writer.write(next((data for pattern, data in self.answers if re.search(pattern, line)), answer(VIDEO)))
        await writer.drain()

    @property
    def lines(self) -> list[str]:
        return [head.partition(" HTTP/")[0] for head in self.heads]

    def values(self, name: str) -> list[str | None]:
        """Of each request, what a header says; more than one of a name are an error."""
        found = [re.findall(rf"^{name}: (.*?)\r$", head, re.IGNORECASE | re.MULTILINE) for head in self.heads]
        assert all(len(each) <= 1 for each in found), found
        return [each[0] if each else None for each in found]


Take = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def taking(take: Take, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Have connections taken, each ended before all this does; the host and the port."""
    taking: set[asyncio.Task[None]] = set()

    async def taken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        mine = asyncio.current_task()
        assert mine is not None
        taking.add(mine)
        with suppress(asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError, ssl.SSLError):
            await take(reader, writer)
        writer.close()
        with suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()
        taking.discard(mine)

    async with asyncio.timeout(30), await asyncio.start_server(taken, "127.0.0.1", 0, ssl=tls) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        _, open_still = await asyncio.wait(taking, timeout=_PATIENCE / 10) if taking else ((), ())
        for each in open_still:  # a peer that is gone may leave one open
            each.cancel()
        await asyncio.gather(*open_still, return_exceptions=True)


def listening(recorder: Recorder, tls: ssl.SSLContext | None = None) -> AbstractAsyncContextManager[str]:
    """Have it answer; its host and port."""
    return taking(recorder.take, tls)


@contextmanager
def in_thread(serving: AbstractAsyncContextManager[str]) -> Iterator[str]:
    """Have it served beside the test; its host and port."""
    loop, stack = asyncio.new_event_loop(), AsyncExitStack()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def ended() -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    started, stop = asyncio.Event(), asyncio.Event()
    hosts: list[str] = []

    async def serve() -> None:
        async with stack:
            hosts.append(await stack.enter_async_context(serving))
            started.set()
            await stop.wait()

    running = asyncio.run_coroutine_threadsafe(serve(), loop)
    asyncio.run_coroutine_threadsafe(started.wait(), loop).result(_PATIENCE)
    yield hosts[0]
    loop.call_soon_threadsafe(stop.set)
    running.result(_PATIENCE)
    asyncio.run_coroutine_threadsafe(ended(), loop).result(_PATIENCE)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(_PATIENCE)
    loop.close()


def certificate(folder: Path) -> Path:
    """A certificate for 127.0.0.1 that nobody has signed; its key stands in the same file."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl makes the certificate")
    path = folder / "cert.pem"
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", folder / "key.pem", "-out", path,
         "-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    path.write_bytes(path.read_bytes() + (folder / "key.pem").read_bytes())
    return path


def serving_with(certificate: Path) -> ssl.SSLContext:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    return tls
