"""What stands in the address of a page. What is no number there counts as not given; an id that can't be is unknown."""

from __future__ import annotations

import re

from aiohttp import web

from actors.errors import NotFound, UnknownBatch
from actors.expectations import ID_PATTERN

_ID = re.compile(ID_PATTERN)
_METADATA = "metadata."


def batch_id_of(request: web.Request) -> str:
    """The batch's id in the path.

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


def video_of(request: web.Request) -> int:
    """The video's number in the path.

    Raises:
        NotFound: no video can have it.
    """
    number = _number(request.match_info["index"])
    if number is None:
        raise NotFound(f"there is no video {request.match_info['index'][:80]!r}")
    return number


def number_of(request: web.Request, name: str) -> int | None:
    """A number in the query."""
    return _number(request.query.get(name, ""))


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else None


def metadata_of(request: web.Request) -> dict[str, str]:
    """The filters by metadata: `metadata.KEY=value`, as the API has them."""
    named = {name.removeprefix(_METADATA): text for name, text in request.query.items() if name.startswith(_METADATA)}
    return {key: text for key, text in named.items() if key and _is_text(key + text)}


def _is_text(text: str) -> bool:
    """Whether a database can look for it."""
    return "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)
