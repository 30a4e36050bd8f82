"""The state machine of batches and jobs: the moves that each state allows. Every other one is refused.

Pure: no clock, no I/O, no actor. A duplicate that may come is a written self-loop. `docs/states.md` is printed from the
tables.
"""

from __future__ import annotations

from enum import StrEnum

from storage.states import BatchStatus, JobStatus


class JobMove(StrEnum):
    """What can happen to a job."""

    INTEND = "intend"
    """A POST is about to go out; the intent is recorded with it."""
    WITHDRAW = "withdraw"
    """Nothing was paid: not sent, refused for now, or proved absent."""
    ACCEPT = "accept"
    """Sora has it."""
    ADVANCE = "advance"
    """Sora told how far it is."""
    FETCH = "fetch"
    """Sora has finished."""
    COMPLETE = "complete"
    """The file is on disk."""
    REMAKE = "remake"
    """The video failed, and another paid attempt is allowed."""
    FAIL = "fail"
    CANCEL = "cancel"
    RETRY = "retry"
    """A person wants it again, and nothing of it is left on the server."""
    RECHECK = "recheck"
    """A person wants it again, and the outcome of its POST is unknown."""
    REATTACH = "reattach"
    """A person wants it again, and Sora still has it."""


class BatchMove(StrEnum):
    """What can happen to a batch."""

    START = "start"
    """An owner claimed it."""
    COMPLETE = "complete"
    """Every job ended, all of them well."""
    PART = "part"
    """Every job ended, some of them well."""
    FAIL = "fail"
    """Every job ended, none of them well."""
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
    """Look a job's transition up.

    Raises:
        RefusedMove: it is not allowed.
    """
    after = JOB_MOVES.get((status, move))
    if after is None:
        raise RefusedMove(f"a job that is {status} can't {move}")
    return after


def next_batch_status(status: BatchStatus, move: BatchMove) -> BatchStatus:
    """Look a batch's transition up.

    Raises:
        RefusedMove: it is not allowed.
    """
    after = BATCH_MOVES.get((status, move))
    if after is None:
        raise RefusedMove(f"a batch that is {status} can't {move}")
    return after
