"""What a server is sent, and what nobody else is: headers, the key, the query of its address, across redirects."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from actors.errors import SoraError
from actors.settings import Settings
from actors.sora.client import Accepted, Refused, SoraClient
from actors.sora.rate_limiter import RateLimiter
from actors.sora.requests import VideoSpec
from tests.servers.http_recorder import VIDEO, Recorder, answer, listening

SPEC = VideoSpec("a lake", None, None, None)
LISTING = b'{"data": [], "has_more": false}'


async def ask_everything(client: SoraClient) -> None:
    """Each request that there is, once."""
    assert isinstance(await client.create(SPEC, "intent", lambda: None), Accepted)
    await client.retrieve("v1")
    await client.retrieve("v1", anew=True)
    await client.list_page(None)
    await client.list_page("v0")
    await client.look(10, query="limit=1")
    await client.delete("v1", lambda: None, 10)
    async with client.content("v1") as response:
        await response.read()


LISTS = ("GET .*videos\\?", answer(LISTING))
FILM = ("GET .*content", answer(b"film", **{"Content-Type": "video/mp4"}))


def run(
    use: Callable[[SoraClient, str], Coroutine[Any, Any, Any]],
    server: Recorder,
    base: str = "http://{host}/v1",
    **more: Any,
) -> Any:
    """Use a client of a server; `base` is its address."""

    async def all_of_it() -> Any:
        async with listening(server) as host:
            settings = Settings(_env_file=None, openai_base_url=base.format(host=host), **more)  # type: ignore[call-arg]
            async with SoraClient(settings, str(settings.openai_base_url), RateLimiter()) as client:
                return await use(client, host)

    return asyncio.run(all_of_it())


def everything(server: Recorder, base: str = "http://{host}/v1", **more: Any) -> Recorder:
    server.answers += [LISTS, FILM]
    run(lambda client, _: ask_everything(client), server, base, **more)
    assert len(server.heads) == 8
    return server


@pytest.mark.parametrize(
    ("base", "given", "name", "value"),
    [
        ("", {}, "Authorization", "Bearer the-key"),
        ("", {"sora_auth": "header:api-key"}, "api-key", "the-key"),
        ("", {"sora_auth": "header:Authorization"}, "Authorization", "the-key"),
        ("", {"sora_auth": "none"}, "Authorization", None),
        ("me:word@", {"sora_auth": "header:api-key"}, "api-key", "the-key"),
        ("me:word@", {"sora_auth": "header:api-key"}, "Authorization", "Basic bWU6d29yZA=="),
        ("me:word@", {"sora_auth": "none"}, "Authorization", "Basic bWU6d29yZA=="),
        ("", {"sora_auth": "none", "sora_headers": "Authorization: Key mine"}, "Authorization", "Key mine"),
    ],
)
def test_every_request_carries_the_key_where_it_belongs(base: str, given: Any, name: str, value: str | None) -> None:
    server = everything(Recorder(), f"http://{base}{{host}}/v1", openai_api_key="the-key", **given)
    assert server.values(name) == [value] * 8
    if given.get("sora_auth") == "none":
        assert "the-key" not in "".join(server.heads)


@pytest.mark.parametrize(
    "text", ['{"X-Team": "films", "custom-llm-provider": "x"}', "X-Team: films\ncustom-llm-provider: x"]
)
def test_every_request_carries_the_headers(text: str) -> None:
    server = everything(Recorder(), sora_headers=text)
    assert server.values("X-Team") == ["films"] * 8
    assert server.values("custom-llm-provider") == ["x"] * 8


@pytest.mark.parametrize(
    "base", ["http://{host}/v1?api-version=preview&code=a%2Fb", "http://{host}/v1/?api-version=preview&code=a%2Fb"]
)
def test_every_request_has_the_query_of_the_address(base: str) -> None:
    server = everything(Recorder(), base)
    query = "api-version=preview&code=a/b"
    assert server.lines == [
        f"POST /v1/videos?{query}",
        f"GET /v1/videos/v1?{query}",
        f"GET /v1/videos/v1?{query}",
        f"GET /v1/videos?limit=100&order=desc&{query}",
        f"GET /v1/videos?limit=100&order=desc&after=v0&{query}",
        f"GET /v1/videos?limit=1&{query}",
        f"DELETE /v1/videos/v1?{query}",
        f"GET /v1/videos/v1/content?{query}",
    ]


SECRET: dict[str, Any] = {"openai_api_key": "the-key", "sora_headers": "X-Team: films\nX-Gate: open-sesame"}


async def fetch(client: SoraClient, url: str | None = None) -> bytes:
    async with client.content("v1") if url is None else client.content_at(url) as response:
        return await response.read()


@pytest.mark.parametrize("auth", ["bearer", "header:api-key"])
def test_neither_key_nor_headers_go_to_another_origin(auth: str) -> None:
    elsewhere = Recorder([("film", FILM[1]), (".*", answer(VIDEO))])
    server = Recorder()

    async def use(client: SoraClient, host: str) -> None:
        async with listening(elsewhere) as other:
            assert await fetch(client, f"http://{other}/film") == b"film"
            for status in (301, 302, 303, 307, 308):
                moved = answer(b"", f"{status} Moved", Location=f"http://{other}/film?v1")
                server.answers[:] = [
                    ("content", moved),
                    ("v1", answer(b"", "307 Moved", Location=f"http://{other}/v1")),
                ]
                assert await fetch(client) == b"film"
            assert (await client.retrieve("v1"))[0].id == "v1"

    run(use, server, sora_auth=auth, **SECRET)
    told = "\n".join(elsewhere.heads)
    assert len(elsewhere.heads) == 7
    assert not [word for word in ("the-key", "films", "open-sesame", "Authorization") if word.lower() in told.lower()]
    assert server.values("X-Gate") == ["open-sesame"] * 6


def test_a_redirect_within_the_origin_keeps_key_and_headers() -> None:
    server = Recorder([("/film", FILM[1]), ("content", answer(b"", "302 Found", Location="/film"))])

    async def use(client: SoraClient, host: str) -> None:
        assert await fetch(client) == b"film"
        assert await fetch(client, f"http://x:y@{host}/film") == b"film"

    run(use, server, **SECRET)
    assert server.lines == ["GET /v1/videos/v1/content", "GET /film", "GET /film"]
    assert server.values("X-Team") == ["films"] * 3
    assert server.values("Authorization") == ["Bearer the-key"] * 3


@pytest.mark.parametrize("location", ["ftp://host/film", "http://", "http://[", "/v1/videos/v1/content"])
def test_a_redirect_that_leads_nowhere_ends(location: str) -> None:
    server = Recorder([("content", answer(b"", "302 Found", Location=location))])
    with pytest.raises(SoraError, match="downloading the video failed: "):
        run(lambda client, _: fetch(client), server)
    assert 1 <= len(server.heads) <= 10


def test_a_create_that_is_redirected_with_its_own_query_made_nothing() -> None:
    moved = answer(b"", "308 Moved", Location="https://videos.example/v1/videos?code=the-code")
    server = Recorder([("POST", moved)])
    base = "http://{host}/v1?code=the-code"
    result = run(lambda client, _: client.create(SPEC, "intent", lambda: None), server, base)
    assert isinstance(result, Refused)
    assert result.sent
    assert result.failure.message.endswith("set OPENAI_BASE_URL=https://videos.example/v1, keeping its query")
