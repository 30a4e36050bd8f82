"""Which server it is, as far as it can be known, and what to do about what it says."""

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
"""Seconds: a create waits meanwhile, and has to leave 2 s after its intent."""
_PAUSE = 10.0
"""Seconds for which a server that took so long is not asked again: creates that wait in turn would never leave."""


class Server(Enum):
    """A program that speaks the Videos API in a way of its own."""

    LITELLM = "LiteLLM's proxy"
    SGLANG = "SGLang"
    VLLM_OMNI = "vLLM-Omni"
    DYNAMO = "Dynamo"
    OPENAI = "OpenAI's own API"


_OWNERS = {"sglang": Server.SGLANG, "vllm": Server.VLLM_OMNI, "nvidia": Server.DYNAMO}
_OPENAI_MODEL = "sora-2"
_DROPS_FILE_IDS = frozenset({Server.VLLM_OMNI, Server.SGLANG})
"""They keep no files that could be named, and make the video without the picture."""


@dataclass(frozen=True, slots=True)
class Models:
    """What a server's listing of models tells."""

    server: Server | None
    """None: that can't be told."""
    names: tuple[str, ...]


def read_models(headers: Mapping[str, str], document: Any) -> Models:
    """Read an answer to GET /models, whatever it is."""
    data = document.get("data") if isinstance(document, dict) else None
    listed = [each for each in data if isinstance(each, dict)] if isinstance(data, list) else []
    names = tuple(each["id"] for each in listed if isinstance(each.get("id"), str))
    if "x-litellm-version" in map(str.lower, headers):
        return Models(Server.LITELLM, names)
    owners = (_OWNERS.get(str(each.get("owned_by")).lower()) for each in listed)
    return Models(next(filter(None, owners), Server.OPENAI if _OPENAI_MODEL in names else None), names)


def why_not_sent(server: Server, spec: VideoSpec, request_format: str) -> str | None:
    """Why a server would not make the video that is asked for, although it takes the request; None: it would."""
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
    """Asks a server once which one it is, when a request must be written in its way."""

    def __init__(self, look: Look) -> None:
        """`look`: sends a GET, given the seconds that an answer may take, the route and its query."""
        self._look = look
        self._known: Models | None = None
        self._asking = asyncio.Lock()
        self._asked_again = -math.inf
        """When a server that gave no answer in time is asked again, by `time.monotonic()`."""

    async def models(self, seconds: float) -> Models:
        """What the server's listing of models tells.

        Raises:
            SoraError: there was no answer.
        """
        _, headers, body = await self._looked(seconds)
        return read_models(headers, parse_json(body))

    async def _looked(self, seconds: float) -> tuple[int, Mapping[str, str], bytes]:
        """The answer about models. Only of videos LiteLLM's proxy answers with its own headers: they stand beside."""
        listed, videos = await asyncio.gather(
            self._look(seconds, "/models", ""), self._look(seconds, "/videos", "limit=1"), return_exceptions=True
        )
        of_videos = videos[1] if isinstance(videos, tuple) else {}
        if isinstance(listed, BaseException):
            raise listed
        status, headers, body = listed
        return status, {**of_videos, **headers}, body

    async def server_for(self, spec: VideoSpec, request_format: str) -> Server | None:
        """Which server it is, where that decides how a video is asked for; None: it does not, or is not known."""
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
        """What the server tells now; None: nothing, or that it can't tell yet."""
        with suppress(SoraError):
            status, headers, body = await self._looked(_PATIENCE)
            if status < 500 and status != 429:
                return read_models(headers, parse_json(body))
        return None
