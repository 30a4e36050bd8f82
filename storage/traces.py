"""Which trace (W3C Trace Context) each batch that this process works with belongs to: for log lines and requests."""

from __future__ import annotations

from collections.abc import Mapping

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
