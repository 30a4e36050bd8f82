"""Answers: the events that answer commands, and the batch that `report` publishes. Pure.

They have no sequence number: none of them is in a batch's journal.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pika import BasicProperties
from pydantic_core import to_json

from actors.batch.command_data import key_of
from actors.batch.commands import CommandResult
from actors.batch.events import cloud_event
from actors.batch.job_views import Job
from actors.batch.views import Batch
from actors.errors import FieldError, listed
from actors.rabbitmq.codec import CommandRefused, ReceivedCommand
from actors.rabbitmq.outgoing import event_properties

SOURCE = "/sora-batch/commands"
UNKNOWN = "_"
"""Replaces an unknown batch id in a routing key."""
REPORT_MAX_BYTES = 8 * 1024 * 1024
"""For the jobs in a report: well below a broker's limit for one message."""
_JOB_IDS_SHOWN = 1000


def accepted(command: ReceivedCommand, done: CommandResult, at: float) -> str:
    """The event that says that a command was accepted, and what it did."""
    data: dict[str, Any] = {"command": command.name, "batch_id": done.batch_id}
    if done.job_ids is not None and len(done.job_ids) <= _JOB_IDS_SHOWN:
        data["job_ids"] = list(done.job_ids)
    if done.fetching and len(done.fetching) <= _JOB_IDS_SHOWN:
        data["fetching"] = list(done.fetching)
    if done.summary is not None:
        data["summary"] = done.summary
    return _answer("accepted", data, (command.source, command.id), command.id, done.batch_id, at)


def rejected(command: ReceivedCommand | CommandRefused, errors: Sequence[FieldError], at: float) -> str:
    """The event that says why a command was rejected; it has an id."""
    assert command.id is not None
    data = {"command": command.name, "errors": listed(errors)}
    batch_id = command.batch_id if isinstance(command, ReceivedCommand) else None
    return _answer("rejected", data, (command.source, command.id, command.digest), command.id, batch_id, at)


def _answer(
    event: str, data: dict[str, Any], identity: tuple[str, ...], correlation: str, batch_id: str | None, at: float
) -> str:
    # The same answer has the same id, however often it is published.
    document = cloud_event(f"command.{event}", f"command:{key_of(event, *identity)[:32]}", SOURCE, batch_id, at)
    return to_json({**document, "correlationid": correlation, "data": data}).decode()


def reported(batch: Batch, sequence: int, *, correlation: str, source: str, at: float) -> str:
    """A batch as it was after the event with this number, with as many jobs as fit into 8 MiB."""
    shown: list[Job] = []
    size = 0
    for job in batch.jobs:
        size += len(job.model_dump_json())
        if size > REPORT_MAX_BYTES:
            break
        shown.append(job)
    whole = batch.model_dump(exclude={"jobs"}) | {"jobs": shown}
    if len(shown) < len(batch.jobs):
        whole["jobs_omitted"] = len(batch.jobs) - len(shown)
    identity = f"{batch.id}:{sequence:010d}:reported:{key_of(source, correlation)[:16]}"
    document = cloud_event("batch.reported", identity, f"/sora-batch/batches/{batch.id}", batch.id, at)
    data = {
        "batch_id": batch.id,
        "status": batch.status,
        "progress": batch.progress,
        "as_of_sequence": sequence,
        "batch": whole,
    }
    return to_json({**document, "correlationid": correlation, "data": data}).decode()


@dataclass(frozen=True, slots=True)
class Publication:
    """An answer or a report, ready to be published."""

    key: str
    body: bytes
    properties: BasicProperties
    refused: str | None
    """Why, if it is a rejection."""


def publication(body: str) -> Publication:
    """Read an answer of this module, even an old one."""
    document = json.loads(body)
    name = document["type"].removeprefix("sora-batch.").removesuffix(".v1")
    errors, at = document["data"].get("errors"), datetime.fromisoformat(document["time"]).timestamp()
    return Publication(
        key=f"{name}.{document.get('subject', UNKNOWN)}",
        body=body.encode(),
        properties=event_properties(document["id"], document["type"], at, document["correlationid"]),
        refused=None if errors is None else "; ".join(error["message"] for error in errors[:5]),
    )
