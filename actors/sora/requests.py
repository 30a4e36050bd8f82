"""A create's request: what is asked for, its body, and how the server at hand wants it."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import aiohttp

from actors.errors import SoraError
from actors.sora.wire import parse_json
from storage.records import ReferenceRecord


@dataclass(frozen=True, slots=True)
class VideoSpec:
    """A video to create. None: the field is omitted."""

    prompt: str
    model: str | None
    seconds: int | None
    size: str | None
    reference: ReferenceRecord | None = None
    file_id: str | None = None
    seed: int | None = None
    params: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Server-specific fields."""
    files: Mapping[str, ReferenceRecord | str] = field(default_factory=dict, hash=False)
    """Server-specific files by field: the bytes, or the id of a file that the server has."""

    def fields(self) -> dict[str, Any]:
        """The request's fields as in JSON, without the files."""
        given = {
            "prompt": self.prompt, "model": self.model, "seconds": self.seconds, "size": self.size, "seed": self.seed,
        }  # fmt: skip
        return {**{name: value for name, value in given.items() if value is not None}, **self.params}

    def all_files(self) -> dict[str, ReferenceRecord | str]:
        """The input reference and all files by field: the bytes, or the id of a file that the server has."""
        own = self.reference or self.file_id
        return {**({} if own is None else {"input_reference": own}), **self.files}


@dataclass(frozen=True, slots=True)
class Body:
    """The body of a create, and its media type."""

    content: bytes
    content_type: str


async def body_for(spec: VideoSpec, request_format: str, server: Server | None) -> Body:
    """Build the body of a create, in a thread if it has files: large ones take a while."""
    building = _built(spec, request_format, server)
    if all(isinstance(file, str) for file in spec.all_files().values()):
        return await building
    return await asyncio.to_thread(asyncio.run, building)


async def _built(spec: VideoSpec, request_format: str, server: Server | None) -> Body:
    if request_format == "multipart":
        form = form_of(spec)
        return Body(await form.as_bytes(), form.content_type)
    return Body(json_of(spec, server), "application/json")


def form_of(spec: VideoSpec) -> aiohttp.MultipartWriter:
    """The multipart form, byte for byte as the official SDK writes it. New for every POST."""
    writer = aiohttp.MultipartWriter("form-data")
    files = spec.all_files()
    texts = {name: _as_text(value) for name, value in spec.fields().items()}
    texts |= {f"{name}[file_id]": file for name, file in files.items() if isinstance(file, str)}
    for name, text in texts.items():
        part = writer.append(text)
        part.headers.popall("Content-Type", None)
        part.set_content_disposition("form-data", quote_fields=False, name=name)
    for name, file in files.items():
        if not isinstance(file, str):
            part = writer.append(io.BytesIO(file.data), {"Content-Type": file.content_type})
            part.set_content_disposition("form-data", quote_fields=False, name=name, filename=file.name)
    return writer


def json_of(spec: VideoSpec, server: Server | None) -> bytes:
    """The same as JSON: seconds are a number and pictures are strings, as on every server but OpenAI's.

    The pictures are inserted into what `json` writes: letting it scan them takes five times as long, and a POST must
    leave soon after its intent.
    """
    files = spec.all_files()
    ids = {name: {"file_id": file} for name, file in files.items() if isinstance(file, str)}
    parts = [json.dumps({**spec.fields(), **ids}).encode().removesuffix(b"}")]
    for name, file in files.items():
        if isinstance(file, str):
            continue
        wrapped = name == "input_reference" and server is Server.OPENAI
        before, behind = (b'{"image_url": ', b"}") if wrapped else (b"", b"")
        kind = json.dumps(f"data:{file.content_type};base64,").encode().removesuffix(b'"')
        parts += [b", ", json.dumps(name).encode(), b": ", before, kind, base64.b64encode(file.data), b'"', behind]
    return b"".join([*parts, b"}"])


def _as_text(value: Any) -> str:
    """A field's value in a form: true and false in lower case, objects and lists as JSON text."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


_PATIENCE = 1.0
"""Seconds: a create waits meanwhile and has to leave within 2 s of its intent."""

_PAUSE = 10.0
"""Seconds for which a slow server is not asked again: creates that wait in turn would never leave."""


class Server(Enum):
    """A program with its own dialect of the Videos API."""

    LITELLM = "LiteLLM's proxy"
    SGLANG = "SGLang"
    VLLM_OMNI = "vLLM-Omni"
    DYNAMO = "Dynamo"
    OPENAI = "like OpenAI's own API"


_OWNERS = {"sglang": Server.SGLANG, "vllm": Server.VLLM_OMNI, "nvidia": Server.DYNAMO}

_OPENAI_MODEL = "sora-2"

_DROPS_FILE_IDS = frozenset({Server.VLLM_OMNI, Server.SGLANG})
"""They store no files, ignore a file_id and make the video without the picture."""


@dataclass(frozen=True, slots=True)
class Models:
    """What a server's listing of models says."""

    server: Server | None
    """None: unknown."""
    names: tuple[str, ...]


def read_models(headers: Mapping[str, str], document: Any) -> Models:
    """Read any answer to GET /models."""
    data = document.get("data") if isinstance(document, dict) else None
    listed = [each for each in data if isinstance(each, dict)] if isinstance(data, list) else []
    names = tuple(each["id"] for each in listed if isinstance(each.get("id"), str))
    if "x-litellm-version" in map(str.lower, headers):
        return Models(Server.LITELLM, names)
    owners = (_OWNERS.get(str(each.get("owned_by")).lower()) for each in listed)
    return Models(next(filter(None, owners), Server.OPENAI if _OPENAI_MODEL in names else None), names)


def why_not_sent(server: Server, spec: VideoSpec, request_format: str) -> str | None:
    """Why a server would accept the request but not make the requested video; None: it would make it."""
    for name, file in spec.all_files().items():
        if isinstance(file, str) and server in _DROPS_FILE_IDS:
            return (
                f"not submitted: {server.value} ignores the file_id of {name} and would make the video without it; "
                "give the file itself: a path, an https URL or a data: URL"
            )
        if not isinstance(file, str) and server is Server.LITELLM:
            if request_format == "json":
                return (
                    f"not submitted: {server.value} passes the file of {name} in JSON on as a text and would make the "
                    "video without it; set SORA_REQUEST_FORMAT=multipart"
                )
            if name != "input_reference":
                return (
                    f"not submitted: {server.value} passes the file of {name} on as a text and would make the video "
                    "without it: it takes no further files than input_reference"
                )
    return None


Look = Callable[[float, str, str], Awaitable[tuple[int, Mapping[str, str], bytes]]]


class Recogniser:
    """Finds out once which server this is, when a request depends on it."""

    def __init__(self, look: Look) -> None:
        """`look`: sends a GET, given the timeout in seconds, the route and its query."""
        self._look = look
        self._known: Models | None = None
        self._asking = asyncio.Lock()
        self._asked_again = -math.inf
        """When to ask a slow server again, by `time.monotonic()`."""

    async def models(self, seconds: float) -> Models:
        """What the server's listing of models tells.

        Raises:
            SoraError: there was no answer.
        """
        _, headers, body = await self._looked(seconds)
        return read_models(headers, parse_json(body))

    async def _looked(self, seconds: float) -> tuple[int, Mapping[str, str], bytes]:
        """The answer about models, with the headers of one about videos: only there LiteLLM's proxy adds its own."""
        listed, videos = await asyncio.gather(
            self._look(seconds, "/models", ""), self._look(seconds, "/videos", "limit=1"), return_exceptions=True
        )
        of_videos = videos[1] if isinstance(videos, tuple) else {}
        if isinstance(listed, BaseException):
            raise listed
        status, headers, body = listed
        return status, {**of_videos, **headers}, body

    async def server_for(self, spec: VideoSpec, request_format: str) -> Server | None:
        """Which server it is, if the request depends on that; None: it does not, or is unknown."""
        files = spec.all_files()
        named = any(isinstance(file, str) for file in files.values())
        if not (named or spec.files or (files and request_format == "json")):
            return None
        async with self._asking:
            began = time.monotonic()
            if self._known is None and began >= self._asked_again:
                self._known = await self._ask()
                if (now := time.monotonic()) - began > _PATIENCE / 2:
                    self._asked_again = now + _PAUSE
        return None if self._known is None else self._known.server

    async def _ask(self) -> Models | None:
        """What the server says now; None: nothing, or it is not ready."""
        with suppress(SoraError):
            status, headers, body = await self._looked(_PATIENCE)
            if status < 500 and status != 429:
                return read_models(headers, parse_json(body))
        return None
