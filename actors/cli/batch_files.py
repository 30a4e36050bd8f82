"""Reads a batch as people write it down: JSON, YAML, CSV, or one prompt a line.

Owns the formats, and saying what is wrong with a file. What a request may hold, `actors.model` says.
"""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from actors.errors import InvalidRequest

STDIN = "-"
_MOST_VALUES = 1_000_000
_COLUMNS = {"prompt": "prompt", "duration": "duration", "size": "size", "model": "model"} | dict.fromkeys(
    ("input_reference", "inputreference"), "input_reference"
)
_FORMATS = {".json": "JSON", ".yaml": "YAML", ".yml": "YAML", ".csv": "CSV", ".txt": "lines"}
_REQUEST_KEY = re.compile(
    r"\s*[\"']?(videos|prompt|batch_?name|metadata|id|concurrency|timeout_?ms)[\"']?\s*:", re.IGNORECASE
)

Request = dict[str, Any]


def read_request(source: str | None, prompts: Iterable[str] = ()) -> Request:
    """The request that a file (or `-`, standard input) holds, followed by one video for each of `prompts`.

    Raises:
        InvalidRequest: it can't be read; the text names the file, what is wrong and the way out.
    """
    request: Request = {"videos": []} if source is None else _read(source)
    more = [{"prompt": prompt} for prompt in prompts]
    if more and isinstance(request.get("videos"), list):
        request["videos"] += more
    if not request.get("videos", True):
        raise InvalidRequest(
            f"{_name(source)} holds no video: write at least one prompt"
            if source is not None
            else "nothing to make: name a batch file, - for standard input, or a prompt with -p"
        )
    return request


def complete(request: Request, defaults: dict[str, Any]) -> None:
    """Give the videos what they do not say themselves."""
    given = {key: value for key, value in defaults.items() if value is not None}
    videos = request.get("videos")
    if given and isinstance(videos, list):
        request["videos"] = [given | video if isinstance(video, dict) else video for video in videos]


def override(request: Request, given: dict[str, Any], metadata: dict[str, str]) -> None:
    """Let what was given besides the file count more than what the file says of the batch."""
    if given["batch_name"] is not None:
        request.pop("batchName", None)
    request |= {key: value for key, value in given.items() if value is not None}
    if metadata and isinstance(request.setdefault("metadata", {}), dict):
        request["metadata"] = request["metadata"] | metadata


def located(error: InvalidRequest, source: str | None) -> InvalidRequest:
    """Say in which file it is."""
    if source is None:
        return error
    place = "standard input" if source == "-" else source
    return InvalidRequest(f"{place}: {error.message}", error.errors)


def _read(source: str) -> Request:
    text = _text(source)
    if not text.strip():
        raise InvalidRequest(f"{_name(source)} is empty: write at least one prompt into it")
    kind = _FORMATS.get(Path(source).suffix.lower()) if source != STDIN else None
    try:
        return _READERS[kind or sniff(text)](text)
    except _Unreadable as error:
        raise InvalidRequest(f"{_name(source)}: {error}") from None


def _name(source: str | None) -> str:
    return "standard input" if source == STDIN else f"the batch file {source!r}"


def _text(source: str) -> str:
    try:
        data = sys.stdin.buffer.read() if source == STDIN else Path(source).read_bytes()
    except FileNotFoundError:
        raise InvalidRequest(f"{_name(source)} is not there: check its name, or give a prompt with -p") from None
    except IsADirectoryError:
        raise InvalidRequest(f"{_name(source)} is a folder: name a file in it") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidRequest(f"{_name(source)} can't be read: {reason}; check the file and its permissions") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        offset = error.start + (3 if data.startswith(b"\xef\xbb\xbf") else 0)
        raise InvalidRequest(
            f"{_name(source)} is not UTF-8 (the byte 0x{data[offset]:02x} at offset {offset}): save it as UTF-8"
        ) from None


class _Unreadable(Exception):
    """What is wrong, and the way out."""


_TOO_MUCH = _Unreadable(f"its aliases stand for more than {_MOST_VALUES} values: write out what you mean")


def sniff(text: str) -> str:
    """Which format a text without a telling name has."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    first = lines[0] if lines else ""
    if first.lstrip().startswith(("{", "[")):
        return "JSON"
    if first.strip() == "---" or _REQUEST_KEY.match(first) or all(line.startswith(("- ", "  ")) for line in lines):
        return "YAML"
    return "CSV" if "prompt" in _cells(first, _delimiter(first)) else "lines"


def _json(text: str) -> Request:
    def refuse(constant: str) -> None:
        raise _Unreadable(f"{constant} is no JSON value: write a number, or null")

    try:
        return _request(json.loads(text, parse_constant=refuse))
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise _Unreadable(f"not JSON ({place}: {error.msg}): mend it, or name the file for what it is") from None
    except RecursionError:
        raise _Unreadable("nested too deeply to be read: write a list of videos") from None
    except ValueError:
        raise _Unreadable("a number in it has too many digits: shorten it") from None


def _yaml(text: str) -> Request:
    import yaml

    class Loader(yaml.SafeLoader):
        """YAML's plain values without its dates, which JSON has not."""

        def flatten_mapping(self, node: yaml.MappingNode) -> None:
            """Merge what `<<` names: each level may hold the one below many times."""
            super().flatten_mapping(node)
            if len(node.value) > _MOST_VALUES:
                raise _TOO_MUCH

    Loader.yaml_implicit_resolvers = {
        first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:timestamp"]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    try:
        document = yaml.load(text, Loader)  # noqa: S506  (a SafeLoader)
        _check_size(document)
        return _request(document)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise _Unreadable(f"not YAML ({place}{error.problem}): mend it, or name the file for what it is") from None
    except yaml.YAMLError as error:
        raise _Unreadable(f"not YAML ({' '.join(str(error).split())}): mend it") from None
    except RecursionError:
        raise _Unreadable("nested too deeply to be read: write a list of videos") from None
    except (ValueError, TypeError) as error:
        raise _Unreadable(f"a value in it can't be read ({error}): mend it, or put it in quotes") from None


def _check_size(document: Any) -> None:
    """Count what a document holds with every alias written out: a few lines of YAML may stand for billions."""
    count, rest = 0, [document]
    while rest:
        inner = rest.pop()
        count += 1
        if count > _MOST_VALUES:
            raise _TOO_MUCH
        if isinstance(inner, dict | list | tuple):
            rest += inner.values() if isinstance(inner, dict) else inner


def _request(document: Any) -> Request:
    """A request as in 6.1; or the list of its videos; or a single video; or prompts."""
    if isinstance(document, dict):
        request = {"videos": [document]} if "prompt" in document and "videos" not in document else dict(document)
    elif isinstance(document, list):
        request = {"videos": document}
    else:
        kind = type(document).__name__
        raise _Unreadable(f"expected a batch (with `videos`) or a list of videos or prompts, not a single {kind}")
    if isinstance(request.get("videos"), list):
        request["videos"] = [{"prompt": video} if isinstance(video, str) else video for video in request["videos"]]
    return request


def _csv(text: str) -> Request:
    first = text.lstrip("\r\n").split("\n", 1)[0]
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(first), strict=True, skipinitialspace=True)
    try:
        numbered = [(rows.line_num, row) for row in rows if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise _Unreadable(f"not CSV (line {rows.line_num}: {error}): mend the quotes") from None
    header = [cell.strip() for cell in numbered[0][1]]
    columns = [_COLUMNS.get(name.lower(), name) for name in header]
    if "prompt" not in columns:
        named = ", ".join(map(repr, header[:8]))
        raise _Unreadable(f"there is no `prompt` column: its first line must name the columns, and has {named}")
    doubled = next((name for name in columns if name and columns.count(name) > 1), None)
    if doubled:
        raise _Unreadable(f"there are two `{doubled}` columns: rename one")
    return {"videos": [_row(columns, number, row) for number, row in numbered[1:]]}


def _row(columns: list[str], number: int, cells: list[str]) -> dict[str, Any]:
    if any(cell.strip() for cell in cells[len(columns) :]):
        raise _Unreadable(
            f"line {number} has {len(cells)} cells for {len(columns)} columns: put text with commas in double quotes"
        )
    known = set(_COLUMNS.values())
    filled = {name: cell.strip() for name, cell in zip(columns, cells, strict=False) if name and cell.strip()}
    video: dict[str, Any] = {"prompt": ""} | {name: cell for name, cell in filled.items() if name in known}
    metadata = {name: cell for name, cell in filled.items() if name not in known}
    return video | ({"metadata": metadata} if metadata else {})


def _cells(line: str, delimiter: str) -> list[str]:
    return [cell.strip().strip('"').lower() for cell in line.split(delimiter)]


def _delimiter(line: str) -> str:
    """A comma; or what spreadsheets write instead where the comma is in numbers."""
    return next((mark for mark in (",", ";", "\t") if "prompt" in _cells(line, mark) and mark in line), ",")


def _lines(text: str) -> Request:
    prompts = [line.strip() for line in text.splitlines()]
    return {"videos": [{"prompt": prompt} for prompt in prompts if prompt and not prompt.startswith("#")]}


_READERS: dict[str, Callable[[str], Request]] = {"JSON": _json, "YAML": _yaml, "CSV": _csv, "lines": _lines}
