"""Shared by the formats: the request before validation, and errors of unreadable files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from actors.documents import Unreadable

Locator = Callable[[Sequence[str]], int | None]
"""The line of a place in the request; None: it has none."""


class Request(dict[str, Any]):
    """The contents of a file, not validated yet."""

    source: str | None = None
    locate: Locator | None = None
    origins: Sequence[int] | None = None
    """For each video, the index of its source in the file; None: they are the same."""


def split_lines(text: str) -> list[str]:
    """Split at LF and CRLF only: a prompt may contain other line separators."""
    return [line.removesuffix("\r") for line in text.split("\n")]


def in_rows(lines: Sequence[int]) -> Locator:
    """A locator for a file with a row per video: `lines` says where each begins."""

    def locate(place: Sequence[str]) -> int | None:
        number = int(place[1]) if place[:1] == ["videos"] and len(place) > 1 else len(lines)
        return lines[number] if number < len(lines) else None

    return locate


def request_of(document: Any) -> Request:
    """A request from a whole request, a list of videos or prompts, or a single video."""
    if isinstance(document, dict):
        single = "prompt" in document and "videos" not in document
        request = Request(videos=[document]) if single else Request(document)
    elif isinstance(document, list):
        request = Request(videos=document)
    else:
        kind = type(document).__name__
        raise Unreadable(f"expected a batch (with `videos`) or a list of videos or prompts, not a single {kind}")
    if isinstance(request.get("videos"), list):
        request["videos"] = [{"prompt": video} if isinstance(video, str) else video for video in request["videos"]]
    return request
