"""Text and tables for people, and JSON: without control sequences; short, and in readable units, where shown."""

from __future__ import annotations

import json
import math
import os
import re
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import typer

from actors.errors import ErrorCode
from actors.logs import UNSAFE

if TYPE_CHECKING:
    from actors.batch.job_views import Job
    from actors.messages import Wait

_CONTROLS = re.compile(f"[{re.escape(''.join(map(chr, UNSAFE)))}]+")
_PIECE = re.compile(r"(\s*)(sora-batch [a-z](?:(?![.;,`](?: |$)| \().)*[.;,]?|\S+)")
"""A command with its options, or a word; and the space before it."""
_USUAL_WIDTH = 80
_LEAST, _LEAST_BESIDE = 8, 4
"""Columns below which a cell is not cut: to keep a row on one line, and at all."""
_GAP, _INDENT = "  ", "   "
_UNSAFE = {code: f"\\u{code:04x}" for code in UNSAFE if code >= 0x7F}  # json has escaped the others


def clean(text: object) -> str:
    """Any value as one line without control sequences."""
    return _CONTROLS.sub(" ", str(text)).strip()


def cells(text: str) -> int:
    """The width of a text in terminal columns: a Chinese character takes two, a combining accent none."""
    return sum(map(_cells, text))


def _cells(character: str) -> int:
    if character < "\u0300":  # quick for most
        return 1
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def shorten(text: str, width: int) -> str:
    """At most `width` columns of a cleaned line."""
    line = clean(text)
    if cells(line) <= width:
        return line
    kept, left = "", width - 1
    for character in line:
        left -= _cells(character)
        if left < 0:
            break
        kept += character
    return kept.rstrip() + "…"


def title(job: Job, width: int) -> str:
    """A video's prompt in at most `width` columns, with the number of its take unless it is the first."""
    take = f", take {job.take}" if job.take > 1 else ""
    return shorten(job.prompt, max(1, width - len(take))) + take


def fold(text: str, width: int, indent: str = "  ") -> str:
    """Lines of at most `width` columns, broken between words: never within a path, an id or a command to be copied."""
    lines: list[str] = []
    for line in text.split("\n"):
        lines.append("")
        for space, piece in _PIECE.findall(line):
            if lines[-1].strip() and cells(lines[-1] + space + piece) > width:
                lines.append(piece if cells(indent + piece) > width else indent + piece)
            else:
                lines[-1] += space + piece
    return "\n".join(lines)


def terminal_width(stream: TextIO) -> int | None:
    """Its columns; None: it is not a terminal, and its lines are not folded."""
    if not stream.isatty():
        return None
    try:
        columns = int(os.environ.get("COLUMNS", "0")) or os.get_terminal_size(stream.fileno()).columns
    except (ValueError, OSError):
        columns = 0
    return columns or _USUAL_WIDTH


def span(seconds: float) -> str:
    """`0:07`, `12:00`, `1:02:03`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def count(number: int, noun: str) -> str:
    """`1 video`, `2 videos`, `1 batch`, `2 batches`."""
    plural = noun + ("es" if noun.endswith("ch") else "s")
    return f"{number} {noun if number == 1 else plural}"


def reason(code: str, message: str) -> str:
    """Why a video failed: the code and the sentence. For a cancelled one the sentence: the state says the rest."""
    return message if code == ErrorCode.CANCELLED else f"{code}: {message}"


def shown_path(path: str | Path) -> str:
    """The path as typed here: relative if it is below the current folder."""
    try:
        return clean(Path(path).relative_to(Path.cwd()))
    except (ValueError, OSError):
        return clean(path)


def shown_place(path: object, uri: object) -> str:
    """Where a finished file is: its path as typed here; its address, if it is in no folder."""
    return shown_path(str(path)) if path else clean(uri)


def waiting(wait: Wait, now: float) -> str:
    """`rate limited; next try in 7 s`."""
    left = wait.until - now
    return f"{clean(wait.reason)}; next try in {math.ceil(left)} s" if 0 < left < math.inf else clean(wait.reason)


def print_json(document: Any) -> None:
    """One JSON document on standard output."""
    typer.echo(json_text(document))


def json_text(document: Any, indent: int | None = 2) -> str:
    """JSON without raw control characters; in ASCII unless standard output is UTF-8."""
    utf8 = (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf8")
    separators = (",", ":") if indent is None else None
    return json.dumps(document, indent=indent, separators=separators, ensure_ascii=not utf8).translate(_UNSAFE)


class Whole(str):
    """A cell to be copied: never broken, not even at spaces."""

    __slots__ = ()


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, cut: int | None = None, own_line: int | None = None
) -> None:
    """Aligned columns; complete where the output is no terminal.

    On a terminal that is too narrow, the column `cut` is shortened; then long cells of the column `own_line` (else the
    widest) get lines of their own. They are never broken within an id, a path or a command.
    """
    table = [[Whole(clean(cell)) if isinstance(cell, Whole) else clean(cell) for cell in row] for row in rows]
    head = [list(columns)] if columns else []
    lines = _lines([*head, *table], terminal_width(sys.stdout), cut, own_line) if table or head else []
    for number, line in enumerate(lines):
        bold = bool(columns) and number == 0 and sys.stdout.isatty()
        typer.echo(typer.style(line, bold=True) if bold else line)


def say(text: str) -> None:
    """Print sentences on standard output."""
    width = terminal_width(sys.stdout)
    typer.echo(text if width is None else fold(text, width))


def _lines(table: list[list[str]], width: int | None, cut: int | None, own_line: int | None) -> Iterator[str]:
    widths = [max(map(cells, column)) for column in zip(*table, strict=True)]
    over = sum(widths) + len(_GAP) * (len(widths) - 1) - (width or sys.maxsize)
    if over > 0 and cut is not None and widths[cut] - over >= _LEAST:
        widths[cut], over = widths[cut] - over, 0
    if over > 0:
        others = [number for number in range(len(widths)) if number != cut]
        own = max(others, key=widths.__getitem__) if own_line is None else own_line
        room = widths[own] - over
        if room < cells(table[0][own]) and cut is not None:  # not even its head
            widths[cut], room = max(_LEAST_BESIDE, min(widths[cut], widths[cut] + room - len(_INDENT))), 0
        widths[own] = max(0, room)
    for row in table:
        yield from _row(row, widths, width or sys.maxsize, cut)


def _row(row: Sequence[str], widths: Sequence[int], width: int, cut: int | None) -> Iterator[str]:
    """A row as lines: cells wider than their column get lines of their own."""
    shown = [shorten(cell, widths[number]) if number == cut else cell for number, cell in enumerate(row)]
    long = [number for number, cell in enumerate(shown) if cells(cell) > widths[number]]
    kept = ["" if number in long else cell + " " * (widths[number] - cells(cell)) for number, cell in enumerate(shown)]
    rest = _GAP.join(cell or " " * widths[number] for number, cell in enumerate(kept)).rstrip()
    if 0 in long:  # what names the row comes first
        yield from _own_lines(row[0], width, "")
        rest = _INDENT + rest.lstrip()
    if rest.strip():
        yield rest
    for number in long:
        if number:
            yield from _own_lines(row[number], width, _INDENT)


def _own_lines(cell: str, width: int, indent: str) -> list[str]:
    indent = indent if cells(indent + cell) <= width or not isinstance(cell, Whole) else ""
    return [indent + cell] if isinstance(cell, Whole) else fold(indent + cell, width, indent).split("\n")
