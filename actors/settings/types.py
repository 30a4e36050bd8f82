"""What a value of a setting may be: spans of time, lists of words, paths, text of one line."""

from __future__ import annotations

import unicodedata
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from actors.expectations import span_of


def _duration(value: Any) -> Any:
    length = span_of(value) if isinstance(value, str) else value
    if isinstance(length, timedelta):
        return length
    try:
        length = timedelta(milliseconds=float(value))
    except (OverflowError, TypeError, ValueError):
        raise ValueError("must be a duration (500ms, 90s, 5m, 12h, 30d) or a number of milliseconds") from None
    if length < timedelta(0):
        raise ValueError("must not be negative")
    return length


def _words(value: Any) -> Any:
    return tuple(word.strip() for word in value.split(",") if word.strip()) if isinstance(value, str) else value


def at_home(path: str) -> str:
    """A path with `~` expanded: in `.env` and in containers no shell has done so."""
    if path.startswith("$"):
        raise ValueError("$ is not expanded here: use ~ for the home folder, ${NAME} in .env, or the full path")
    try:
        return str(Path(path).expanduser()) if path.startswith("~") else path
    except RuntimeError:
        raise ValueError(f"{path.partition('/')[0]} has no home folder: use the full path") from None


def without_control_characters(value: str) -> str:
    """The text itself: one that would break a header or a line is refused."""
    # A lone surrogate stands for a byte that is not UTF-8.
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in value):
        raise ValueError("contains a line break or another control character: remove it")
    return value


Milliseconds = Annotated[timedelta, BeforeValidator(_duration)]
Positive = Annotated[Milliseconds, Field(gt=timedelta(0))]
Words = Annotated[tuple[str, ...], BeforeValidator(_words)]
