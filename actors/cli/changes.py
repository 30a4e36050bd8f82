"""Reads which videos of a batch are meant, and what is to change about them."""

from __future__ import annotations

from typing import Any

from actors.errors import InvalidRequest

FIELDS = ("prompt", "duration", "seconds", "size", "model", "input_reference")


def whole_job_id(batch_id: str, job: str) -> str:
    """A job's id, from the id or from the video's number."""
    return f"{batch_id}-{int(job):02}" if job.isascii() and job.isdigit() else job


def parse_changes(batch_id: str, pairs: list[str]) -> dict[str, dict[str, Any]]:
    """Read `JOB.FIELD=VALUE`.

    Raises:
        InvalidRequest: one is not of that form, or the field can't be changed.
    """
    changes: dict[str, dict[str, Any]] = {}
    for pair in pairs:
        target, equals, value = pair.partition("=")
        job, dot, field = target.rpartition(".")
        if not (equals and dot and job):
            raise InvalidRequest(f"--set {pair!r}: expected JOB.FIELD=VALUE, such as 2.prompt='A calm sea'")
        if field not in FIELDS:
            raise InvalidRequest(f"--set {pair!r}: {field!r} can't be changed; {', '.join(FIELDS)} can")
        changes.setdefault(whole_job_id(batch_id, job), {})[field] = value
    return changes
