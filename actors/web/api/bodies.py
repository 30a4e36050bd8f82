"""The body of a request, checked before anything is done with it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from actors.errors import FieldError
from actors.json_objects import Unparsable, read_object
from actors.web.arrival import arriving
from actors.web.problems import Refused, refused

JSON = ("application/json",)
MERGE_PATCH = ("application/merge-patch+json", "application/json")


@dataclass(frozen=True, slots=True)
class Body:
    """What was sent."""

    digest: str
    """SHA-256 of method, path and bytes, in hexadecimal: the same request has the same."""
    document: dict[str, Any]


async def read_body(request: web.Request, kinds: tuple[str, ...] = JSON, *, required: bool = False) -> Body:
    """Read a JSON object.

    Args:
        request: the request.
        kinds: the content types that it may have.
        required: whether nothing is not taken for `{}`.

    Raises:
        Refused: 400 where it is no JSON, 408 where it does not arrive, 413 where it is too large, 415 where it is
            something else, 422 where it is no object.
    """
    data = await _bytes(request)
    digest = hashlib.sha256(b"\0".join((request.method.encode(), request.raw_path.encode(), data))).hexdigest()
    if not (data or required):
        return Body(digest, {})
    _check_kind(request, kinds)
    try:
        return Body(digest, read_object(data))
    except Unparsable as unparsable:
        error = unparsable.error
        raise refused(422 if error.code == "not_object" else 400, error.message, (error,)) from None


async def _bytes(request: web.Request) -> bytes:
    most = request.client_max_size
    if (request.content_length or 0) > most:
        raise _too_large(most)
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise refused(415, "send the body as it is, without Content-Encoding")
    try:
        async with arriving():
            return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise _too_large(most) from None


def _too_large(most: int) -> Refused:
    expected = f"at most {most} bytes (COMMAND_MAX_BYTES)"
    text = f"the body is too large: send {expected}"
    return refused(413, text, (FieldError("", text, expected, "too_long"),))


def _check_kind(request: web.Request, kinds: tuple[str, ...]) -> None:
    charset = (request.charset or "utf-8").lower()
    if request.content_type in kinds and charset in {"utf-8", "utf8", "us-ascii"}:
        return
    got = request.headers.get("Content-Type")
    what = f"the content type {got[:100]!r} is not supported" if got else "the content type is missing"
    headers = {"Accept-Patch": kinds[0]} if request.method == "PATCH" else {}
    raise refused(415, f"{what}: send {kinds[0]} in UTF-8", headers=headers)
