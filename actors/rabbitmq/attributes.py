"""The attributes of a command's CloudEvent: texts that can be shown, and the trace that it belongs to. Pure.

The trace is W3C Trace Context, in the extension attributes `traceparent` and `tracestate`.
"""

from __future__ import annotations

import re
from typing import Any

from pydantic import AfterValidator

from actors.batch.fields import valid_unicode

_PARENT = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<parent>[0-9a-f]{16})-[0-9a-f]{2}(?P<more>-[\x21-\x7e]*)?"
)
_PARENT_MAX = 256
_KEY = r"[a-z0-9][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13}"
_MEMBER = re.compile(rf"(?P<key>{_KEY})=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{{0,255}}[\x21-\x2b\x2d-\x3c\x3e-\x7e]")
_MEMBERS, _STATE_MAX = 32, 512


def printable(text: str) -> str:
    """Check a text that answers and logs show.

    Raises:
        ValueError: it has control characters, or is no valid Unicode.
    """
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise ValueError("must not contain control characters")
    return valid_unicode(text)


def short(limit: int) -> AfterValidator:
    """Check that a text has at most so many bytes."""

    def check(text: str) -> str:
        if len(text.encode()) > limit:
            raise ValueError(f"must have at most {limit} bytes in UTF-8")
        return text

    return AfterValidator(check)


def _is_parent(text: Any) -> bool:
    match = _PARENT.fullmatch(text) if isinstance(text, str) and len(text) <= _PARENT_MAX else None
    if match is None or match["version"] == "ff" or (match["version"] == "00" and match["more"]):
        return False
    return bool(match["trace"].strip("0") and match["parent"].strip("0"))


def _is_state(text: Any) -> bool:
    if not isinstance(text, str) or len(text) > _STATE_MAX:
        return False
    found = [_MEMBER.fullmatch(member) for part in text.split(",") if (member := part.strip(" \t"))]
    keys = [match["key"] for match in found if match is not None]
    return len(found) == len(keys) == len(set(keys)) and 0 < len(keys) <= _MEMBERS


def trace_of(parent: Any, state: Any) -> dict[str, str] | None:
    """What is kept of both. As W3C says, what is malformed is ignored: nobody goes without a video for it."""
    if not _is_parent(parent):
        return None
    return {"traceparent": parent} | ({"tracestate": state} if _is_state(state) else {})
