"""Reads a JSON object that somebody else wrote: strictly, and however it is nested. Pure."""

from __future__ import annotations

import json
import math
from typing import Any

from actors.errors import FieldError

MAX_DEPTH = 64
_SHOWN_MAX = 80
_NESTING = (dict, list)
"""A union in its place is made anew for each value that is looked at."""


class Unparsable(Exception):
    """The text is no JSON object that can be read in one way only.

    Attributes:
        error: why, with a code: `not_utf8`, `not_json`, `number`, `duplicate_key`, `too_deep`, `not_object`.
    """

    def __init__(self, message: str, expected: str, code: str) -> None:
        super().__init__(message)
        self.error = FieldError("", message, expected, code)


def read_object(body: bytes) -> dict[str, Any]:
    """The JSON object in a body.

    Raises:
        Unparsable: there is none.
    """
    try:
        document = json.loads(
            body.decode(), object_pairs_hook=_object, parse_constant=_no_constant, parse_float=_finite
        )
    except UnicodeDecodeError as error:
        raise Unparsable(f"the body is not UTF-8 (byte {error.start})", "JSON in UTF-8", "not_utf8") from None
    except RecursionError:
        raise _too_deep() from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise Unparsable(f"the body is not JSON: {error.msg} ({place})", "a JSON object", "not_json") from None
    except ValueError:  # Python refuses to parse numbers of more than 4,300 digits
        raise Unparsable("the body contains a number that is too long", "shorter numbers", "number") from None
    if not isinstance(document, dict):
        raise Unparsable(f"the body is {shown(document)}", "a JSON object", "not_object")
    if is_nested_deeper(document, MAX_DEPTH):
        raise _too_deep()
    return document


def is_nested_deeper(document: Any, levels: int) -> bool:
    """Whether objects and lists are nested deeper than this. Does not recurse."""
    level = [document] if isinstance(document, _NESTING) else []
    for _ in range(levels):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, _NESTING)
        ]
        if not level:
            return False
    return True


def shown(value: Any) -> str:
    """A value from outside, short enough for a sentence."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    text = repr(value)
    return text if len(text) <= _SHOWN_MAX else f"{text[: _SHOWN_MAX - 3]}..."


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise Unparsable(f"the key {shown(twice)} appears twice in one object", "each key once", "duplicate_key")
    return document


def _no_constant(name: str) -> Any:
    raise Unparsable(f"{name} is not JSON", "finite numbers", "number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise Unparsable(f"the number {shown(text)} is too large", "finite numbers", "number")
    return number


def _too_deep() -> Unparsable:
    return Unparsable("the body is nested too deeply", f"at most {MAX_DEPTH} levels", "too_deep")
