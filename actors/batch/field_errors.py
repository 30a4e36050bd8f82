"""Errors of a request: one sentence per field, with its place, the value and the nearest known field."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import ValidationError

from actors.batch.fields import BATCH_FIELDS, VIDEO_FIELDS
from actors.errors import FieldError, InvalidRequest
from actors.expectations import expectation

_SHOWN_MAX = 80
_ERRORS_MAX = 1000
_BRANCHES = {"FileId", "constrained-str", "str", "[key]", "literal['random']", "int"}
_FREE = ("metadata", "params")
"""Below these are the caller's keys, mixed with the names of pydantic's branches."""


def invalid(error: ValidationError, *within: str) -> InvalidRequest:
    """Turn pydantic's report into one sentence per field, and the list for the answers to commands.

    `within`: the place of the validated part in the request.
    """
    if error.error_count() > _ERRORS_MAX:  # listing them would cost far more than checking them
        return InvalidRequest(f"{error.error_count()} fields are invalid, too many to list")
    return all_of(_field_error({**entry, "loc": (*within, *entry["loc"])}) for entry in error.errors(include_url=False))


def all_of(errors: Iterable[FieldError]) -> InvalidRequest:
    """The error of a request with these field errors; its sentence has the first five."""
    listed = tuple(errors)
    return InvalidRequest("; ".join(entry.message for entry in listed[:5]), listed)


def wrong_field(place: Sequence[str], expected: str, value: Any = None, code: str = "value_error") -> FieldError:
    """The error of the field at a place; `value`: its value, if that helps."""
    got = "" if value is None else f" (got {_shown(value)})"
    return FieldError(pointer(place), f"{dotted(place) or 'the request'}: {expected}{got}", expected, code)


def _field_error(entry: dict[str, Any]) -> FieldError:
    # pydantic adds the name of a union's branch to the place, which the caller never wrote.
    unknown = entry["loc"][-1:] if entry["type"] == "extra_forbidden" else ()  # the caller's, whatever its name
    branches = entry["loc"][: len(entry["loc"]) - len(unknown)]
    place = [str(part) for part in branches if part not in _BRANCHES and not str(part).startswith("function-")]
    place += map(str, unknown)
    free = next((place.index(name) for name in _FREE if name in place), None)
    if free is not None:
        del place[free + 1 :]
    expected = expectation(entry)
    if entry["type"] == "extra_forbidden":
        expected += _advice(place)
    elif entry["type"] == "given_twice":
        place.append(entry["ctx"]["field"])
        return wrong_field(place, expected, code=entry["type"])
    elif entry["type"] == "invalid_key" or (entry["type"] == "string_type" and entry["loc"][-1] == "[key]"):
        expected = "names must be strings: put it in quotes"
    value = None if entry["type"] == "missing" else entry["input"]
    error = wrong_field(place, expected, code=entry["type"])
    if entry["type"] == "missing":
        return error
    return FieldError(error.field, f"{error.message} (got {_shown(value)})", expected, error.code)


def _advice(place: Sequence[str]) -> str:
    """The way out of an unknown field: the nearest known field, or where server-specific fields go."""
    of_video = bool({"videos", "defaults", "changes"} & set(place[:-1]))
    if len(place) > 1 and not of_video:
        return ""
    if of_video and place[-1] in BATCH_FIELDS:
        return "; it is a field of the batch: put it next to videos"
    near = nearest(place[-1], VIDEO_FIELDS if of_video else BATCH_FIELDS)
    if near is not None:
        return f"; did you mean {near}?"
    if of_video:
        return f'; put a server-specific field into params: {{"{place[-1]}": ...}}'
    return "; it is a field of a video: put it into videos or defaults" if place[-1] in VIDEO_FIELDS else ""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name closest to a misspelt one, if any is close."""
    found = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=0.7)
    return found[0] if found else None


def pointer(place: Sequence[str]) -> str:
    """A place in a request as a JSON Pointer."""
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in place)


def dotted(place: Sequence[str]) -> str:
    """A place in a request as a person would write it."""
    return "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in place).removeprefix(".")


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except RecursionError:
        text = "a value nested too deeply"
    except ValueError:  # Python does not write numbers of more than 4,300 digits
        text = "a number too long to show"
    return text if len(text) <= _SHOWN_MAX else f"{text[: _SHOWN_MAX - 3]}..."
