"""Reads `--job` and `--set`: which videos of a batch, and what to change about them."""

from __future__ import annotations

from typing import Any

from actors.documents import Unreadable, json_or_text
from actors.errors import InvalidRequest

FIELDS = ("prompt", "duration", "seconds", "size", "model", "seed", "input_reference")
_SPELLINGS = {"inputReference": "input_reference"}
GROUPS = ("params", "files")
"""Their members are changed one by one: `params.fps`."""


def whole_job_id(batch_id: str, job: str) -> str:
    """A job's id, given the id or the video's number."""
    return f"{batch_id}-{int(job):02}" if job.isascii() and job.isdigit() else job


def parse_changes(batch_id: str, pairs: list[str]) -> dict[str, dict[str, Any]]:
    """Read `JOB.FIELD=VALUE`.

    Raises:
        InvalidRequest: one has another form, or the field can't be changed.
    """
    changes: dict[str, dict[str, Any]] = {}
    for pair in pairs:
        target, equals, value = pair.partition("=")
        job, dot, field = target.partition(".")
        if not (equals and dot and job):
            raise InvalidRequest(f"--set {pair!r}: expected JOB.FIELD=VALUE, such as 2.prompt='A calm sea'")
        change = changes.setdefault(whole_job_id(batch_id, job), {})
        field = _SPELLINGS.get(field, field)
        group, dot, name = field.partition(".")
        if group in GROUPS and name:
            change.setdefault(group, {})[name] = _param(pair, value) if group == "params" else _file(value)
        elif field in FIELDS:
            change[field] = value
        else:
            meant = _meant(job, field, value)
            raise InvalidRequest(f"--set {pair!r}: {field!r} can't be changed; these can: {_known()}{meant}")
    return changes


def _param(pair: str, value: str) -> Any:
    try:
        return json_or_text(value)
    except Unreadable as error:
        raise InvalidRequest(f"--set {pair!r}: {error}") from None


def _file(value: str) -> str | None:
    """The path of a file; `null` removes what the job has."""
    return None if value == "null" else value


def _known() -> str:
    return ", ".join([*FIELDS, *(f"{group}.NAME" for group in GROUPS)])


def _meant(job: str, field: str, value: str) -> str:
    from actors.batch.field_errors import nearest
    from actors.batch.fields import VIDEO_FIELDS

    if field in VIDEO_FIELDS or "." in field:
        return ""
    near = nearest(field, FIELDS)
    return f"; did you mean {near}?" if near else f"; for a field of the server: --set {job}.params.{field}={value}"
