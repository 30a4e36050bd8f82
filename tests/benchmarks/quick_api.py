"""A Videos API that costs next to nothing, in a process of its own, so that a client's cost is what is measured.

Knows one kind of request each: create, look, fetch, delete. It checks and keeps nothing but times.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.provider.mp4 import content

ROOT = Path(__file__).parents[2]
_GOLDEN = 0.618
_FILE = content("video", 4096)


class _Videos:
    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        """On the average: they differ by up to a quarter, so that not all end at once."""
        self._ready: list[float] = []

    def create(self) -> dict[str, Any]:
        part = len(self._ready) * _GOLDEN % 1
        self._ready.append(time.monotonic() + self._seconds * (0.75 + 0.5 * part))
        return self._told(len(self._ready) - 1, "queued")

    def look(self, number: int) -> dict[str, Any]:
        return self._told(number, "completed" if time.monotonic() >= self._ready[number] else "in_progress")

    def _told(self, number: int, status: str) -> dict[str, Any]:
        return {"id": f"video_{number}", "object": "video", "status": status, "progress": 0, "model": "sora-2"}


class _Connection(asyncio.Protocol):
    def __init__(self, videos: _Videos) -> None:
        self._videos, self._unread = videos, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._unread += data
        while (end := self._unread.find(b"\r\n\r\n")) >= 0:
            head = self._unread[:end].lower()
            _, _, rest = head.partition(b"content-length:")
            size = int(rest.split(b"\r\n", 1)[0]) if rest else 0
            if len(self._unread) < end + 4 + size:
                return
            self._unread = self._unread[end + 4 + size :]
            method, path, _ = head.split(b" ", 2)
            self._answer(method, path.decode())

    def _answer(self, method: bytes, path: str) -> None:
        kind, status, body = "application/json", "200 OK", b"{}"
        if method == b"post":
            body = json.dumps(self._videos.create()).encode()
        elif path.endswith("/content"):
            kind, body = "video/mp4", _FILE
        elif (number := path.rpartition("_")[2]).isdecimal():
            body = json.dumps(self._videos.look(int(number))).encode()
        else:
            status = "404 Not Found"
        head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        self._transport.write(head.encode() + body)


async def _serve(seconds: float) -> None:
    videos = _Videos(seconds)
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(videos), "127.0.0.1", 0, backlog=10_000)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)  # until our parent ends


@contextmanager
def quick_api(seconds: float = 0.0) -> Iterator[str]:
    """The base URL of a server that is ready with a video after so many seconds."""
    command = [sys.executable, "-m", "tests.benchmarks.quick_api", str(seconds)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        process.stdin.close()


if __name__ == "__main__":
    asyncio.run(_serve(float(sys.argv[1])))
