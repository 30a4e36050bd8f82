"""Reads a batch in whichever format it is written, and says on which line an error is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import PurePath

from actors.documents import OtherFormat, Unreadable
from actors.errors import FieldError, InvalidRequest
from actors.formats.common import Request
from actors.formats.csv_format import read_csv
from actors.formats.json_format import read_json, read_json_lines
from actors.formats.text_format import read_text, sniff
from actors.formats.yaml_format import read_yaml

LINES = "lines"
"""The format of a text with one prompt per line."""
EXTENSIONS = {
    ".json": "JSON", ".yaml": "YAML", ".yml": "YAML", ".csv": "CSV", ".txt": LINES,
    ".jsonl": "JSON Lines", ".ndjson": "JSON Lines",
}  # fmt: skip
_READERS: dict[str, Callable[[str], Request]] = {
    "JSON": read_json, "YAML": read_yaml, "JSON Lines": read_json_lines, "CSV": read_csv, LINES: read_text,
}  # fmt: skip


def format_of(name: str | None, text: str) -> str:
    """The format that a file's name tells, or else its text. `name`: None, where there is none."""
    kind = None if name is None else EXTENSIONS.get(PurePath(name).suffix.lower())
    return kind or sniff(text)


def read_batch(text: str, kind: str) -> Request:
    """The request that a text holds, not validated yet.

    Raises:
        Unreadable: it can't be read in this format.
    """
    try:
        return _READERS[kind](text)
    except OtherFormat as error:
        raise Unreadable(f"{error}, or give the file the extension of its format") from None


def with_lines(error: InvalidRequest, request: Request) -> tuple[FieldError, ...]:
    """The errors of a request, with the lines of its text where they are."""
    return tuple(_in_line(entry, request) for entry in error.errors)


def _in_line(error: FieldError, request: Request) -> FieldError:
    place = [part.replace("~1", "/").replace("~0", "~") for part in error.field.split("/")[1:]]
    if place[:1] == ["videos"] and len(place) > 1 and request.origins is not None:
        place[1] = str(request.origins[int(place[1])])
    line = request.locate(place) if place and request.locate is not None else None
    return error if line is None else replace(error, message=f"{error.message} on line {line}")
