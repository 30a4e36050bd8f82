"""Reads JSON, and JSON Lines: one video a line."""

from __future__ import annotations

import json
import re
from typing import Any

from actors.cli.formats.common import Request, Unreadable, doubled, in_rows, request_of, split_lines, too_deep
from actors.cli.formats.yaml_format import Places

_PART = re.compile(r'"((?:[^"\\]|\\.)*)"(\s*:)?|[{}]', re.DOTALL)


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


def load_json(text: str, first_line: int = 1) -> Any:
    """A JSON value without duplicate keys; `first_line`: its number in the file.

    Raises:
        Unreadable: it is not JSON.
    """
    try:
        document = json.loads(text, parse_constant=_refuse)
        _refuse_doubled_keys(text, first_line)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno + first_line - 1}, column {error.colno}"
        raise Unreadable(
            f"not JSON ({place}: {error.msg}): fix it, or give the file the extension of its format"
        ) from None
    except RecursionError:
        raise too_deep() from None
    except ValueError:
        raise Unreadable("a number has too many digits: shorten it") from None
    return document


def json_or_text(text: str) -> Any:
    """A text as JSON if it parses, else as it is: `24` is a number, `film noir` a text.

    Raises:
        Unreadable: it has a duplicate key.
    """
    try:
        return load_json(text)
    except Unreadable as error:
        if isinstance(error, _Doubled):
            raise
        return text


class _Doubled(Unreadable):
    """It is JSON, but for a duplicate key."""


def _refuse(constant: str) -> None:
    raise Unreadable(f"{constant} is not a JSON value: write a number or null")


def _refuse_doubled_keys(text: str, first_line: int) -> None:
    """Refuse a duplicate key in an object of valid JSON: the parser would keep only the last."""
    objects: list[dict[str, int]] = []
    for part in _PART.finditer(text):
        if part[0] == "{":
            objects.append({})
        elif part[0] == "}":
            objects.pop()
        elif part[2]:
            key = json.loads(f'"{part[1]}"')
            first = objects[-1].setdefault(key, part.start())
            if first != part.start():
                lines = [text.count("\n", 0, place) + first_line for place in (first, part.start())]
                raise _Doubled(str(doubled(key, *lines)))
