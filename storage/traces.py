"""Traces (W3C Trace Context): reads one from outside, and notes those of our batches, for log lines and requests."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_PARENT = (
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<parent>[0-9a-f]{16})-[0-9a-f]{2}(?P<more>-[\x21-\x7e]*)?"
)
_PARENT_MAX = 256
_KEY = r"[a-z0-9][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13}"
_MEMBER = rf"(?P<key>{_KEY})=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{{0,255}}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
_MEMBERS, _STATE_MAX = 32, 512
_MOST = 20_000
_known: dict[str, dict[str, str]] = {}


def note_trace(batch_id: str, trace: Mapping[str, str]) -> None:
    """Remember `traceparent` and, where there is one, `tracestate`; the oldest are forgotten."""
    _known.pop(batch_id, None)
    _known[batch_id] = dict(trace)
    while len(_known) > _MOST:
        _known.pop(next(iter(_known)), None)


def trace_of(batch_id: str) -> dict[str, str]:
    """What was noted; empty: the batch belongs to none that is known here."""
    return _known.get(batch_id, {})


def _is_parent(text: Any) -> bool:
    match = re.fullmatch(_PARENT, text) if isinstance(text, str) and len(text) <= _PARENT_MAX else None
    if match is None or match["version"] == "ff" or (match["version"] == "00" and match["more"]):
        return False
    return bool(match["trace"].strip("0") and match["parent"].strip("0"))


def _is_state(text: Any) -> bool:
    if not isinstance(text, str) or len(text) > _STATE_MAX:
        return False
    found = [re.fullmatch(_MEMBER, member) for part in text.split(",") if (member := part.strip(" \t"))]
    keys = [match["key"] for match in found if match is not None]
    return len(found) == len(keys) == len(set(keys)) and 0 < len(keys) <= _MEMBERS


def read_trace(parent: Any, state: Any) -> dict[str, str] | None:
    """What is kept of both attributes. As W3C says, what is malformed is ignored: no video is refused for it."""
    if not _is_parent(parent):
        return None
    return {"traceparent": parent} | ({"tracestate": state} if _is_state(state) else {})
