"""Reads JSON, and JSON Lines: one video a line."""

from __future__ import annotations

from typing import Any

from actors.documents import Doubled, Unreadable, load_json
from actors.formats.common import Request, in_rows, request_of, split_lines
from actors.formats.yaml_format import Places


def read_json(text: str) -> Request:
    """A request as JSON."""
    request = request_of(load_json(text))
    request.locate = Places(text)  # JSON is YAML, whose reader knows the line of everything
    return request


def read_json_lines(text: str) -> Request:
    """A request with one video, or prompt, a line."""
    videos, lines = [], []
    for number, line in enumerate(split_lines(text), 1):
        if not line.strip():
            continue
        video = load_json(line, number)
        if not isinstance(video, dict | str):
            raise Unreadable(f"line {number}: expected a video ({{...}}) or a prompt, not a single {_kind(video)}")
        videos.append({"prompt": video} if isinstance(video, str) else video)
        lines.append(number)
    request = Request(videos=videos)
    request.locate = in_rows(lines)
    return request


def _kind(value: Any) -> str:
    return type(value).__name__


def json_or_text(text: str, line: int = 1) -> Any:
    """A text as JSON if it parses, else as it is: `24` is a number, `film noir` a text.

    Args:
        text: of a cell, or an option.
        line: where it begins in its file.

    Raises:
        Unreadable: it has a duplicate key.
    """
    try:
        return load_json(text, line)
    except Unreadable as error:
        if isinstance(error, Doubled):
            raise
        return text
