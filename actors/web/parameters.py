"""Parameters: what stands in the path, the query and the headers of a request, checked before anything is read."""

from __future__ import annotations

import re
from collections.abc import Collection
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

from aiohttp import web

from actors.batch.field_errors import all_of
from actors.batch.views import version_of
from actors.errors import FieldError, InvalidRequest, NotFound, UnknownBatch
from actors.expectations import ID_PATTERN

if TYPE_CHECKING:
    from actors.batch.views import Batch

S = TypeVar("S", bound=StrEnum)
MOST = 1000
"""The most that one page of a list has."""
_ID = re.compile(ID_PATTERN)
_KEY_MAX = 255
_TAG = re.compile(r'\s*(W/)?"([\x21\x23-\x7e\x80-\xff]*)"\s*(?:,|$)')


def batch_id_of(request: web.Request) -> str:
    """The id in the path.

    Raises:
        UnknownBatch: no batch can have it.
    """
    return checked_id(request.match_info["id"])


def checked_id(batch_id: str) -> str:
    """The same id.

    Raises:
        UnknownBatch: no batch can have it.
    """
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
        field = f"?{name}"
        if name not in known and not (prefix and name.startswith(prefix) and name != prefix):
            listed = ", ".join([*known, *([f"{prefix}KEY"] if prefix else [])])
            errors.append(FieldError(field, f"unknown query parameter {name!r}", f"one of {listed}", "extra_forbidden"))
        elif name in found:
            errors.append(FieldError(field, f"{name}: given twice", "each parameter once", "duplicate_key"))
        elif not is_text(name + value):
            errors.append(FieldError(field, "a query parameter is not valid text", "UTF-8 without NUL", "not_utf8"))
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
    number = number_in(given, len(str(most)))
    if number is None or not 1 <= number <= most:
        raise wrong_parameter(f"?{name}", given, f"a whole number from 1 to {most}", "range")
    return number


def one_of(query: dict[str, str], name: str, kind: type[S]) -> S | None:
    """The member of an enumeration that a parameter names; None: it is left out.

    Raises:
        InvalidRequest: there is none.
    """
    given = query.get(name)
    try:
        return None if given is None else kind(given)
    except ValueError:
        raise wrong_parameter(f"?{name}", given or "", f"one of {', '.join(kind)}", "enum") from None


def flag(query: dict[str, str], name: str) -> bool:
    """Whether a parameter is `true`; left out, it is `false`.

    Raises:
        InvalidRequest: it is something else.
    """
    given = query.get(name, "false")
    if given not in {"true", "false"}:
        raise wrong_parameter(f"?{name}", given, "true or false", "bool")
    return given == "true"


def index_of(request: web.Request) -> int:
    """The index of a job in the path, from 1.

    Raises:
        NotFound: no job can have it.
    """
    given = request.match_info["index"]
    number = number_in(given)
    if not number:
        raise NotFound(f"there is no job {given[:80]!r} in batch {batch_id_of(request)!r}: they are numbered from 1")
    return number


def place_of(query: dict[str, str], batch_id: str) -> int:
    """The index of the job that `after` names: an index, or a job's id; 0 if nothing is named.

    Raises:
        InvalidRequest: it is neither.
    """
    given = query.get("after", "0")
    number = number_in(given.removeprefix(f"{batch_id}-"))
    if number is None:
        raise wrong_parameter("?after", given, "the index or the id of a job of this batch", "value_error")
    return number


def number_of(request: web.Request, name: str) -> int | None:
    """A whole number in the query of a page; None: it is left out, or none."""
    return number_in(request.query.get(name, ""))


def number_in(text: str, digits: int = 9) -> int | None:
    """The whole number that is written in so many digits at most; None: it is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= digits else None


def is_text(text: str) -> bool:
    """Whether a database can look for it."""
    return "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)


def wrong_parameter(field: str, given: str, expected: str, code: str) -> InvalidRequest:
    """The error for a parameter that has another value than it may have. `field`: a header, or `?` and a name."""
    message = f"{field.removeprefix('?')}: must be {expected} (got {given[:80]!r})"
    return InvalidRequest(message, (FieldError(field, message, expected, code),))


def etag_of(batch: Batch, sequence: int) -> str:
    """The ETag of a batch after the event with this number."""
    removed = sum(job.video is not None and job.video.removed_at is not None for job in batch.jobs)
    return quoted(version_of(sequence, removed))


def quoted(version: str) -> str:
    """The ETag of a version."""
    return f'"{version}"'


def is_current(request: web.Request, version: str) -> bool:
    """Whether the client has this version of a batch already (`If-None-Match`)."""
    given = _header(request, "If-None-Match")
    if given is None:
        return False
    return given.strip() == "*" or version in {tag for _, tag in _TAG.findall(given)}


def expected_versions(request: web.Request) -> Collection[str] | None:
    """The versions that the request is meant for (`If-Match`); None: any. A weak tag names none."""
    given = _header(request, "If-Match")
    if given is None or given.strip() == "*":
        return None
    return {tag for weak, tag in _TAG.findall(given) if not weak}


def idempotency_key(request: web.Request) -> str | None:
    """The key of a POST: a structured-field string, or its characters without quotes.

    Raises:
        InvalidRequest: there are several, or it can't be one.
    """
    given = request.headers.getall("Idempotency-Key", [])
    if not given:
        return None
    key = given[0].strip()
    if len(key) > 1 and key[0] == key[-1] == '"':
        key = re.sub(r"\\(.)", r"\1", key[1:-1])
    if len(given) > 1 or not (0 < len(key) <= _KEY_MAX and key.isascii() and key.isprintable()):
        text = f"one key of 1 to {_KEY_MAX} printable ASCII characters"
        message = f"Idempotency-Key: must be {text}"
        raise InvalidRequest(message, (FieldError("Idempotency-Key", message, text, "value_error"),))
    return key


def _header(request: web.Request, name: str) -> str | None:
    given = request.headers.getall(name, [])
    return ", ".join(given) if given else None
