"""What may be done to a batch from outside: create, want, cancel, retry, delete. Each is one transaction.

The functions run in the recorder's thread, inside its transaction; what they decide comes from `lifecycle`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from actors.errors import Conflict, ErrorCode, FieldError, InvalidRequest, NotFound
from actors.events import EventName, batch_event
from actors.lifecycle import BatchMove, JobMove, Step
from actors.model import CancellationSummary, Charge
from storage.changes import Storage
from storage.recorder import Recorder
from storage.records import BatchRecord, JobRecord, ReferenceRecord, SubmissionRecord
from storage.states import FINAL_BATCH, BatchStatus, JobStatus, SubmissionState
from storage.videos import VideoFolder

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NewBatch:
    """A batch to create, complete with its jobs and the bytes of their references."""

    batch: BatchRecord
    jobs: list[JobRecord]
    references: list[ReferenceRecord]


def create(storage: Storage, new: NewBatch) -> bool:
    """Store a batch, once.

    Returns:
        False if it was stored before: nothing was written.

    Raises:
        Conflict: the id exists with another request.
    """
    sequence = storage.journal.last_sequence(new.batch.id) + 1
    batch = new.batch._replace(sequence=sequence)
    if not storage.batches.add(batch):
        if existing(storage, batch.id).digest != batch.digest:
            raise Conflict(f"batch {batch.id} exists already, with another request; choose another id")
        return False
    for reference in new.references:
        storage.jobs.keep_reference(reference)
    storage.jobs.add(new.jobs)
    storage.journal.append([batch_event(EventName.BATCH_CREATED, batch, sequence, batch.created_at)])
    return True


def existing(storage: Storage, batch_id: str) -> BatchRecord:
    """The batch, locked.

    Raises:
        NotFound: there is none; the text names the database that was looked in.
    """
    batch = storage.batches.locked(batch_id)
    if batch is None:
        raise unknown(storage, batch_id)
    return batch


def unknown(storage: Storage, batch_id: str) -> NotFound:
    """The error for an id that is not there."""
    return NotFound(f"there is no batch {batch_id!r} in the database {storage.database.place}")


def want(storage: Storage, batch_id: str, provider: str, concurrency: int | None) -> BatchStatus:
    """Mark a batch as wanted: whoever has room may claim it.

    Raises:
        NotFound: there is no such batch.
        Conflict: it was started at another provider.
    """
    batch = existing(storage, batch_id)
    if batch.status in FINAL_BATCH:
        return batch.status
    check_provider(batch, provider)
    changes: dict[str, Any] = {"wanted": True, "claims": 0}
    if concurrency is not None and batch.owner is None:
        changes["concurrency"] = concurrency
    storage.batches.update(batch_id, **changes)
    return batch.status


def check_provider(batch: BatchRecord, provider: str) -> None:
    """See that a batch's videos are made where they were begun.

    Raises:
        Conflict: it was started elsewhere.
    """
    if batch.provider not in (None, provider):
        here, there = (place.partition("#")[0] for place in (provider, batch.provider or ""))
        key = ", with another key" if here == there else ""
        raise Conflict(
            f"batch {batch.id} was started at {there}, and this is {here}{key}: its videos are there; set "
            "OPENAI_BASE_URL and OPENAI_API_KEY to that server's (--simulate for the simulator)"
        )


def rebind(storage: Storage, batch: BatchRecord, provider: str) -> None:
    """See that a batch may be retried there; bind it to another key of its server, if nothing is left under its own.

    So a key that was wrong is mended. A completed batch has nothing to retry, and stays as it is.

    Raises:
        Conflict: it was started elsewhere, or may have videos under its own key.
    """
    here, there = (place.partition("#")[0] for place in (provider, batch.provider or ""))
    live = storage.submissions.live_of_batch(batch.id)
    left = any(job.status is not JobStatus.COMPLETED for job in storage.jobs.by_id(live).values())
    if here != there or left or batch.status not in FINAL_BATCH - {BatchStatus.COMPLETED}:
        check_provider(batch, provider)
    elif batch.provider != provider:
        storage.batches.update(batch.id, provider=provider)


def cancel(storage: Storage, batch_id: str, reason: str | None, at: float) -> CancellationSummary:
    """Take a batch over and end it. Its owner, if it has one, is fenced by the same write.

    Raises:
        NotFound: there is no such batch.
        Conflict: it has ended otherwise.
    """
    batch = existing(storage, batch_id)
    if batch.status is BatchStatus.CANCELLED:
        return _summary(batch, _charges(*_tries(storage, batch_id)))
    if batch.status in FINAL_BATCH:
        raise Conflict(f"batch {batch_id} is {batch.status} already: there is nothing left to cancel")
    return _cancel(storage, batch, reason, at)


def _cancel(storage: Storage, batch: BatchRecord, reason: str | None, at: float) -> CancellationSummary:
    step = Step(batch, at)
    step.batch = step.batch._replace(epoch=batch.epoch + 1)
    failure = {"code": ErrorCode.CANCELLED.value, "message": reason or "the batch was cancelled", "retryable": True}
    for job in storage.jobs.of_batch(batch.id, open_only=True):
        step.move(job, JobMove.CANCEL, EventName.JOB_CANCELLED, error={**failure, "detail": None})
    tries, jobs = _tries(storage, batch.id, step.jobs)
    charges = _charges(tries, jobs)
    told = [charge.model_dump() for charge in charges if charge.job_id in step.jobs]
    step.close(BatchMove.CANCEL, reason=reason, may_be_charged=told)
    if not storage.apply(step.changes()):
        raise AssertionError("the batch is locked by this transaction")
    return _summary(step.batch, charges)


def tidy(storage: Storage, folder: VideoFolder, batch_id: str) -> None:
    """Remove the files of an ended batch that no completed job has: unfinished ones, and those that came too late.

    For whoever cancelled it, lost it, ended it after another owner, or noted its owner's death. It is locked meanwhile:
    a retry begins later. In a transaction of its own: an end that is not committed yet may still come to nothing, and a
    removed file does not come back.
    """
    if not folder.batch(batch_id).is_dir():
        return
    with storage.database.begin():
        batch = storage.batches.locked(batch_id)
        if batch is not None and batch.status in FINAL_BATCH:
            made = {entry.job_id for entry in storage.submissions.of_batch(batch_id) if entry.remote_id is not None}
            jobs = storage.jobs.by_id(made).values()  # of another one no file can have come
            folder.clear(batch_id, {job.id for job in jobs if job.status is not JobStatus.COMPLETED})


def tidy_soon(recorder: Recorder, storage: Storage, folder: VideoFolder, batch_id: str) -> None:
    """Have `tidy` done in the background, by the recorder's thread; nobody waits for it."""

    def told(done: Future[None]) -> None:
        error = done.exception()
        if error is not None:
            text = storage.database.told(error)
            logger.warning("a batch's files were not tidied", extra={"batch_id": batch_id, "error": text})

    recorder.read(lambda: tidy(storage, folder, batch_id)).add_done_callback(told)


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
    storage: Storage, batch_id: str, known: dict[str, JobRecord] | None = None
) -> tuple[list[SubmissionRecord], dict[str, JobRecord]]:
    """The tries that a server may still charge for, and their jobs: as they are `known`, else as recorded."""
    tries = [entry for entry in storage.submissions.of_batch(batch_id) if entry.state in _CHARGED]
    known = known or {}
    return tries, {**storage.jobs.by_id({entry.job_id for entry in tries} - known.keys()), **known}


def _charges(tries: list[SubmissionRecord], jobs: dict[str, JobRecord]) -> list[Charge]:
    """The videos of those jobs that are cancelled, as far as a server may still make and charge for them."""
    charged = [
        (jobs[entry.job_id].position, entry)
        for entry in tries
        if entry.job_id in jobs and jobs[entry.job_id].status is JobStatus.CANCELLED
    ]
    return [
        Charge.model_construct(job_id=entry.job_id, remote_id=entry.remote_id, state=_CHARGED[entry.state])
        for _, entry in sorted(charged, key=itemgetter(0))
    ]


def to_delete(storage: Storage, batch_id: str) -> list[SubmissionRecord]:
    """The submissions of cancelled jobs whose videos we made and may ask the server to delete."""
    jobs = {job.id: job for job in storage.jobs.of_batch(batch_id)}
    live = storage.submissions.live_of_batch(batch_id).values()
    return [entry for entry in live if _may_be_deleted(entry, jobs[entry.job_id])]


def still_to_delete(storage: Storage, submission_id: str) -> bool:
    """Whether that still holds: a retry may have come, and want the video."""
    entry = storage.submissions.get(submission_id)
    job = storage.jobs.by_id([entry.job_id]).get(entry.job_id)
    return job is not None and _may_be_deleted(entry, job)


def _may_be_deleted(entry: SubmissionRecord, job: JobRecord) -> bool:
    ours = entry.state is SubmissionState.BOUND and entry.remote_id is not None and not entry.adopted
    return ours and job.status is JobStatus.CANCELLED


def retry(
    storage: Storage,
    batch_id: str,
    *,
    job_ids: Sequence[str] | None,
    changes: dict[str, dict[str, Any]],
    changed_references: list[ReferenceRecord],
    pay_again: bool,
    at: float,
) -> list[str]:
    """Put what failed or was cancelled back to work; what Sora may still have is attached to, never paid anew.

    Args:
        storage: where.
        batch_id: of a batch that has ended.
        job_ids: only these; None: all that failed or was cancelled, but for those of which nobody knows.
        changes: for a job id, the columns of its request that change; that is a new payment.
        changed_references: the bytes that the changes refer to.
        pay_again: the consent to pay for what may exist: an unknown outcome, a video that the server lost, and
            whatever is named.
        at: now.

    Returns:
        The ids of the jobs that are tried again.

    Raises:
        InvalidRequest: the list of jobs is empty.
        NotFound: there is no such batch, or no such job in it.
        Conflict: the batch has not ended, or nothing of it can be tried again.
    """
    if job_ids is not None and not job_ids:
        message = "job_ids: must name at least one job; leave it out for all that failed or were cancelled"
        raise InvalidRequest(message, (FieldError("/job_ids", message, "at least one job", "too_short"),))
    batch = existing(storage, batch_id)
    if batch.status not in FINAL_BATCH:
        raise Conflict(f"batch {batch_id} is {batch.status}: wait until it has ended, or cancel it")
    jobs = {job.id: job for job in storage.jobs.of_batch(batch_id)}
    named = [*(job_ids or []), *(job_id for job_id in changes if job_id not in (job_ids or []))]
    for job_id in named:
        if job_id not in jobs:
            raise NotFound(f"batch {batch_id} has no job {job_id!r}; it has {', '.join(list(jobs)[:5])}, ...")
        if jobs[job_id].status is JobStatus.COMPLETED:
            raise Conflict(f"job {job_id} is completed: there is nothing to retry")
    chosen = _chosen(batch, jobs, named, pay_again=pay_again)
    for reference in changed_references:
        storage.jobs.keep_reference(reference)
    consented = _consented(storage, batch_id, chosen, named, pay_again=pay_again)
    _put_back(storage, batch, chosen, changes, consented, at)
    return [job.id for job in chosen]


def _chosen(batch: BatchRecord, jobs: dict[str, JobRecord], named: list[str], *, pay_again: bool) -> list[JobRecord]:
    if named:
        return [job for job in jobs.values() if job.id in named]
    ended = [job for job in jobs.values() if job.status in (JobStatus.FAILED, JobStatus.CANCELLED)]
    unknown_jobs = [job for job in ended if job.error and job.error["code"] == ErrorCode.SUBMISSION_UNKNOWN.value]
    chosen = ended if pay_again else [job for job in ended if job not in unknown_jobs]
    if not chosen:
        left = ", ".join(job.id for job in unknown_jobs)
        why = (
            f"whether {left} was made is unknown; naming the job looks again, and allowing to pay again submits it anew"
            if left
            else "nothing failed or was cancelled"
        )
        raise Conflict(f"batch {batch.id} is {batch.status}, and nothing of it can be retried: {why}")
    return chosen


def _put_back(
    storage: Storage,
    batch: BatchRecord,
    chosen: list[JobRecord],
    changes: dict[str, dict[str, Any]],
    consented: set[str],
    at: float,
) -> None:
    changed = {
        job.id for job in chosen if any(getattr(job, name) != value for name, value in changes.get(job.id, {}).items())
    }
    storage.submissions.abandon(batch.id, consented | changed)
    live = storage.submissions.live_of_batch(batch.id)
    step = Step(batch, at)
    step.batch = step.batch._replace(epoch=batch.epoch + 1, wanted=True, spent=0.0, claims=0)
    step.move_batch(BatchMove.RETRY, completed_at=None, error=None)
    anew = {"error": None, "completed_at": None, "progress": 0}
    for job in chosen:
        submission = live.get(job.id)
        remote_id = submission.remote_id if submission else None
        accepted_at = at if remote_id else None
        fields = {**anew, "remote_id": remote_id, "started_at": accepted_at, **changes.get(job.id, {})}
        step.move(job, _way_back(submission), **fields)
    # Told when all have moved: the progress in an event is the one after it.
    step.tell(EventName.BATCH_RETRIED, job_ids=list(step.jobs))
    for moved in step.jobs.values():
        step.tell_job(EventName.JOB_RETRIED, moved)
    if not storage.apply(step.changes()):
        raise AssertionError("the batch is locked by this transaction")


def _consented(
    storage: Storage, batch_id: str, chosen: list[JobRecord], named: list[str], *, pay_again: bool
) -> set[str]:
    """For which jobs a person said that what may exist shall not keep us from paying again."""
    if not pay_again:
        return set()
    live = storage.submissions.live_of_batch(batch_id)
    unresolved = {job_id for job_id, submission in live.items() if submission.remote_id is None}
    lost = {job.id for job in chosen if job.error and job.error["code"] == ErrorCode.NOT_FOUND.value}
    return {job.id for job in chosen} & (unresolved | lost | set(named))


def _way_back(submission: SubmissionRecord | None) -> JobMove:
    if submission is None:
        return JobMove.RETRY
    return JobMove.RECHECK if submission.remote_id is None else JobMove.REATTACH


def delete(storage: Storage, batch_id: str, at: float) -> None:
    """Forget an ended batch; its journal stays until it is pruned.

    Raises:
        NotFound: there is no such batch.
        Conflict: it has not ended.
    """
    batch = existing(storage, batch_id)
    if batch.status not in FINAL_BATCH:
        raise Conflict(f"batch {batch_id} is {batch.status}: only what has ended can be deleted; cancel it first")
    storage.submissions.abandon(batch_id, [job.id for job in storage.jobs.of_batch(batch_id)])
    storage.journal.append([batch_event(EventName.BATCH_DELETED, batch, batch.sequence + 1, at)])
    storage.publications.delete(batch_id, batch.sequence + 1)
    storage.batches.remove(batch_id)
