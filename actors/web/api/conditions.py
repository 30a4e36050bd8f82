"""Conditional requests (RFC 9110): ETags of batches, `If-Match`, `If-None-Match`; and `Idempotency-Key`."""

from __future__ import annotations

import re
from collections.abc import Collection

from aiohttp import web

from actors.errors import FieldError, InvalidRequest

SOURCE = "/sora-batch/http"
"""In the inbox: whose ids the keys are."""
_KEY_MAX = 255
_TAG = re.compile(r'\s*(W/)?"([\x21\x23-\x7e\x80-\xff]*)"\s*(?:,|$)')
_NUMBER = re.compile(r"[0-9]{1,18}")


def etag_of(sequence: int) -> str:
    """The ETag of a batch after the event with this number."""
    return f'"{sequence}"'


def is_current(request: web.Request, sequence: int) -> bool:
    """Whether the client has this state of a batch already (`If-None-Match`)."""
    given = _header(request, "If-None-Match")
    if given is None:
        return False
    return given.strip() == "*" or str(sequence) in {tag for _, tag in _TAG.findall(given)}


def expected(request: web.Request) -> Collection[int] | None:
    """The sequence numbers that a batch may have for this write (`If-Match`); None: any.

    A tag that is weak or is not one of ours names no state.
    """
    given = _header(request, "If-Match")
    if given is None or given.strip() == "*":
        return None
    return {int(tag) for weak, tag in _TAG.findall(given) if not weak and _NUMBER.fullmatch(tag)}


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
