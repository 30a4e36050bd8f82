"""A log line for each event that this process records, made from the event: a new one is logged like the rest."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from typing import Any

from storage.records import EventRecord
from storage.traces import note_trace

logger = logging.getLogger(__name__)
_ENVELOPE = frozenset({"batch_id", "status", "progress", "batch", "job"})
_TRACE = ("traceparent", "tracestate")


def level_of(event: EventRecord) -> int:
    """Progress is for who looks closely."""
    return logging.DEBUG if event.type.endswith(".progressed") else logging.INFO


def log_events(events: Iterable[EventRecord], *, again: bool = False) -> None:
    """Log what is committed. Where nobody wants the lines, no event is read.

    Args:
        events: what was recorded.
        again: by a process that has died since, and may have logged it or not: the lines say `again`.
    """
    for event in events:
        level = level_of(event)
        if logger.isEnabledFor(level):
            data = data_of(event)
            if "traceparent" in data:
                note_trace(event.batch_id, {name: data[name] for name in _TRACE if name in data})
            if again:
                data["again"] = True
            text = "recorded %s, in the last seconds of a process that died" if again else "recorded %s"
            logger.log(level, text, event.type, extra=data)


def data_of(event: EventRecord) -> dict[str, Any]:
    """What of an event its line has: of whom it tells, and what changed."""
    document = json.loads(event.body)
    data = document.get("data", {})
    job, batch = data.get("job"), data.get("batch") or {}
    told: dict[str, Any] = {"action": event.type, "event": event.type, "batch_id": event.batch_id}
    if job is not None:
        told |= {"job_id": job["id"], "status": job["status"], "progress": job["progress"]}
        told |= {"remote_id": job.get("remote_id"), "attempts": job.get("attempts")}
    else:
        told |= {"status": data.get("status"), "progress": data.get("progress", {}).get("percentage")}
    error = (job or batch).get("error") or {}
    told |= {"error_code": error.get("code"), "error": error.get("message"), "sequence": event.sequence}
    further = {name: data[name] for name in data if name not in _ENVELOPE}
    told["changed"] = json.dumps(further, ensure_ascii=False) if further else None
    traced = {name: document.get(name) for name in _TRACE}
    return {name: value for name, value in {**told, **traced}.items() if value is not None}
