"""What stands in a URL: checked before anything is read."""

from __future__ import annotations

import re
from collections.abc import Collection
from enum import StrEnum
from typing import TypeVar

from aiohttp import web

from actors.batch.field_errors import all_of
from actors.errors import FieldError, InvalidRequest, NotFound, UnknownBatch
from actors.expectations import ID_PATTERN

S = TypeVar("S", bound=StrEnum)
MOST = 1000
"""The most that one page of a list has."""
_ID = re.compile(ID_PATTERN)
_DIGITS = 10
"""No index has so many."""


def batch_id_of(request: web.Request) -> str:
    """The id in the path.

    Raises:
        UnknownBatch: no batch can have it.
    """
    batch_id = request.match_info["id"]
    if not _ID.fullmatch(batch_id):
        raise UnknownBatch(batch_id)
    return batch_id


def query_of(request: web.Request, known: Collection[str], prefix: str | None = None) -> dict[str, str]:
    """The query's parameters, each given once.

    Args:
        request: the request.
        known: the parameters that it may have.
        prefix: what further ones begin with.

    Raises:
        InvalidRequest: it has others, one of them twice, or one that no database can look for.
    """
    found: dict[str, str] = {}
    errors = []
    for name, value in request.query.items():
        if name not in known and not (prefix and name.startswith(prefix) and name != prefix):
            listed = ", ".join([*known, *([f"{prefix}KEY"] if prefix else [])])
            errors.append(_wrong(name, f"unknown query parameter {name!r}", f"one of {listed}", "extra_forbidden"))
        elif name in found:
            errors.append(_wrong(name, f"{name}: given twice", "each parameter once", "duplicate_key"))
        elif "\0" in name + value or any("\ud800" <= letter <= "\udfff" for letter in name + value):
            errors.append(_wrong(name, "a query parameter is not valid text", "UTF-8 without NUL", "not_utf8"))
        found[name] = value
    if errors:
        raise all_of(errors)
    return found


def whole(query: dict[str, str], name: str, default: int, most: int) -> int:
    """A whole number from 1 to `most`.

    Raises:
        InvalidRequest: it is none.
    """
    given = query.get(name)
    if given is None:
        return default
    if not (given.isascii() and given.isdigit() and len(given) <= len(str(most)) and 1 <= int(given) <= most):
        raise wrong_parameter(name, given, f"a whole number from 1 to {most}", "range")
    return int(given)


def one_of(query: dict[str, str], name: str, kind: type[S]) -> S | None:
    """The member of an enumeration that a parameter names; None: it is left out.

    Raises:
        InvalidRequest: there is none.
    """
    given = query.get(name)
    try:
        return None if given is None else kind(given)
    except ValueError:
        raise wrong_parameter(name, given or "", f"one of {', '.join(kind)}", "enum") from None


def flag(query: dict[str, str], name: str) -> bool:
    """Whether a parameter is `true`; left out, it is `false`.

    Raises:
        InvalidRequest: it is something else.
    """
    given = query.get(name, "false")
    if given not in {"true", "false"}:
        raise wrong_parameter(name, given, "true or false", "bool")
    return given == "true"


def index_of(request: web.Request) -> int:
    """The index of a job in the path, from 1.

    Raises:
        NotFound: no job can have it.
    """
    given = request.match_info["index"]
    if not (given.isascii() and given.isdigit() and len(given) < _DIGITS and int(given) > 0):
        raise NotFound(f"there is no job {given[:80]!r} in batch {batch_id_of(request)!r}: they are numbered from 1")
    return int(given)


def place_of(query: dict[str, str], batch_id: str) -> int:
    """The index of the job that `after` names: an index, or a job's id; 0 if nothing is named.

    Raises:
        InvalidRequest: it is neither.
    """
    given = query.get("after", "0")
    number = given.removeprefix(f"{batch_id}-")
    if not (number.isascii() and number.isdigit() and len(number) < _DIGITS):
        raise wrong_parameter("after", given, "the index or the id of a job of this batch", "value_error")
    return int(number)


def wrong_parameter(name: str, given: str, expected: str, code: str) -> InvalidRequest:
    """The error for a parameter that has another value than it may have."""
    message = f"{name}: must be {expected} (got {given[:80]!r})"
    return InvalidRequest(message, (_wrong(name, message, expected, code),))


def _wrong(name: str, message: str, expected: str, code: str) -> FieldError:
    return FieldError(f"?{name}", message, expected, code)
