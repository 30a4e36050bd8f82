"""The state machine of batches and jobs: the moves that each state allows, and BatchUpdate, which folds several.

Pure: no clock, no I/O, no actor. Every move that is not in the two tables is refused; a duplicate that can arrive is
an explicit self-loop. `docs/states.md` is printed from the tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any

from actors.batch.charging import Charges
from actors.batch.events import EventName, batch_event, final_event, job_event
from actors.batch.told_prices import price_in
from actors.errors import ErrorCode, Failure
from storage.changes import Changes, Closing, SubmissionOutcome
from storage.charges import BatchCosts, ToldPrice
from storage.records import BatchRecord, Document, EventRecord, JobRecord, SubmissionRecord
from storage.states import IN_FLIGHT_JOB, BatchStatus, JobStatus, SubmissionState


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


class BatchUpdate:
    """A pending change of a batch: moves jobs, folds the counts and numbers the events.

    Works on copies: nothing has happened until its changes are recorded.
    """

    def __init__(
        self, batch: BatchRecord, at: float, charges: Charges | None = None, last_error: Document | None = None
    ) -> None:
        self.charges = Charges() if charges is None else charges
        """What the jobs cost, for their events."""
        self.last_error = last_error
        """Of the job that failed last, in this update or before."""
        self._epoch, self._sequence = batch.epoch, batch.sequence
        self.batch = batch
        self.at = at
        self.jobs: dict[str, JobRecord] = {}
        self._intents: list[SubmissionRecord] = []
        self._outcomes: list[SubmissionOutcome] = []
        self._told: list[tuple[str, Document, ToldPrice | None]] = []
        self._events: list[EventRecord] = []
        self._closing: Closing | None = None

    def move(self, job: JobRecord, move: JobMove, event: EventName | None = None, **fields: Any) -> JobRecord:
        """Move a job, with an event if given; `fields` are the columns of its record that change with it."""
        after = next_job_status(job.status, move)
        times: dict[str, Any] = {"updated_at": self.at}
        if after in (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED):
            times["completed_at"] = self.at
        moved = job._replace(status=after, **{**times, **fields})
        sequence = self.batch.sequence + (event is not None)
        self.batch = recount(self.batch, job.status, after, sequence=sequence, updated_at=self.at)
        self.jobs[job.id] = moved
        if event is not None:
            self._events.append(job_event(event, self.batch, moved, sequence, self.at, self.charges.cost(job.id)))
        return moved

    def fail(self, job: JobRecord, failure: Failure) -> JobRecord:
        """End a job with an error."""
        self.last_error = failure.document()
        return self.move(job, JobMove.FAIL, EventName.JOB_FAILED, error=self.last_error)

    def intend(self, job: JobRecord, intent: SubmissionRecord) -> JobRecord:
        """Record that a POST is about to go out."""
        self._intents.append(intent)
        self.charges.intend(intent)
        return self.move(job, JobMove.INTEND, attempts=intent.attempt, progress=0)

    def resolve(
        self, submission_id: str, state: SubmissionState, note: str | None = None, *, charged: bool = True
    ) -> None:
        """Record the outcome of a submission; `charged`: whether a generation that failed is charged for."""
        outcome = SubmissionOutcome(submission_id=submission_id, state=state, note=note, charged=charged)
        self._outcomes.append(outcome)
        self.charges.resolve(submission_id, state, charged=charged)

    def note_told(self, submission_id: str, told: Document | None) -> None:
        """Record what the server said about a submission's price."""
        if told is not None:
            self._told.append((submission_id, told, price_in(told)))
            self.charges.tell(submission_id, told)

    @property
    def intents(self) -> int:
        """How many POSTs are about to go out."""
        return len(self._intents)

    @property
    def settles(self) -> bool:
        """Whether it says what became of a payment."""
        return bool(self._outcomes or self._told)

    def continue_from(self, refused: BatchUpdate) -> None:
        """Take over what an earlier update did not record, without its intents and our own."""
        self._epoch, self._sequence = refused._epoch, refused._sequence
        self.jobs = {**refused.jobs, **self.jobs}
        for intent in (*refused._intents, *self._intents):
            self.charges.take_back(intent.id)
        self._intents = []
        self._outcomes = [*refused._outcomes, *self._outcomes]
        self._told = [*refused._told, *self._told]
        self._events = [*refused._events, *self._events]

    def move_batch(self, move: BatchMove, **fields: Any) -> None:
        """Move the batch."""
        self.batch = self.batch._replace(status=next_batch_status(self.batch.status, move), **fields)

    def tell(self, event: EventName, **more: Any) -> None:
        """Add an event of the batch as it is now."""
        self._events.append(batch_event(event, self._counted(), self.batch.sequence, self.at, **more))

    def tell_job(self, event: EventName, job: JobRecord) -> None:
        """Add an event of a job that this update moved, with the batch as it is now."""
        self._events.append(
            job_event(event, self._counted(), job, self.batch.sequence, self.at, self.charges.cost(job.id))
        )

    def close(self, move: BatchMove, *, error: Failure | None = None, **more: Any) -> None:
        """End the batch: it no longer needs an owner, and its last event has the whole result."""
        document = error.document() if error else None
        self.move_batch(move, completed_at=self.at, error=document, owner=None, wanted=False, claims=0)
        self._counted()

        def closing(batch: BatchRecord, jobs: Iterable[JobRecord], costs: BatchCosts) -> EventRecord:
            return final_event(batch, jobs, batch.sequence, batch.updated_at, costs, **more)

        self._closing = closing

    def summed_up(self) -> Failure:
        """Why a batch whose jobs have all ended has failed, or failed in part."""
        text, last = f"{self.batch.failed} of {self.batch.total} videos failed", self.last_error
        if last is None:  # its record was removed by hand
            return Failure(ErrorCode.GENERATION_FAILED, text)
        return Failure(ErrorCode(last["code"]), f"{text}; last error: {last['message']}")

    @property
    def changed(self) -> bool:
        """Whether there is anything to record."""
        return bool(self.jobs or self._outcomes or self._events or self._closing)

    def changes(self) -> Changes:
        """What to record."""
        return Changes(
            batch=self.batch,
            epoch=self._epoch,
            sequence=self._sequence,
            jobs=tuple(self.jobs.values()),
            intents=tuple(self._intents),
            outcomes=tuple(self._outcomes),
            told=tuple(self._told),
            events=tuple(self._events),
            closing=self._closing,
        )

    def _counted(self) -> BatchRecord:
        """Take the next sequence number."""
        self.batch = self.batch._replace(sequence=self.batch.sequence + 1, updated_at=self.at)
        return self.batch


def derived_counts(jobs: Sequence[JobRecord]) -> dict[str, int]:
    """The counts of a batch, from its jobs. `recount` must yield the same."""
    return {
        "completed": sum(job.status is JobStatus.COMPLETED for job in jobs),
        "failed": sum(job.status is JobStatus.FAILED for job in jobs),
        "cancelled": sum(job.status is JobStatus.CANCELLED for job in jobs),
        "processing": sum(job.status in IN_FLIGHT_JOB for job in jobs),
    }
