"""The body of a request, JSON or a form: read in time, and checked before anything is done with it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import BodyPartReader, web
from multidict import MultiDict

from actors.errors import FieldError
from actors.json_objects import Unparsable, read_object
from actors.web.problems import Refused, refused

BODY_SECONDS = 60.0
"""Whoever sends its body more slowly would hold a connection for as long as it likes."""
JSON = ("application/json",)
MERGE_PATCH = ("application/merge-patch+json", "application/json")


@asynccontextmanager
async def arriving() -> AsyncIterator[None]:
    """While a body is read.

    Raises:
        Refused: 408, it does not arrive in time.
    """
    try:
        async with asyncio.timeout(BODY_SECONDS):
            yield
    except TimeoutError:
        raise refused(408, f"the body did not arrive within {BODY_SECONDS:g} s") from None


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


async def read_form(request: web.Request) -> MultiDict[str]:
    """Read the fields of a form; a file's text is a field.

    Raises:
        Refused: 408 where it does not arrive, 413 where it is too large, 415 where it is no form, 422 where a part of
            it is no text.
    """
    if request.content_type not in ("application/x-www-form-urlencoded", "multipart/form-data"):
        raise refused(415, "send the form as a browser does")
    async with arriving():
        if request.content_type == "multipart/form-data":
            return await _parts(request)
        return MultiDict((name, str(value)) for name, value in (await request.post()).items())


async def _parts(request: web.Request) -> MultiDict[str]:
    sent: MultiDict[str] = MultiDict()
    most = request.client_max_size
    reader = await request.multipart()
    async for part in reader:
        assert isinstance(part, BodyPartReader)
        data = bytearray()
        while chunk := await part.read_chunk():
            data += chunk
            if len(data) > most:
                raise refused(413, f"the form has more than {most:,} bytes (COMMAND_MAX_BYTES): send a smaller file")
        most -= len(data)
        try:
            sent.add(part.name or "", data.decode("utf-8-sig"))
            if part.filename:
                sent.add(f"{part.name}_name", part.filename[:200])
        except UnicodeDecodeError:
            name = (part.filename or part.name or "")[:200]
            raise refused(422, f"the file {name!r} is not UTF-8 text: save it as UTF-8") from None
    return sent
