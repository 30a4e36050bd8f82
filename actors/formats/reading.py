"""Reads a batch in whichever format it is written, and says on which line an error is."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Any

from actors.documents import OtherFormat, Unreadable, load_json, load_yaml, without_collections, yaml_base
from actors.errors import FieldError, InvalidRequest
from actors.formats.csv_format import looks_like_csv, read_csv

LINES = "lines"
"""The format of a text with one prompt per line."""
EXTENSIONS = {
    ".json": "JSON", ".yaml": "YAML", ".yml": "YAML", ".csv": "CSV", ".txt": LINES,
    ".jsonl": "JSON Lines", ".ndjson": "JSON Lines",
}  # fmt: skip
_REQUEST_KEY = re.compile(
    r"\s*[\"']?(videos|defaults|matrix|budget|prompt|batch_?name|metadata|id|concurrency|timeout_?ms)[\"']?\s*:",
    re.IGNORECASE,
)
_Locator = Callable[[Sequence[str]], int | None]
"""The line of a place in the request; None: it has none."""


class Request(dict[str, Any]):
    """The contents of a file, not validated yet."""

    source: str | None = None
    locate: _Locator | None = None
    origins: Sequence[int] | None = None
    """For each video, the index of its source in the file; None: they are the same."""


def format_of(name: str | None, text: str) -> str:
    """The format that a file's name tells, or else its text. `name`: None, where there is none."""
    kind = None if name is None else EXTENSIONS.get(PurePath(name).suffix.lower())
    return kind or sniff(text)


def sniff(text: str) -> str:
    """The format of a text whose name does not tell it."""
    lines = [line for line in _split_lines(text) if line.strip() and not _is_comment(line)]
    first = lines[0] if lines else ""
    if first.lstrip().startswith(("{", "[")):
        return "JSON Lines" if len(lines) > 1 and _is_object(first) else "JSON"
    if first.strip() == "---" or _REQUEST_KEY.match(first) or all(line.startswith(("- ", "  ")) for line in lines):
        return "YAML"
    return "CSV" if looks_like_csv(first) else LINES


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def read_batch(text: str, kind: str) -> Request:
    """The request that a text holds, not validated yet.

    Raises:
        Unreadable: it can't be read in this format.
    """
    try:
        if kind in ("JSON", "YAML"):
            request = _request_of(load_json(text) if kind == "JSON" else load_yaml(text))
            request.locate = _Places(text)  # JSON is YAML, whose reader knows the line of everything
            return request
        read = {"CSV": read_csv, "JSON Lines": _read_json_lines, LINES: _read_prompts}[kind]
        videos, lines = read(text)
    except OtherFormat as error:
        raise Unreadable(f"{error}, or give the file the extension of its format") from None
    request = Request(videos=videos)
    request.locate = _in_rows(lines)
    return request


def _request_of(document: Any) -> Request:
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


def _read_json_lines(text: str) -> tuple[list[dict[str, Any]], list[int]]:
    """The videos of a text with one video, or prompt, a line; and the line of each."""
    videos, lines = [], []
    for number, line in enumerate(_split_lines(text), 1):
        if not line.strip():
            continue
        video = load_json(line, number)
        if not isinstance(video, dict | str):
            kind = type(video).__name__
            raise Unreadable(f"line {number}: expected a video ({{...}}) or a prompt, not a single {kind}")
        videos.append({"prompt": video} if isinstance(video, str) else video)
        lines.append(number)
    return videos, lines


def _read_prompts(text: str) -> tuple[list[dict[str, Any]], list[int]]:
    """The videos of a text with one prompt per line, and the line of each."""
    numbered = enumerate(map(str.strip, _split_lines(text)), 1)
    prompts = {number: line for number, line in numbered if line and not _is_comment(line)}
    return [{"prompt": line[line.startswith("\\#") :]} for line in prompts.values()], list(prompts)


def comments_in(text: str) -> int:
    """How many lines of a text with one prompt per line are comments."""
    return sum(map(_is_comment, _split_lines(text)))


def _is_comment(line: str) -> bool:
    return line.lstrip().startswith("#")


def _split_lines(text: str) -> list[str]:
    """Split at LF and CRLF only: a prompt may contain other line separators."""
    return [line.removesuffix("\r") for line in text.split("\n")]


def with_lines(error: InvalidRequest, request: Request) -> tuple[FieldError, ...]:
    """The errors of a request, with the lines of its text where they are."""
    return tuple(_in_line(entry, request) for entry in error.errors)


def _in_line(error: FieldError, request: Request) -> FieldError:
    place = [part.replace("~1", "/").replace("~0", "~") for part in error.field.split("/")[1:]]
    if place[:1] == ["videos"] and len(place) > 1 and request.origins is not None:
        place[1] = str(request.origins[int(place[1])])
    line = request.locate(place) if place and request.locate is not None else None
    return error if line is None else replace(error, message=f"{error.message} on line {line}")


def _in_rows(lines: Sequence[int]) -> _Locator:
    """A locator for a file with a row per video: `lines` says where each begins."""

    def locate(place: Sequence[str]) -> int | None:
        number = int(place[1]) if place[:1] == ["videos"] and len(place) > 1 else len(lines)
        return lines[number] if number < len(lines) else None

    return locate


class _Places:
    """The lines of a request's fields in its YAML or JSON text."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __call__(self, place: Sequence[str]) -> int | None:
        """The line of a place; for a missing one, of its object. None: the text has no such video."""
        node, rest, line = self._root, list(place), None
        if rest[:1] == ["videos"] and _is_list(node):
            rest = rest[1:]
        elif rest[:1] == ["videos"] and _member(node, "videos") is None:  # a single video
            if rest[1:2] != ["0"]:
                return None
            rest = rest[2:]
        for part in rest:
            if _is_list(node):
                if int(part) >= len(node.value):
                    return None
                node = node.value[int(part)]
                line = node.start_mark.line + 1
            else:
                pair = _member(node, part)
                if pair is None:
                    break
                line, node = pair[0].start_mark.line + 1, pair[1]
        return line

    @functools.cached_property
    def _root(self) -> Any:
        import yaml

        try:
            with without_collections():
                return yaml.compose(self._text, yaml_base())
        except (yaml.YAMLError, RecursionError):  # JSON that is not YAML after all
            return None


def _is_list(node: Any) -> bool:
    return node is not None and node.id == "sequence"


def _member(node: Any, name: str) -> tuple[Any, Any] | None:
    """The member of a mapping by its name, in either spelling."""
    plain = name.replace("_", "").lower()
    pairs = node.value if node is not None and node.id == "mapping" else []
    members = {key.value: (key, value) for key, value in reversed(pairs) if key.id == "scalar"}
    return members.get(name) or next((each for key, each in members.items() if key.lower() == plain), None)
