"""The state machine of batches and jobs: the moves that each state allows, and what they do to a batch's counts.

Pure: no clock, no I/O, no actor. Every move that is not in the two tables is refused; a duplicate that can arrive is
an explicit self-loop. `docs/states.md` is printed from the tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from storage.records import BatchRecord, JobRecord
from storage.states import IN_FLIGHT_JOB, BatchStatus, JobStatus


class JobMove(StrEnum):
    """What can happen to a job."""

    INTEND = "intend"
    """A POST is about to go out; its intent is recorded with this move."""
    WITHDRAW = "withdraw"
    """Nothing was paid for: not sent, refused for now, or proved absent."""
    ACCEPT = "accept"
    """The server accepted it."""
    ADVANCE = "advance"
    """The server reported its progress."""
    FETCH = "fetch"
    """The server has finished it."""
    COMPLETE = "complete"
    """The file is on disk and recorded."""
    REMAKE = "remake"
    """The generation failed, and another paid attempt is allowed."""
    FAIL = "fail"
    CANCEL = "cancel"
    RETRY = "retry"
    """It is retried, and the server has nothing of it."""
    RECHECK = "recheck"
    """It is retried, and the outcome of its POST is unknown."""
    REATTACH = "reattach"
    """It is retried, and the server still has it."""


class BatchMove(StrEnum):
    """What can happen to a batch."""

    START = "start"
    """An owner claimed it."""
    COMPLETE = "complete"
    """Every job ended, all of them completed."""
    PART = "part"
    """Every job ended, some of them completed."""
    FAIL = "fail"
    """Every job ended, none of them completed."""
    CANCEL = "cancel"
    RETRY = "retry"


J, JM = JobStatus, JobMove
B, BM = BatchStatus, BatchMove

# fmt: off
JOB_MOVES: dict[tuple[JobStatus, JobMove], JobStatus] = {
    (J.PENDING, JM.INTEND): J.SUBMITTING,
    (J.PENDING, JM.WITHDRAW): J.PENDING,
    (J.PENDING, JM.FAIL): J.FAILED,
    (J.PENDING, JM.CANCEL): J.CANCELLED,

    (J.SUBMITTING, JM.WITHDRAW): J.PENDING,
    (J.SUBMITTING, JM.ACCEPT): J.GENERATING,
    (J.SUBMITTING, JM.FAIL): J.FAILED,
    (J.SUBMITTING, JM.CANCEL): J.CANCELLED,

    (J.GENERATING, JM.ACCEPT): J.GENERATING,
    (J.GENERATING, JM.ADVANCE): J.GENERATING,
    (J.GENERATING, JM.FETCH): J.DOWNLOADING,
    (J.GENERATING, JM.REMAKE): J.PENDING,
    (J.GENERATING, JM.FAIL): J.FAILED,
    (J.GENERATING, JM.CANCEL): J.CANCELLED,

    (J.DOWNLOADING, JM.ACCEPT): J.DOWNLOADING,
    (J.DOWNLOADING, JM.ADVANCE): J.DOWNLOADING,
    (J.DOWNLOADING, JM.FETCH): J.DOWNLOADING,
    (J.DOWNLOADING, JM.COMPLETE): J.COMPLETED,
    (J.DOWNLOADING, JM.REMAKE): J.PENDING,
    (J.DOWNLOADING, JM.FAIL): J.FAILED,
    (J.DOWNLOADING, JM.CANCEL): J.CANCELLED,

    (J.COMPLETED, JM.COMPLETE): J.COMPLETED,

    (J.FAILED, JM.RETRY): J.PENDING,
    (J.FAILED, JM.RECHECK): J.SUBMITTING,
    (J.FAILED, JM.REATTACH): J.GENERATING,

    (J.CANCELLED, JM.CANCEL): J.CANCELLED,
    (J.CANCELLED, JM.RETRY): J.PENDING,
    (J.CANCELLED, JM.RECHECK): J.SUBMITTING,
    (J.CANCELLED, JM.REATTACH): J.GENERATING,
}

BATCH_MOVES: dict[tuple[BatchStatus, BatchMove], BatchStatus] = {
    (B.PENDING, BM.START): B.PROCESSING,
    (B.PENDING, BM.CANCEL): B.CANCELLED,

    (B.PROCESSING, BM.START): B.PROCESSING,
    (B.PROCESSING, BM.COMPLETE): B.COMPLETED,
    (B.PROCESSING, BM.PART): B.PARTIAL,
    (B.PROCESSING, BM.FAIL): B.FAILED,
    (B.PROCESSING, BM.CANCEL): B.CANCELLED,

    (B.PARTIAL, BM.RETRY): B.PENDING,

    (B.FAILED, BM.RETRY): B.PENDING,

    (B.CANCELLED, BM.CANCEL): B.CANCELLED,
    (B.CANCELLED, BM.RETRY): B.PENDING,
}
# fmt: on


class RefusedMove(Exception):
    """The state does not allow the move."""


def next_job_status(status: JobStatus, move: JobMove) -> JobStatus:
    """A job's status after a move.

    Raises:
        RefusedMove: the move is not allowed.
    """
    after = JOB_MOVES.get((status, move))
    if after is None:
        raise RefusedMove(f"a job that is {status} can't {move}")
    return after


def next_batch_status(status: BatchStatus, move: BatchMove) -> BatchStatus:
    """A batch's status after a move.

    Raises:
        RefusedMove: the move is not allowed.
    """
    after = BATCH_MOVES.get((status, move))
    if after is None:
        raise RefusedMove(f"a batch that is {status} can't {move}")
    return after


def recount(batch: BatchRecord, before: JobStatus, after: JobStatus, **more: Any) -> BatchRecord:
    """Fold one job's transition into the batch's counts, instead of counting ten thousand jobs again."""
    return batch._replace(
        completed=batch.completed + (after is JobStatus.COMPLETED) - (before is JobStatus.COMPLETED),
        failed=batch.failed + (after is JobStatus.FAILED) - (before is JobStatus.FAILED),
        cancelled=batch.cancelled + (after is JobStatus.CANCELLED) - (before is JobStatus.CANCELLED),
        processing=batch.processing + (after in IN_FLIGHT_JOB) - (before in IN_FLIGHT_JOB),
        **more,
    )


def ended(batch: BatchRecord) -> bool:
    """Whether every job has ended."""
    return batch.completed + batch.failed + batch.cancelled == batch.total


def ending(batch: BatchRecord) -> BatchMove:
    """How a batch whose jobs have all ended ends."""
    if batch.completed == batch.total:
        return BatchMove.COMPLETE
    return BatchMove.PART if batch.completed else BatchMove.FAIL


def derived_counts(jobs: Sequence[JobRecord]) -> dict[str, int]:
    """The counts of a batch, from its jobs. `recount` must yield the same."""
    return {
        "completed": sum(job.status is JobStatus.COMPLETED for job in jobs),
        "failed": sum(job.status is JobStatus.FAILED for job in jobs),
        "cancelled": sum(job.status is JobStatus.CANCELLED for job in jobs),
        "processing": sum(job.status in IN_FLIGHT_JOB for job in jobs),
    }
