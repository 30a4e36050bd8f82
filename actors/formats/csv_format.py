"""Reads CSV: one video per row; unknown columns are refused."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from actors.documents import Unreadable, json_or_text

if TYPE_CHECKING:
    from _csv import Reader

_COLUMNS = ("prompt", "duration", "seconds", "size", "model", "seed", "takes", "input_reference")
_SPELLINGS = {"inputreference": "input_reference"}
_GROUPS = ("params", "metadata", "files")
"""Columns such as `params.fps`: the member's name follows the dot."""
_KNOWN = f"{', '.join(_COLUMNS)}, params.NAME, metadata.NAME, files.NAME"


def read_csv(text: str) -> tuple[list[dict[str, Any]], list[int]]:
    """One video per row, and the line on which each begins; an empty cell counts as unset.

    Raises:
        Unreadable: it is not CSV, or has a column that means nothing.
    """
    first = text.lstrip("\r\n").split("\n", 1)[0]
    # Split at LF only: a CR in an unquoted cell is then an error, and does not end the prompt.
    lines = io.StringIO(text, newline="\n")
    rows = csv.reader(lines, delimiter=_delimiter(first), strict=True, skipinitialspace=True)
    try:
        numbered = list(_numbered(rows))
    except csv.Error as error:
        if "new-line character" in str(error):
            raise Unreadable(
                f"line {rows.line_num} contains a lone carriage return: "
                "end lines with LF or CRLF, and put text of several lines in double quotes"
            ) from None
        raise Unreadable(f"not CSV (line {rows.line_num}: {error}): fix the quotes") from None
    if not numbered:
        raise Unreadable("it has no columns: the first line must name them, including `prompt`")
    columns = _columns(*numbered[0])
    below = numbered[1:]
    return [_row(columns, number, row) for number, row in below], [number for number, _ in below]


def _numbered(rows: Reader) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not empty, and the line on which each begins: a cell in quotes may hold several."""
    begins = 1
    for row in rows:
        if any(cell.strip() for cell in row):
            yield begins, row
        begins = rows.line_num + 1


def looks_like_csv(line: str) -> bool:
    """Whether a line may be the first of a CSV file."""
    return "prompt" in _cells(line, _delimiter(line))


def _columns(line: int, header: list[str]) -> list[str]:
    """The field of each column; "" for one without a name."""
    if "prompt" not in (cell.strip().lower() for cell in header):
        named = ", ".join(repr(cell.strip()) for cell in header[:8])
        raise Unreadable(f"no `prompt` column: the first line must name the columns; it has {named}")
    columns = [_column(line, cell.strip()) for cell in header]
    doubled = next((name for name in columns if name and columns.count(name) > 1), None)
    if doubled:
        raise Unreadable(f"line {line}: there are two `{doubled}` columns: rename one")
    if "duration" in columns and "seconds" in columns:
        raise Unreadable(f"line {line}: the columns `duration` and `seconds` are the same field: remove one")
    return columns


def _column(line: int, name: str) -> str:
    folded = _SPELLINGS.get(name.lower(), name.lower())
    if not name or folded in _COLUMNS:
        return folded
    group, _, key = name.partition(".")
    if group.lower() in _GROUPS and key:
        return f"{group.lower()}.{key}"
    raise Unreadable(
        f"line {line}: unknown column {name!r}: {_meant(group, key)}to send it to the server, name it "
        f"params.{key or group}; to keep it as metadata, name it metadata.{key or group}; known columns: {_KNOWN}"
    )


def _meant(group: str, key: str) -> str:
    """The nearest known column, if any is near."""
    from actors.batch.field_errors import nearest

    near = nearest(group, _GROUPS if key else _COLUMNS)
    return f"did you mean {near}{'.' if key else ''}{key}? Otherwise: " if near else ""


def _row(columns: list[str], number: int, cells: list[str]) -> dict[str, Any]:
    if any(cell.strip() for cell in cells[len(columns) :]):
        raise Unreadable(
            f"line {number} has {len(cells)} cells for {len(columns)} columns: put text with commas in double quotes"
        )
    video: dict[str, Any] = {}
    for name, cell in zip(columns, map(str.strip, cells), strict=False):
        if not cell:
            continue
        if not name:
            raise Unreadable(f"line {number} has {cell!r} in a column without a name: name it in the first line")
        group, dot, key = name.partition(".")
        if dot:
            video.setdefault(group, {})[key] = _param(number, name, cell) if group == "params" else cell
        else:
            video[name] = cell
    return video


def _param(number: int, column: str, cell: str) -> Any:
    try:
        return json_or_text(cell, number)
    except Unreadable as error:
        raise Unreadable(f"line {number}, {column}: {error}") from None


def _cells(line: str, delimiter: str) -> list[str]:
    return [cell.strip().strip('"').lower() for cell in line.split(delimiter)]


def _delimiter(line: str) -> str:
    """A comma, or what spreadsheets write where the comma is the decimal separator."""
    return next((mark for mark in (",", ";", "\t") if "prompt" in _cells(line, mark) and mark in line), ",")
