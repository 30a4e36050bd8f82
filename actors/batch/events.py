"""The events: their names, their routing keys and the CloudEvents document that is recorded and published. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, Self

from pydantic import BaseModel, ConfigDict
from pydantic_core import to_json

from actors.batch.job_views import job_document, moment
from actors.batch.views import Batch, progress_document
from storage.charges import BatchCosts
from storage.records import BatchRecord, Document, EventRecord, JobRecord
from storage.states import BatchStatus

JOBS_MAX_BYTES = 256 * 1024


class EventName(StrEnum):
    """`<entity>.<event>`: the first two words of the routing key."""

    BATCH_CREATED = "batch.created"
    BATCH_STARTED = "batch.started"
    BATCH_PROGRESSED = "batch.progressed"
    BATCH_COMPLETED = "batch.completed"
    BATCH_PARTIAL = "batch.partial"
    BATCH_FAILED = "batch.failed"
    BATCH_CANCELLED = "batch.cancelled"
    BATCH_RETRIED = "batch.retried"
    BATCH_DELETED = "batch.deleted"
    BATCH_UPDATED = "batch.updated"
    BATCH_BUDGET_REACHED = "batch.budget_reached"
    JOB_SUBMITTED = "job.submitted"
    JOB_PROGRESSED = "job.progressed"
    JOB_COMPLETED = "job.completed"
    JOB_FAILED = "job.failed"
    JOB_CANCELLED = "job.cancelled"
    JOB_RETRIED = "job.retried"
    JOB_SETTLED = "job.settled"


FINAL_EVENTS = {
    BatchStatus.COMPLETED: EventName.BATCH_COMPLETED,
    BatchStatus.PARTIAL: EventName.BATCH_PARTIAL,
    BatchStatus.FAILED: EventName.BATCH_FAILED,
    BatchStatus.CANCELLED: EventName.BATCH_CANCELLED,
}


class Event(BaseModel):
    """An event of a batch: a CloudEvents 1.0 document."""

    model_config = ConfigDict(frozen=True)

    specversion: str = "1.0"
    id: str
    source: str
    type: str
    subject: str
    time: datetime
    datacontenttype: str = "application/json"
    dataschema: str
    sequence: str
    traceparent: str | None = None
    tracestate: str | None = None
    """Of the trace that the batch belongs to, if any."""
    data: dict[str, Any]

    @property
    def name(self) -> str:
        """`batch.completed`, `job.failed`, ..."""
        return self.type.removeprefix("sora-batch.").removesuffix(".v1")

    @classmethod
    def parse(cls, record: EventRecord) -> Self:
        """Read a recorded event."""
        return cls.model_validate_json(record.body)


def batch_event(name: EventName, batch: BatchRecord, sequence: int, at: float, /, **more: Any) -> EventRecord:
    """An event of a batch, with the state after it; `more` is added to the data."""
    return _event(name, batch, sequence, at, subject=batch.id, more=more)


def job_event(
    name: EventName, batch: BatchRecord, job: JobRecord, sequence: int, at: float, cost: Sequence[Document] = ()
) -> EventRecord:
    """An event of a job, with the batch's state after it, and what the job costs by then."""
    return _event(name, batch, sequence, at, subject=job.id, more={"job": job_document(job, cost)})


def final_event(
    batch: BatchRecord,
    jobs: Iterable[JobRecord],
    sequence: int,
    at: float,
    costs: BatchCosts | None = None,
    /,
    **more: Any,
) -> EventRecord:
    """The event that ends a batch, with as many jobs, from the first on, as fit into 256 KiB; and what it costs."""
    costs = costs or BatchCosts()
    document = Batch.of(batch, [], costs).model_dump()
    shown: list[Document] = []
    size = 0
    for job in (job_document(record, costs.of_job(record.id)) for record in jobs):
        size += len(to_json(job))
        if size > JOBS_MAX_BYTES:
            break
        shown.append(job)
    document["jobs"] = shown
    if omitted := batch.total - len(shown):
        document["jobs_omitted"] = omitted
    return batch_event(FINAL_EVENTS[batch.status], batch, sequence, at, batch=document, **more)


def _event(
    name: EventName, batch: BatchRecord, sequence: int, at: float, *, subject: str, more: dict[str, Any]
) -> EventRecord:
    number, kind = f"{sequence:010d}", name.value
    envelope = cloud_event(kind, f"{batch.id}:{number}", f"/sora-batch/batches/{batch.id}", subject, at)
    progress = progress_document(batch)
    data = {"batch_id": batch.id, "status": batch.status, "progress": progress, **more}
    document = {**envelope, "sequence": number, **(batch.trace or {}), "data": data}
    key = f"{kind}.{batch.id}" + (f".{subject}" if subject != batch.id else "")
    return EventRecord(
        batch_id=batch.id,
        sequence=sequence,
        type=kind,
        key=key,
        body=to_json(document).decode(),
        created_at=at,
    )


def cloud_event(name: str, identity: str, source: str, subject: str | None, at: float) -> dict[str, Any]:
    """The attributes that all our CloudEvents share, in order; the others follow them.

    Args:
        name: what happened, such as `job.completed`.
        identity: the id, the same however often the event is published.
        source: where it happened.
        subject: what it happened to, if known.
        at: when, in seconds since 1970.
    """
    return {
        "specversion": "1.0",
        "id": identity,
        "source": source,
        "type": f"sora-batch.{name}.v1",
        **({} if subject is None else {"subject": subject}),
        "time": moment(at),
        "datacontenttype": "application/json",
        "dataschema": f"urn:sora-batch:{name}.v1",
    }
