"""What the formats share: a request that is not validated yet, and what makes a file unreadable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Locator = Callable[[Sequence[str]], int | None]
"""The line in which a place of the request stands; None: it stands in none."""


class Unreadable(Exception):
    """What is wrong with a file, and the way out."""


class Request(dict[str, Any]):
    """What a file asks for, not validated yet."""

    source: str | None = None
    locate: Locator | None = None
    origins: Sequence[int] | None = None
    """For each video, which of the file's it was made of; None: they are the file's."""


def doubled(key: Any, first: int, second: int) -> Unreadable:
    """A key that stands twice in one object, in these lines."""
    where = f"line {first}" if second == first else f"lines {first} and {second}"
    return Unreadable(f"duplicate key {key!r} in one object ({where}): remove one, or start another object")


def too_deep() -> Unreadable:
    """Something is nested beyond what can be read."""
    return Unreadable("nested too deeply: write a list of videos")


def split_lines(text: str) -> list[str]:
    """LF or CRLF end a line, nothing else does: a prompt may hold what others take for the end of one."""
    return [line.removesuffix("\r") for line in text.split("\n")]


def in_rows(lines: Sequence[int]) -> Locator:
    """For a file in which each video has a row of its own: where each begins."""

    def locate(place: Sequence[str]) -> int | None:
        number = int(place[1]) if place[:1] == ["videos"] and len(place) > 1 else len(lines)
        return lines[number] if number < len(lines) else None

    return locate


def request_of(document: Any) -> Request:
    """A whole request; or the list of its videos; or a single video; or prompts."""
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
