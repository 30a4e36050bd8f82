"""The body of a create on its way out, against a server that takes it in as slowly as a test wants."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from actors.settings import Settings
from actors.sora import upload
from actors.sora.client import Accepted, CreateResult, NoAnswer, Refused, SoraClient
from actors.sora.rate_limiter import RateLimiter
from actors.sora.requests import VideoSpec
from actors.sora.upload import SendForbidden
from storage.records import ReferenceRecord

LARGE = 4 << 20
ANSWER = (
    b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 32\r\n\r\n{"id": "v1", "status": "queued"}'
)


@dataclass
class Server:
    """Takes one POST in, `step` bytes each time that it is let."""

    step: int
    paces: bool = True
    length: int = 0
    got: int = 0
    head: bytes = b""
    progressed: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    reset: bool = False

    @property
    def complete(self) -> bool:
        return self.length > 0 and self.got >= self.length

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.head = await reader.readuntil(b"\r\n\r\n")
        lines = self.head.decode().lower().split("\r\n")
        self.length = next(int(line.partition(":")[2]) for line in lines if line.startswith("content-length:"))
        try:
            while not self.complete:
                piece = await reader.read(min(self.step, self.length - self.got))
                if not piece:
                    break
                self.got += len(piece)
                self.progressed.set()
                if self.paces:
                    await self.go_on.acquire()
            if self.complete:
                writer.write(ANSWER)
                await writer.drain()
        except ConnectionResetError:
            self.reset = True
        finally:
            writer.close()
            self.ended.set()


@asynccontextmanager
async def served(server: Server) -> AsyncIterator[SoraClient]:
    listening = await asyncio.start_server(server.take, "127.0.0.1", 0, limit=65_536)
    port = listening.sockets[0].getsockname()[1]
    settings = Settings(_env_file=None, openai_base_url=f"http://127.0.0.1:{port}/v1")  # type: ignore[call-arg]
    async with (
        asyncio.timeout(30),
        listening,
        SoraClient(settings, str(settings.openai_base_url), RateLimiter()) as client,
    ):
        yield client


def spec(size: int) -> VideoSpec:
    picture = ReferenceRecord(digest="d", name="a.png", content_type="image/png", data=bytes(size)) if size else None
    return VideoSpec("a lake", None, None, None, picture)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    now = 1000.0

    def passes(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(upload, "boottime", lambda: now)
    return passes


def test_the_guard_is_asked_once_and_a_slow_upload_goes_through(clock: Callable[[float], None]) -> None:
    async def run() -> tuple[CreateResult, Server, int]:
        server, asked = Server(step=65_536), 0

        def guard() -> None:
            nonlocal asked
            asked += 1
            if asked > 1:
                raise SendForbidden("it is too late")

        async with served(server) as client:
            creating = asyncio.create_task(client.create(spec(LARGE), "intent", guard))
            await server.progressed.wait()
            clock(59.0)
            server.paces = False
            server.go_on.release()
            return await creating, server, asked

    result, server, asked = asyncio.run(run())
    assert isinstance(result, Accepted)
    assert (asked, server.complete) == (1, True)
    assert b"x-litellm-num-retries: 0" in server.head


@pytest.mark.parametrize("size", [LARGE, 0], ids=["large", "small"])
def test_nothing_leaves_that_the_guard_stops(size: int) -> None:
    async def run() -> tuple[CreateResult, Server]:
        server = Server(step=65_536, paces=False)

        def guard() -> None:
            raise SendForbidden("it is too late")

        async with served(server) as client:
            return await client.create(spec(size), "intent", guard), server

    result, server = asyncio.run(run())
    assert isinstance(result, Refused)
    assert (result.sent, server.head) == (False, b"")


def test_an_upload_whose_time_is_up_sends_no_further_block(clock: Callable[[float], None]) -> None:
    """A process that was suspended: nothing else tells it how late it is."""

    async def run() -> tuple[CreateResult, Server]:
        server = Server(step=65_536)
        async with served(server) as client:
            creating = asyncio.create_task(client.create(spec(8 * LARGE), "intent", lambda: None))
            await server.progressed.wait()
            clock(60.1)
            server.paces = False
            server.go_on.release()
            result = await creating
            await server.ended.wait()
            return result, server

    result, server = asyncio.run(run())
    assert isinstance(result, NoAnswer)
    assert result.timed_out
    assert "SORA_SUBMIT_TIMEOUT" in result.failure.message
    assert (server.complete, server.reset) == (False, True)


@pytest.mark.parametrize(("late", "complete"), [(60.1, False), (59.9, True)])
def test_the_clock_is_asked_before_the_last_block(
    late: float, complete: bool, clock: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, takes_more = [], upload._takes_more

    def seems_full(transport: asyncio.Transport | None) -> bool:
        asked.append(transport)
        if len(asked) == 1:
            return False
        if len(asked) == 2:
            clock(late)
        return takes_more(transport)

    async def run() -> tuple[CreateResult, Server]:
        server = Server(step=65_536, paces=False)
        async with served(server) as client:
            result = await client.create(spec(LARGE), "intent", lambda: None)
            await server.ended.wait()
            return result, server

    monkeypatch.setattr(upload, "_takes_more", seems_full)
    result, server = asyncio.run(run())
    assert (isinstance(result, Accepted), server.complete) == (complete, complete)
    assert server.got <= server.length - (0 if complete else upload._LAST)


def test_a_post_without_an_answer_says_whether_its_time_was_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> list[CreateResult]:
        async def hangs(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            await reader.read()
            writer.close()

        async def ends(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.close()

        results = []
        for take in (hangs, ends):
            server = Server(step=1)
            monkeypatch.setattr(server, "take", take)
            async with served(server) as client:
                client._submit_timeout = 0.2
                results.append(await client.create(spec(0), "intent", lambda: None))
        return results

    late, dropped = asyncio.run(run())
    assert isinstance(late, NoAnswer)
    assert isinstance(dropped, NoAnswer)
    assert (late.timed_out, dropped.timed_out) == (True, False)
    assert "no answer: timed out after 0.2 s (SORA_SUBMIT_TIMEOUT)" in late.failure.message
    assert "no answer: " in dropped.failure.message
