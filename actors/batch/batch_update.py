"""BatchUpdate: a pending change of a batch, which folds several moves; and what is recorded before a POST. Pure."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from actors.batch.events import EventName, batch_event, final_event, job_event
from actors.batch.requests import canonical_digest
from actors.batch.transitions import BatchMove, JobMove, next_batch_status, next_job_status, recount
from actors.errors import ErrorCode, Failure
from storage.changes import Changes, Closing, SubmissionOutcome
from storage.charges import BatchCosts, Charges, ToldPrice
from storage.records import BatchRecord, Document, EventRecord, JobRecord, SubmissionRecord
from storage.states import ChargeState, JobStatus, SubmissionState
from storage.urls import key_of, server_of

if TYPE_CHECKING:
    from actors.batch.prices import Priced

_USD = "USD"
_FACTORS = {
    "usage.cost": Decimal(1),
    "usage.cost_in_usd_ticks": Decimal("1e-10"),
    "x-litellm-response-cost": Decimal(1),
}
"""US dollars in a unit of each field, the most exact first."""


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

    def without_a_video(self, job: JobRecord) -> JobRecord:
        """An open job that has no live submission, as one whose POST may be intended."""
        if job.status is JobStatus.SUBMITTING:
            return self.move(job, JobMove.WITHDRAW, attempts=max(0, job.attempts - 1))
        if job.status is not JobStatus.PENDING:
            # Its video was deleted by us: a retry had come before the answer to the DELETE.
            return self.move(job, JobMove.REMAKE, remote_id=None, started_at=None)
        return job

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
            self._told.append((submission_id, told, price := price_in(told)))
            self.charges.tell(submission_id, price)

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


def request_digest(job: JobRecord) -> str:
    """What a job asks of the server: two jobs with one digest can't be told apart by it."""
    further = [{"seed": job.seed, "params": job.params, "files": job.files}] if job.options else []
    return canonical_digest([job.prompt, job.model, job.duration, job.size, job.reference, *further])


def new_intent(job: JobRecord, provider: str, sender: str, at: float, price: Priced | None = None) -> SubmissionRecord:
    """That a job's POST is about to go out, and what it costs at most; None: its price is unknown."""
    currency, micros, rate = price or (None, None, None)
    return SubmissionRecord(
        id=uuid.uuid4().hex,
        job_id=job.id,
        batch_id=job.batch_id,
        attempt=job.attempts + 1,
        digest=request_digest(job),
        provider=provider,
        sender=sender,
        intended_at=at,
        state=SubmissionState.INTENDED,
        server=server_of(provider),
        key_fingerprint=key_of(provider),
        model=job.model,
        seconds=job.duration,
        charge=ChargeState.RESERVED,
        currency=currency,
        reserved_micros=micros,
        rate=rate,
    )


def price_in(told: Mapping[str, Any]) -> ToldPrice | None:
    """The price that a server told under its own names, kept exactly; None: it told none."""
    for name, factor in _FACTORS.items():
        if (value := told.get(name)) is not None:
            try:
                amount = Decimal(str(value)) * factor
            except InvalidOperation:
                amount = Decimal("NaN")
            return ToldPrice(_USD, amount)
    return None
