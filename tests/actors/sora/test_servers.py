"""How a picture is sent: in the form that works, and not at all where it would be dropped without a word."""

import asyncio
import json
import time
from typing import Any

import pytest

from actors.settings import Settings
from actors.sora.client import Accepted, Refused, SoraClient
from actors.sora.outcomes import SEND_WINDOW
from actors.sora.rate_limiter import RateLimiter
from actors.sora.requests import Server, VideoSpec, read_models
from storage.records import ReferenceRecord
from tests.servers.http_recorder import VIDEO, Recorder, answer, listening

PICTURE = ReferenceRecord("d", "a.png", "image/png", b"\x89PNG")
URL = "data:image/png;base64,iVBORw=="
WITH_PICTURE = VideoSpec("a lake", None, 4, None, PICTURE, files={"last_frame": PICTURE})
WITH_ID = VideoSpec("a lake", None, 4, None, file_id="file-1")
OTHER_WITH_ID = VideoSpec("a lake", None, 4, None, PICTURE, files={"last_frame": "file-2"})


def listing(owner: str, *names: str) -> bytes:
    return json.dumps({"object": "list", "data": [{"id": name, "owned_by": owner} for name in names]}).encode()


SGLANG, VLLM, OPENAI = listing("sglang", "Wan"), listing("vllm", "Wan"), listing("openai", "gpt-9", "sora-2")


@pytest.mark.parametrize(
    ("headers", "document", "server", "names"),
    [
        ({}, json.loads(SGLANG), Server.SGLANG, ("Wan",)),
        ({}, json.loads(VLLM), Server.VLLM_OMNI, ("Wan",)),
        ({}, json.loads(listing("nvidia", "Wan")), Server.DYNAMO, ("Wan",)),
        ({}, json.loads(OPENAI), Server.OPENAI, ("gpt-9", "sora-2")),
        ({"X-LiteLLM-Version": "1.110.2"}, json.loads(OPENAI), Server.LITELLM, ("gpt-9", "sora-2")),
        ({"x-litellm-version": "1.110.2"}, None, Server.LITELLM, ()),
        ({}, json.loads(listing("somebody", "Wan")), None, ("Wan",)),
        ({}, {"data": [1, {"id": 2}, {"owned_by": None}]}, None, ()),
        ({}, {"data": {}}, None, ()),
        ({}, [], None, ()),
    ],
)
def test_a_server_is_known_by_its_models(headers: Any, document: Any, server: Any, names: Any) -> None:
    found = read_models(headers, document)
    assert (found.server, found.names) == (server, names)


def created(
    models: bytes | None, spec: VideoSpec, form: str, times: int = 1, videos: bytes = answer(b'{"data": []}')
) -> tuple[list[Any], Recorder]:
    server = Recorder([("POST", answer(VIDEO)), ("videos", videos)])
    server.answers.append(("models", answer(models) if models is not None else answer(b"", "404 Not Found")))

    async def run() -> list[Any]:
        async with listening(server) as host:
            given: dict[str, Any] = {"openai_base_url": f"http://{host}/v1", "sora_request_format": form}
            settings = Settings(_env_file=None, http_proxy=None, **given)  # type: ignore[call-arg]
            async with SoraClient(settings, str(settings.openai_base_url), RateLimiter()) as client:
                posts = (client.create(spec, f"intent-{number}", lambda: None) for number in range(times))
                return await asyncio.gather(*posts)

    return asyncio.run(run()), server


@pytest.mark.parametrize("models", [SGLANG, listing("nvidia", "Wan"), listing("somebody", "Wan"), None])
def test_a_picture_in_json_is_a_text(models: bytes | None) -> None:
    (result,), server = created(models, WITH_PICTURE, "json")
    assert isinstance(result, Accepted)
    assert json.loads(server.bodies[-1]) == {
        "prompt": "a lake", "seconds": 4, "input_reference": URL, "last_frame": URL,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("form", "files", "words"),
    [
        ("json", {}, "the file of input_reference in JSON on as a text"),
        ("multipart", {"last_frame": PICTURE}, "the file of last_frame on as a text"),
        ("multipart", {}, None),
    ],
)
def test_a_litellm_proxy_is_sent_no_picture_that_would_arrive_as_a_text(
    form: str, files: dict[str, Any], words: str | None
) -> None:
    refusing = answer(b'{"error": {"message": "LLM Provider NOT provided"}}', "400 x", **{"x-litellm-version": "1.110"})
    spec = VideoSpec("a lake", None, 4, None, PICTURE, files=files)
    (result,), _ = created(OPENAI, spec, form, videos=refusing)
    if words is None:
        assert isinstance(result, Accepted)
    else:
        assert isinstance(result, Refused)
        assert (result.sent, result.failure.code) == (False, "invalid_request")
        assert words in result.failure.message


def test_openai_s_own_api_takes_an_object() -> None:
    (result,), server = created(OPENAI, WITH_PICTURE, "json")
    assert isinstance(result, Accepted)
    assert json.loads(server.bodies[-1])["input_reference"] == {"image_url": URL}
    assert json.loads(server.bodies[-1])["last_frame"] == URL


@pytest.mark.parametrize("form", ["multipart", "json"])
@pytest.mark.parametrize(("spec", "name"), [(WITH_ID, "input_reference"), (OTHER_WITH_ID, "last_frame")])
@pytest.mark.parametrize(("models", "who"), [(VLLM, "vLLM-Omni"), (SGLANG, "SGLang")], ids=["vLLM-Omni", "SGLang"])
def test_a_file_id_that_would_be_dropped_is_not_sent(
    models: bytes, who: str, spec: VideoSpec, name: str, form: str
) -> None:
    (result,), server = created(models, spec, form)
    assert isinstance(result, Refused)
    assert (result.sent, result.passes, result.failure.code) == (False, False, "invalid_request")
    assert f"{who} ignores the file_id of {name}" in result.failure.message
    assert sorted(server.lines) == ["GET /v1/models", "GET /v1/videos?limit=1"]


@pytest.mark.parametrize("models", [OPENAI, listing("somebody", "Wan"), None])
def test_a_file_id_is_sent_where_it_may_be_known(models: bytes | None) -> None:
    (result,), server = created(models, WITH_ID, "json")
    assert isinstance(result, Accepted)
    assert json.loads(server.bodies[-1])["input_reference"] == {"file_id": "file-1"}
    (result,), server = created(models, WITH_ID, "multipart")
    assert isinstance(result, Accepted)
    assert b'name="input_reference[file_id]"' in server.bodies[-1]


def test_a_server_is_asked_once_and_only_where_it_matters() -> None:
    assert len(created(SGLANG, WITH_PICTURE, "json", times=5)[1].heads) == 7
    only_one = VideoSpec("a lake", None, None, None, PICTURE)
    assert len(created(SGLANG, only_one, "multipart", times=5)[1].heads) == 5
    assert len(created(SGLANG, VideoSpec("a lake", None, None, None), "json", times=5)[1].heads) == 5


@pytest.mark.parametrize(
    ("message", "code", "refused"), [("No connected db.", "authentication", True), ("no", "invalid_request", False)]
)
def test_a_key_that_is_refused_with_another_status_is_known_for_it(message: str, code: str, refused: bool) -> None:
    server = Recorder([(".*", answer(json.dumps({"error": {"message": message}}).encode(), "400 Bad Request"))])

    async def run() -> tuple[Any, bool]:
        async with listening(server) as host:
            settings = Settings(_env_file=None, http_proxy=None, openai_base_url=f"http://{host}/v1")  # type: ignore[call-arg]
            async with SoraClient(settings, str(settings.openai_base_url), RateLimiter()) as client:
                return await client.create(WITH_PICTURE, "intent", lambda: None), client.rate_limiter.key.refused

    result, key_refused = asyncio.run(run())
    assert isinstance(result, Refused)
    assert (result.sent, result.failure.code, key_refused) == (True, code, refused)


@pytest.mark.parametrize(
    "body",
    [
        {"message": "Model not found"},
        {"error": {"message": "The model `sora-9` does not exist.", "type": "NotFoundError", "code": 404}},
        {"error": {"message": "you do not have access to it", "code": "model_not_found"}},
    ],
)
def test_an_unknown_model_is_no_missing_api(body: Any) -> None:
    server = Recorder([(".*", answer(json.dumps(body).encode(), "404 Not Found"))])

    async def run() -> Any:
        async with listening(server) as host:
            settings = Settings(_env_file=None, http_proxy=None, openai_base_url=f"http://{host}/v1")  # type: ignore[call-arg]
            async with SoraClient(settings, str(settings.openai_base_url), RateLimiter()) as client:
                return await client.create(WITH_PICTURE, "intent", lambda: None)

    result = asyncio.run(run())
    assert isinstance(result, Refused)
    assert result.failure.code == "invalid_request"
    assert "has no Videos API" not in result.failure.message
    assert "set SORA_MODEL or the request's model" in result.failure.message


class SilentAtFirst(Recorder):
    """A server of which the listing of models is not answered."""

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"GET"):
            self.bodies.append(await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split()[0])))
            writer.write(answer(VIDEO))
            return
        self.heads.append(head.decode())
        await reader.read()  # until the client gives up


def test_creates_wait_together_for_a_server_that_does_not_say_which_one_it_is() -> None:
    """Each has to leave 2 s after its intent: if they waited in turn, none but the first would."""
    server = SilentAtFirst()
    left: list[float] = []

    async def run() -> list[Any]:
        async with listening(server) as host:
            given: dict[str, Any] = {"openai_base_url": f"http://{host}/v1", "sora_request_format": "json"}
            settings = Settings(_env_file=None, http_proxy=None, **given)  # type: ignore[call-arg]
            async with SoraClient(settings, str(settings.openai_base_url), RateLimiter()) as client:
                began = time.monotonic()
                posts = (
                    client.create(WITH_PICTURE, f"intent-{number}", lambda: left.append(time.monotonic() - began))
                    for number in range(5)
                )
                return await asyncio.gather(*posts)

    results = asyncio.run(run())
    assert all(isinstance(result, Accepted) for result in results)
    assert len(server.heads) == 2, "once, of models and of videos"
    assert max(left) < SEND_WINDOW


@pytest.mark.parametrize("status", ["503 Service Unavailable", "429 Too Many Requests"])
def test_a_server_that_is_just_starting_is_asked_again(status: str) -> None:
    server = Recorder([("models", answer(b"{}", status)), ("POST", answer(VIDEO))])

    async def run() -> tuple[Any, Any]:
        async with listening(server) as host:
            given: dict[str, Any] = {"openai_base_url": f"http://{host}/v1"}
            settings = Settings(_env_file=None, http_proxy=None, **given)  # type: ignore[call-arg]
            async with SoraClient(settings, str(settings.openai_base_url), RateLimiter()) as client:
                first = await client.create(WITH_ID, "intent-1", lambda: None)
                server.answers.insert(0, ("models", answer(SGLANG)))
                return first, await client.create(WITH_ID, "intent-2", lambda: None)

    first, second = asyncio.run(run())
    assert isinstance(first, Accepted)
    assert isinstance(second, Refused)


def test_a_client_that_is_closed_meanwhile_sends_nothing() -> None:
    settings = Settings(_env_file=None, openai_base_url="http://127.0.0.1:9/v1", sora_request_format="json")  # type: ignore[call-arg]

    async def run() -> Any:
        async with SoraClient(settings, str(settings.openai_base_url), RateLimiter()) as client:
            pass
        return await client.create(WITH_PICTURE, "intent-1", lambda: None)

    result = asyncio.run(run())
    assert isinstance(result, Refused)
    assert not result.sent
