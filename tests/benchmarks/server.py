"""The Videos API that the benchmarks ask: `python server.py`, bare, so that it is faster than any of its clients.

It prints its port, and ends with its standard input. Routes, bodies and states are those of the real servers: a video
is completed `latency` seconds after its POST and not before. What tests/provider can do besides (faults, a ledger) is
left out: it would cost more than a client does.

`POST /_/reset` with options begins a new run, `GET /_/counts` tells of it.
"""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import sys
import tempfile
from contextlib import suppress
from email.utils import formatdate
from pathlib import Path
from typing import IO
from urllib.parse import parse_qs, urlsplit

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.benchmarks.studio import Options, Studio, filler, head

_SMALL = 65_536
"""Up to here a file is sent at once; beyond, by the system from a file, so that it costs no time here."""
_PROMPT = b'name="prompt"'
_REASONS = {200: b"200 OK", 404: b"404 Not Found", 429: b"429 Too Many Requests", 400: b"400 Bad Request"}


class Run:
    """What all connections share."""

    def __init__(self) -> None:
        self.studio = Studio()
        self.date = b""
        self._file: IO[bytes] | None = None

    def tick(self) -> None:
        self.date = formatdate(usegmt=True).encode()
        asyncio.get_running_loop().call_later(0.5, self.tick)

    def reset(self, body: bytes) -> None:
        self.studio = Studio(Options(**json.loads(body or b"{}")))
        if self._file is not None:
            self._file.close()
        self._file = None
        gc.collect()
        gc.freeze()

    def file(self) -> IO[bytes]:
        """The bytes that lie behind the head of every large file."""
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115  (closed by the next run)
            self._file.write(filler(self.studio.options.content_bytes))
            self._file.flush()
        return self._file


class Connection(asyncio.Protocol):
    """HTTP/1.1, as much of it as the clients speak."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._buffer = b""
        self._transport: asyncio.Transport
        self._sending: asyncio.Task[None] | None = None
        self._close = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        while self._buffer and self._sending is None:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            line, _, rest = self._buffer[:end].partition(b"\r\n")
            method, target, _ = line.split(b" ", 2)
            headers = rest.lower()
            body = b"" if method == b"GET" else self._body(headers, end + 4)
            if body is None:
                return
            if method == b"GET":
                self._buffer = self._buffer[end + 4 :]
            self._close = b"connection: close" in headers
            self._answer(method, target.decode(), body)

    def _body(self, headers: bytes, start: int) -> bytes | None:
        """Take a body off the buffer; None: it has not come yet."""
        if b"transfer-encoding: chunked" in headers:
            end = self._buffer.find(b"\r\n0\r\n\r\n", start)
            if end < 0:
                return None
            chunked, self._buffer = self._buffer[start : end + 2], self._buffer[end + 7 :]
            return _joined(chunked)
        _, _, after = headers.partition(b"content-length:")
        end = start + int(after.partition(b"\r\n")[0] or 0)
        if len(self._buffer) < end:
            return None
        body, self._buffer = self._buffer[start:end], self._buffer[end:]
        return body

    def _answer(self, method: bytes, target: str, body: bytes) -> None:
        run = self._run
        path, studio = target.partition("?")[0], run.studio
        parts = path.split("/")[1:]
        if parts[0] == "_":
            if parts[1] == "reset":
                run.reset(body)
            self._send(200, json.dumps(run.studio.counts()).encode())
        elif parts[:2] != ["v1", "videos"]:
            self._send(404, _error("no such route"))
        elif method == b"POST":
            studio.requests["create"] += 1
            self._create(body)
        elif len(parts) == 2:
            studio.requests["list"] += 1
            query = parse_qs(urlsplit(target).query)
            limit, after = int(query.get("limit", ["20"])[0]), query.get("after", [None])[0]
            self._send(200, studio.page(limit, after, newest_first=query.get("order") != ["asc"]))
        elif len(parts) == 3:
            studio.requests["retrieve"] += 1
            told = studio.look(parts[2])
            self._send(*((404, _error("no such video")) if told is None else (200, told)))
        else:
            studio.requests["content"] += 1
            self._content(parts[2])

    def _create(self, body: bytes) -> None:
        studio = self._run.studio
        prompt = _prompt(body)
        if prompt is None:
            self._send(400, _error("prompt: a text is needed"))
        elif studio.refuses():
            pause = b"Retry-After-Ms: %d\r\n" % int(1000 * studio.options.retry_after)
            self._send(429, _error("too many"), pause)
        else:
            self._send(200, studio.make(prompt))

    def _content(self, name: str) -> None:
        prompt, size = self._run.studio.fetch(name), self._run.studio.options.content_bytes
        if prompt is None:
            self._send(404, _error("the video is not ready"))
            return
        first = head(prompt, size)
        if size <= _SMALL:
            self._send(200, first + filler(size)[len(first) :], kind=b"video/mp4")
            return
        self._send(200, first, kind=b"video/mp4", length=size)
        self._sending = asyncio.get_running_loop().create_task(self._send_rest(len(first)))
        self._sending.add_done_callback(self._sent)

    async def _send_rest(self, start: int) -> None:
        with suppress(ConnectionError, RuntimeError):  # the client has gone
            await asyncio.get_running_loop().sendfile(self._transport, self._run.file(), start)

    def _sent(self, _: object) -> None:
        self._sending = None
        self.data_received(b"")

    def _send(
        self, status: int, body: bytes, more: bytes = b"", *, kind: bytes = b"application/json", length: int = -1
    ) -> None:
        size = len(body) if length < 0 else length
        last = b"Connection: close\r\n" if self._close else b""
        self._transport.write(
            b"HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %d\r\nDate: %s\r\n%s%s\r\n%s"
            % (_REASONS[status], kind, size, self._run.date, more, last, body)
        )
        if self._close and length < 0:
            self._transport.close()


def _joined(chunked: bytes) -> bytes:
    parts = []
    while chunked:
        size, _, rest = chunked.partition(b"\r\n")
        length = int(size, 16)
        parts.append(rest[:length])
        chunked = rest[length + 2 :]
    return b"".join(parts)


def _prompt(body: bytes) -> str | None:
    """The prompt of a form or of a JSON body."""
    place = body.find(_PROMPT)
    if place >= 0:
        start = body.index(b"\r\n\r\n", place) + 4
        return body[start : body.index(b"\r\n--", start)].decode()
    try:
        prompt = json.loads(body)["prompt"]
    except (ValueError, KeyError, TypeError):
        return None
    return prompt if isinstance(prompt, str) else None


def _error(message: str) -> bytes:
    return json.dumps({"error": {"message": message, "type": "error", "param": None, "code": None}}).encode()


async def main() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    loop, run = asyncio.get_running_loop(), Run()
    run.tick()
    server = await loop.create_server(lambda: Connection(run), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)  # until whoever started it has gone
    server.close()


if __name__ == "__main__":
    asyncio.run(main())
