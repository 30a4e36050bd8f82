"""Which server this is, as far as that can be known, and how that changes a request."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any

from actors.errors import SoraError
from actors.sora.exchange import VideoSpec
from actors.sora.wire import parse_json

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
