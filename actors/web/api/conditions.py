"""Conditional requests (RFC 9110): ETags of batches, `If-Match`, `If-None-Match`; and `Idempotency-Key`."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import TYPE_CHECKING

from aiohttp import web

from actors.batch.views import version_of
from actors.errors import FieldError, InvalidRequest

if TYPE_CHECKING:
    from actors.batch.views import Batch

SOURCE = "/sora-batch/http"
"""In the inbox: whose ids the keys are."""
_KEY_MAX = 255
_TAG = re.compile(r'\s*(W/)?"([\x21\x23-\x7e\x80-\xff]*)"\s*(?:,|$)')


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


def expected(request: web.Request) -> Collection[str] | None:
    """The versions that a batch may have for this write (`If-Match`); None: any. A weak tag names none."""
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
