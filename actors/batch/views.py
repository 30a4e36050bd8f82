"""Answers about a batch: its state, its progress and what a cancellation did (pydantic). Snake case on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Self, TypeVar

from pydantic import (
    Field,
)

from actors.batch.job_views import Cost, Job, JobError, Output, job_id, moment
from actors.errors import InvalidRequest
from storage.charges import BatchCosts
from storage.records import BatchRecord, JobRecord
from storage.states import FINAL_BATCH, BatchStatus, JobStatus


class Progress(Output):
    """The progress of a batch. `pending` counts the unfinished jobs, `processing` those of them that are in flight."""

    total: int
    completed: int
    failed: int
    cancelled: int
    pending: int
    processing: int
    percentage: int


class Batch(Output):
    """A batch as it was when it was read. `jobs` is empty in lists, which do not load them."""

    id: str
    name: str | None
    job_ids: list[str]
    jobs: list[Job]
    status: BatchStatus
    progress: Progress
    metadata: dict[str, Any]
    error: JobError | None
    concurrency: int
    cost: list[Cost] = Field(default_factory=list)
    """What its submissions cost, with one entry per currency."""
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    completed_at: datetime | None

    @property
    def finished(self) -> bool:
        """Whether the batch has ended, however it ended."""
        return self.status in FINAL_BATCH

    @classmethod
    def of(cls, record: BatchRecord, jobs: list[JobRecord], costs: BatchCosts | None = None) -> Self:
        """The public view of the records of a batch and its jobs, and of what they cost."""
        costs = costs or BatchCosts()
        return cls(
            id=record.id,
            name=record.name,
            job_ids=[job_id(record.id, position) for position in range(1, record.total + 1)],
            jobs=[Job.of(job, costs.of_job(job.id)) for job in jobs],
            status=record.status,
            progress=progress_of(record),
            metadata=record.metadata,
            error=JobError(**record.error) if record.error else None,
            concurrency=record.concurrency,
            cost=[Cost.model_construct(**each) for each in costs.whole],
            created_at=moment(record.created_at),
            updated_at=moment(record.updated_at),
            started_at=moment(record.started_at),
            completed_at=moment(record.completed_at),
        )


S = TypeVar("S", BatchStatus, JobStatus)


def status_named(kind: type[S], name: S | str | None) -> S | None:
    """The status of batches or of jobs that has this name.

    Raises:
        InvalidRequest: there is none.
    """
    try:
        return None if name is None else kind(name)
    except ValueError:
        raise InvalidRequest(f"status: must be one of {', '.join(kind)} (got {name!r})") from None


def version_of(sequence: int, removed: int) -> str:
    """Which state of a batch this is, in a word: after which event, and with how many files removed since.

    Removing files is no event.
    """
    return f"{sequence}.{removed}" if removed else str(sequence)


def progress_of(record: BatchRecord) -> Progress:
    """The progress of a batch, from its row alone."""
    return Progress.model_construct(**progress_document(record))


def progress_document(record: BatchRecord) -> dict[str, Any]:
    """The same as JSON, without a model: there are tens of thousands of events."""
    finished = record.completed + record.failed + record.cancelled
    return {
        "total": record.total,
        "completed": record.completed,
        "failed": record.failed,
        "cancelled": record.cancelled,
        "pending": record.total - finished,
        "processing": record.processing,
        "percentage": finished * 100 // record.total,
    }


class Charge(Output):
    """A video that the server may still make and charge for after its batch was cancelled."""

    job_id: str
    remote_id: str | None
    state: str


class CancellationSummary(Output):
    """The result of a cancellation: `cancelled + completed + failed == total`."""

    batch_id: str
    status: BatchStatus
    total: int
    cancelled: int
    completed: int
    failed: int
    already_final: int
    """Jobs that had already ended: `completed + failed`."""
    may_be_charged: list[Charge]
