"""That a job's POST is about to go out: what is recorded of it before, and what it asks for. Pure."""

from __future__ import annotations

import uuid

from actors.batch.assignment import Priced
from actors.batch.requests import canonical_digest
from actors.batch.transitions import BatchUpdate, JobMove
from storage.records import JobRecord, SubmissionRecord
from storage.servers import key_of, server_of
from storage.states import ChargeState, JobStatus, SubmissionState


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


def without_a_video(update: BatchUpdate, job: JobRecord) -> JobRecord:
    """An open job that has no live submission, as one whose POST may be intended."""
    if job.status is JobStatus.SUBMITTING:
        return update.move(job, JobMove.WITHDRAW, attempts=max(0, job.attempts - 1))
    if job.status is not JobStatus.PENDING:
        # Its video was deleted by us: a retry had come before the answer to the DELETE.
        return update.move(job, JobMove.REMAKE, remote_id=None, started_at=None)
    return job
