"""Cancelling a batch: a takeover in one transaction, the possible charges, and the DELETEs that are owed."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from actors.batch.batch_update import BatchUpdate
from actors.batch.events import EventName
from actors.batch.loading import existing
from actors.batch.transitions import BatchMove, JobMove
from actors.batch.views import CancellationSummary, Charge
from actors.errors import Conflict, ErrorCode
from storage.charges import Charges
from storage.records import BatchRecord, JobRecord, SubmissionRecord
from storage.states import FINAL_BATCH, FINAL_JOB, BatchStatus, JobStatus, SubmissionState
from storage.storage import Storage


class DeleteIsOut(Exception):
    """A DELETE for a job to be retried is in flight: wait for its answer or its timeout."""

    def __init__(self, seconds: float, submission_ids: list[str]) -> None:
        super().__init__(f"a DELETE is in flight, for at most {seconds:.1f} s")
        self.seconds, self.submission_ids = seconds, submission_ids


def owe_deletes(storage: Storage, tries: Iterable[SubmissionRecord], jobs: dict[str, JobRecord]) -> None:
    """Record that the server is to delete the videos of cancelled jobs, unless we adopted them."""
    owed = [
        entry
        for entry in _of_cancelled(tries, jobs)
        if entry.state is SubmissionState.BOUND and entry.remote_id is not None and not entry.adopted
    ]
    if owed:
        storage.submissions.fill_in()
        storage.deletes.owe(owed)


def owe_delete_of_cancelled(storage: Storage, submission_id: str) -> None:
    """Like `owe_deletes`, for a video whose POST was answered after its job may have been cancelled."""
    entry = storage.submissions.get(submission_id)
    owe_deletes(storage, [entry], storage.jobs.by_id([entry.job_id]))


def withdraw_deletes(storage: Storage, batch_id: str, chosen: Iterable[JobRecord]) -> None:
    """Withdraw the owed DELETEs of jobs that are retried.

    Raises:
        DeleteIsOut: one of them is in flight.
    """
    live = storage.submissions.live_of_batch(batch_id)
    ours = [live[job.id].id for job in chosen if job.id in live]
    seconds = storage.deletes.withdraw(ours) if ours else 0.0
    if seconds:
        raise DeleteIsOut(seconds, ours)


def with_a_record(
    storage: Storage, batch_id: str, chosen: list[JobRecord], named: Collection[str], changed: Collection[str]
) -> tuple[list[JobRecord], list[JobRecord]]:
    """Split the chosen jobs: those that can be retried, and those that must not be paid for again without consent.

    Raises:
        Conflict: one of the latter is named, or only those are chosen.
    """
    gone = storage.deletes.record_gone(batch_id) - set(changed)
    left = [job for job in chosen if job.id in gone]
    if left and (len(left) == len(chosen) or gone & set(named)):
        raise Conflict(
            f"the server deleted its record of the video of {', '.join(job.id for job in left)} but may still be "
            "making it: that video is out of reach; allow paying again (--pay-again) to have a new one made"
        )
    return [job for job in chosen if job not in left], left


def cancel(
    storage: Storage, batch_id: str, reason: str | None, at: float, *, deletes: bool = True
) -> CancellationSummary:
    """Take a batch over and end it. The same write fences its owner, if it has one.

    With `deletes`, a DELETE is owed for each video of ours that the server may be making.

    Raises:
        NotFound: there is no such batch.
        Conflict: it has already ended differently.
    """
    batch = existing(storage, batch_id)
    if batch.status is BatchStatus.CANCELLED:
        tries, jobs = _tries(storage, batch)
        if deletes:  # a POST may have been answered since, or the DELETE been given up; a finished video is left alone
            ended_at, owed = batch.completed_at or 0.0, storage.deletes.of_batch(batch_id)
            before = {each.submission.id for each in owed}
            again = [entry for entry in tries if entry.id in before or (entry.closed_at or 0.0) >= ended_at]
            owe_deletes(storage, again, jobs)
        return _summary(batch, _charges(tries, jobs))
    if batch.status in FINAL_BATCH:
        raise Conflict(f"batch {batch_id} is already {batch.status}: there is nothing left to cancel")
    return _cancel(storage, batch, reason, at, deletes=deletes)  # crash point: cancel


def _cancel(
    storage: Storage, batch: BatchRecord, reason: str | None, at: float, *, deletes: bool
) -> CancellationSummary:
    step = BatchUpdate(batch, at, Charges(storage.submissions.of_this_batch(batch)))
    step.batch = step.batch._replace(epoch=batch.epoch + 1)
    failure = {"code": ErrorCode.CANCELLED.value, "message": reason or "the batch was cancelled", "retryable": True}
    finished = set()
    for job in storage.jobs.of_batch(batch.id, open_only=True):
        step.move(job, JobMove.CANCEL, EventName.JOB_CANCELLED, error={**failure, "detail": None})
        if job.status is JobStatus.DOWNLOADING:
            finished.add(job.id)
    tries, jobs = _tries(storage, batch, step.jobs)
    charges = _charges(tries, jobs)
    told = [charge.model_dump() for charge in charges if charge.job_id in step.jobs]
    step.close(BatchMove.CANCEL, reason=reason, may_be_charged=told)
    if not storage.apply(step.changes()):
        raise AssertionError("the batch is locked by this transaction")
    if deletes:
        owe_deletes(storage, [entry for entry in tries if entry.job_id not in finished], jobs)
    return _summary(step.batch, charges)


def _summary(batch: BatchRecord, charges: list[Charge]) -> CancellationSummary:
    return CancellationSummary.model_construct(
        batch_id=batch.id,
        status=batch.status,
        total=batch.total,
        cancelled=batch.cancelled,
        completed=batch.completed,
        failed=batch.failed,
        already_final=batch.completed + batch.failed,
        may_be_charged=charges,
    )


_CHARGED = {
    SubmissionState.INTENDED: JobStatus.SUBMITTING.value,
    SubmissionState.UNKNOWN: JobStatus.SUBMITTING.value,
    SubmissionState.CLASHED: JobStatus.GENERATING.value,
    SubmissionState.BOUND: JobStatus.GENERATING.value,
    SubmissionState.DELETED: JobStatus.GENERATING.value,  # what it had cost by then, nobody tells
    SubmissionState.SURPLUS: JobStatus.GENERATING.value,
}


def _tries(
    storage: Storage, batch: BatchRecord, known: dict[str, JobRecord] | None = None
) -> tuple[list[SubmissionRecord], dict[str, JobRecord]]:
    """The submissions that a server may still charge for, and their jobs: from `known`, else from storage."""
    tries = [entry for entry in storage.submissions.of_this_batch(batch) if entry.state in _CHARGED]
    known = known or {}
    return tries, {**storage.jobs.by_id({entry.job_id for entry in tries} - known.keys()), **known}


def may_be_charged(storage: Storage, batch_id: str) -> list[Charge]:
    """The videos that the server may charge for, although nobody gets them, if the batch is cancelled or was."""
    batch = storage.batches.get(batch_id)
    if batch is None:
        return []
    tries, jobs = _tries(storage, batch)
    return _charges(
        tries,
        {
            job_id: job if job.status in FINAL_JOB else job._replace(status=JobStatus.CANCELLED)
            for job_id, job in jobs.items()
        },
    )


def _charges(tries: list[SubmissionRecord], jobs: dict[str, JobRecord]) -> list[Charge]:
    """The videos of cancelled jobs that a server may still make and charge for."""
    charged = sorted(_of_cancelled(tries, jobs), key=lambda entry: jobs[entry.job_id].position)
    return [
        Charge.model_construct(job_id=entry.job_id, remote_id=entry.remote_id, state=_CHARGED[entry.state])
        for entry in charged
    ]


def _of_cancelled(tries: Iterable[SubmissionRecord], jobs: dict[str, JobRecord]) -> list[SubmissionRecord]:
    return [entry for entry in tries if entry.job_id in jobs and jobs[entry.job_id].status is JobStatus.CANCELLED]
