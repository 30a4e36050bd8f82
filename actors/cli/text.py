"""Text for people: cleaned of what could steer a terminal, short, and in their units."""

from __future__ import annotations

import os
import re
import unicodedata
from datetime import timedelta
from pathlib import Path
from typing import TextIO

from actors.errors import ErrorCode, InvalidRequest
from actors.expectations import span_of
from actors.logs import UNSAFE

SLUG_CHARACTERS = 60
SLUG_BYTES = 180
"""File systems take 255 bytes a name; the number and the extension need some."""

_CONTROLS = re.compile(f"[{re.escape(''.join(map(chr, UNSAFE)))}]+")
_PIECE = re.compile(r"(\s*)(sora-batch [a-z](?:(?![.;,`](?: |$)| \().)*[.;,]?|\S+)")
"""A command with its options, or a word; and the space before it."""
_USUAL_WIDTH = 80


def clean(text: object) -> str:
    """One line without control sequences, whatever it was."""
    return _CONTROLS.sub(" ", str(text)).strip()


def cells(text: str) -> int:
    """How many columns of a terminal a text takes: a Chinese character takes two, an accent of its own none."""
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
    """Its columns; None: it is no terminal, and its lines are not folded."""
    if not stream.isatty():
        return None
    try:
        columns = int(os.environ.get("COLUMNS", "0")) or os.get_terminal_size(stream.fileno()).columns
    except (ValueError, OSError):
        columns = 0
    return columns or _USUAL_WIDTH


def slug(text: str) -> str:
    """A file name's readable part: letters and digits of any script that file names have here, joined by `-`."""
    kept = "".join(
        character if unicodedata.category(character)[0] in "LMN" and _in_file_names(character) else "-"
        for character in unicodedata.normalize("NFC", text.lower())
    )
    return _cut(re.sub("-+", "-", kept).strip("-")) or "video"


def _in_file_names(character: str) -> bool:
    try:
        os.fsencode(character)
    except UnicodeEncodeError:  # the locale's encoding lacks it
        return False
    return True


def _cut(name: str) -> str:
    short = name[:SLUG_CHARACTERS].encode()[:SLUG_BYTES].decode(errors="ignore")
    if len(short) < len(name) and name[len(short)] != "-" and "-" in short[SLUG_CHARACTERS // 2 :]:
        short = short[: short.rindex("-")]
    return short.strip("-")


def span(seconds: float) -> str:
    """`0:07`, `12:00`, `1:02:03`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def parse_span(text: str) -> timedelta:
    """Read `30d`, `12h`, `90m`, `45s` or `2w`.

    Raises:
        InvalidRequest: it is none of them.
    """
    found = span_of(text)
    if found is None:
        raise InvalidRequest(f"{text!r} is not a span of time: write a number and s, m, h, d or w, such as 30d")
    return found


def count(number: int, noun: str) -> str:
    """`1 video`, `2 videos`, `1 batch`, `2 batches`."""
    plural = noun + ("es" if noun.endswith("ch") else "s")
    return f"{number} {noun if number == 1 else plural}"


def reason(code: str, message: str) -> str:
    """Why a video failed: the code and the sentence. That it was cancelled, its state says already."""
    return message if code == ErrorCode.CANCELLED else f"{code}: {message}"


def shown_path(path: str | Path) -> str:
    """The path as one would type it here: relative where it lies below the current folder."""
    try:
        return clean(Path(path).relative_to(Path.cwd()))
    except (ValueError, OSError):
        return clean(path)
