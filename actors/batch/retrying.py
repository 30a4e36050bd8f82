"""Retrying what failed or was cancelled: which jobs, and how each resumes without being paid for twice."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from actors.batch.batch_update import BatchUpdate
from actors.batch.cancellation import with_a_record, withdraw_deletes
from actors.batch.changes import check_files, columns_of, is_changed
from actors.batch.events import EventName
from actors.batch.loading import existing
from actors.batch.start import bring, move_server
from actors.batch.transitions import BatchMove, JobMove
from actors.errors import Conflict, ErrorCode, FieldError, InvalidRequest, NotFound
from storage.charges import Charges
from storage.records import BatchRecord, JobRecord, ReferenceRecord, SubmissionRecord
from storage.states import FINAL_BATCH, JobStatus, SubmissionState
from storage.storage import Storage


class Retried(NamedTuple):
    """The retried jobs of a batch, and those that a blanket retry left alone."""

    job_ids: tuple[str, ...]
    left_alone: tuple[str, ...] = ()


def retry(
    storage: Storage,
    batch_id: str,
    provider: str,
    *,
    job_ids: Sequence[str] | None,
    changes: dict[str, dict[str, Any]],
    changed_references: list[ReferenceRecord],
    pay_again: bool,
    at: float,
    moves_server: bool = False,
) -> Retried:
    """Requeue what failed or was cancelled; what the server may still have is re-attached, never paid for again.

    Args:
        storage: where.
        batch_id: of a batch that has ended.
        provider: where its videos are made from now on.
        job_ids: only these; None: all failed or cancelled jobs that an unchanged retry can help.
        changes: by job id, the columns of its request that change; a changed job is paid for again.
        changed_references: the bytes that the changes refer to.
        pay_again: consent to pay again for what may exist: an unknown outcome, a video that the server lost, and
            every named job.
        at: now.
        moves_server: the server has moved to this address; with `pay_again`: this is another server.

    Raises:
        InvalidRequest: the list of jobs is empty.
        NotFound: there is no such batch, or no such job in it.
        Conflict: the batch has not ended, has no job to retry, or was started elsewhere.
        DeleteIsOut: wait for the DELETE, then call this again.
    """
    batch = existing(storage, batch_id)
    if batch.status not in FINAL_BATCH:
        raise Conflict(f"batch {batch_id} is {batch.status}: wait for it to end, or cancel it")
    jobs = {job.id: job for job in storage.jobs.of_batch(batch_id)}
    named = _named(batch_id, jobs, job_ids, changes)
    columns = {job_id: columns_of(jobs[job_id], change) for job_id, change in changes.items()}
    chosen, left = _chosen(storage, batch, jobs, named, changes, pay_again=pay_again)
    if moves_server:
        move_server(storage, batch, provider, pay_again=pay_again)
    else:
        bring(storage, batch, provider)
    let_go = _let_go(storage, batch_id, chosen, named, columns, pay_again=pay_again)
    withdraw_deletes(storage, batch_id, [job for job in chosen if job.id not in let_go])
    for reference in changed_references:
        storage.jobs.keep_reference(reference)
    check_files(storage, columns)
    _put_back(storage, existing(storage, batch_id), chosen, columns, let_go, at)  # crash point: retry
    return Retried(tuple(job.id for job in chosen), tuple(job.id for job in left))


def _named(
    batch_id: str, jobs: Mapping[str, JobRecord], job_ids: Sequence[str] | None, changes: Mapping[str, Any]
) -> dict[str, None]:
    """The ids that are named or changed, each once and in order."""
    if job_ids is not None and not job_ids:
        message = "job_ids: must name at least one job; omit it to retry every failed or cancelled job"
        raise InvalidRequest(message, (FieldError("/job_ids", message, "at least one job", "too_short"),))
    named = dict.fromkeys([*(job_ids or []), *changes])
    for job_id in named:
        if job_id not in jobs:
            raise NotFound(f"batch {batch_id} has no job {job_id!r}; it has {', '.join(list(jobs)[:5])}, ...")
        if jobs[job_id].status is JobStatus.COMPLETED:
            raise Conflict(f"job {job_id} is completed: {_nothing_to_retry(jobs[job_id])}")
    return named


def _nothing_to_retry(job: JobRecord) -> str:
    removed_at = (job.video or {}).get("removed_at")
    if removed_at is None:
        return "there is nothing to retry"
    when = f"{datetime.fromtimestamp(removed_at, UTC):%Y-%m-%d}"
    return f"its file was removed on {when}, by VIDEO_KEEP or prune --files; a new batch makes it again"


_WORTH_ANOTHER_TRY = frozenset({ErrorCode.PERMISSION, ErrorCode.NOT_FOUND, ErrorCode.SUBMISSION_UNKNOWN})
"""Not retryable as such, but often fixed before a blanket retry: rights, an address, an outcome known since."""


_TELLS = frozenset({SubmissionState.BOUND, SubmissionState.NOT_SENT, SubmissionState.REFUSED})


def _unknown(storage: Storage, batch_id: str, jobs: Collection[JobRecord]) -> set[str]:
    """The jobs whose outcome is still unknown: some answers arrive after their job has ended."""
    unknown = {job.id for job in jobs if _code(job) is ErrorCode.SUBMISSION_UNKNOWN}
    entries = storage.submissions.of_batch(batch_id) if unknown else []
    last = {entry.job_id: entry.state for entry in entries}
    return {job_id for job_id in unknown if last.get(job_id) not in _TELLS}


def _chosen(
    storage: Storage,
    batch: BatchRecord,
    jobs: dict[str, JobRecord],
    named: Collection[str],
    changes: Collection[str],
    *,
    pay_again: bool,
) -> tuple[list[JobRecord], list[JobRecord]]:
    """The jobs to retry, and those to leave alone."""
    left: list[JobRecord] = []
    if named:
        chosen = [job for job in jobs.values() if job.id in named]
    else:
        unknown = _unknown(storage, batch.id, jobs.values())
        chosen, left = _worth_a_try(batch, jobs, unknown, pay_again=pay_again)
    if pay_again:
        return chosen, left
    chosen, gone = with_a_record(storage, batch.id, chosen, named, changes)
    return chosen, left + gone


def _worth_a_try(
    batch: BatchRecord, jobs: dict[str, JobRecord], unknown: set[str], *, pay_again: bool
) -> tuple[list[JobRecord], list[JobRecord]]:
    """What a blanket retry retries, and what it leaves alone."""
    ended = [job for job in jobs.values() if job.status in (JobStatus.FAILED, JobStatus.CANCELLED)]
    chosen: list[JobRecord] = []
    left: list[JobRecord] = []
    for job in ended:
        helps = pay_again if job.id in unknown else _helps(job)
        (chosen if helps else left).append(job)
    if not chosen:
        unknown_ones = [job.id for job in left if job.id in unknown]
        why = "no job failed or was cancelled"
        if unknown_ones:
            ids = ", ".join(unknown_ones)
            why = (
                f"the outcome of {ids} is unknown; name the job to check again, or allow paying again (--pay-again) "
                "to resubmit it"
            )
        elif left:
            ids = ", ".join(f"{job.id} ({_code(job)})" for job in left)
            why = f"{ids} would fail again unchanged; change the request, or name the job to retry it anyway"
        raise Conflict(f"batch {batch.id} is {batch.status}, and has no job to retry: {why}")
    return chosen, left


def _code(job: JobRecord) -> ErrorCode | None:
    return ErrorCode(job.error["code"]) if job.error else None


def _helps(job: JobRecord) -> bool:
    """Whether an unchanged retry can help."""
    code = _code(job)
    return code is None or code.retryable or code in _WORTH_ANOTHER_TRY


def _put_back(
    storage: Storage,
    batch: BatchRecord,
    chosen: list[JobRecord],
    columns: Mapping[str, dict[str, Any]],
    let_go: set[str],
    at: float,
) -> None:
    storage.submissions.abandon(batch.id, let_go)
    live = storage.submissions.live_of_batch(batch.id)
    step = BatchUpdate(batch, at, Charges(storage.submissions.of_this_batch(batch)))
    step.batch = step.batch._replace(epoch=batch.epoch + 1, wanted=True, spent=0.0, claims=0)
    step.move_batch(BatchMove.RETRY, completed_at=None, error=None)
    anew = {"error": None, "completed_at": None, "progress": 0, "made": None}
    for job in chosen:
        submission = live.get(job.id)
        remote_id = submission.remote_id if submission else None
        accepted_at = at if remote_id else None
        fields = {**anew, "remote_id": remote_id, "started_at": accepted_at, **columns.get(job.id, {})}
        step.move(job, _way_back(submission), **fields)
    # Recorded once all have moved: an event has the progress after it.
    step.tell(EventName.BATCH_RETRIED, job_ids=list(step.jobs))
    for moved in step.jobs.values():
        step.tell_job(EventName.JOB_RETRIED, moved)
    if not storage.apply(step.changes()):
        raise AssertionError("the batch is locked by this transaction")
    storage.batches.update(batch.id, asked_again=False)
    storage.jobs.use_files(step.jobs.values())


def _let_go(
    storage: Storage,
    batch_id: str,
    chosen: list[JobRecord],
    named: Collection[str],
    columns: Mapping[str, dict[str, Any]],
    *,
    pay_again: bool,
) -> set[str]:
    """The jobs to pay for again: changed ones and, if a person allowed it, those of which a video may exist."""
    changed = {job.id for job in chosen if is_changed(job, columns.get(job.id, {}))}
    if not pay_again:
        return changed
    live = storage.submissions.live_of_batch(batch_id)
    unresolved = {job_id for job_id, submission in live.items() if submission.remote_id is None}
    lost = {job.id for job in chosen if job.error and job.error["code"] == ErrorCode.NOT_FOUND.value}
    gone = storage.deletes.record_gone(batch_id)
    return changed | ({job.id for job in chosen} & (unresolved | lost | gone | set(named)))


def _way_back(submission: SubmissionRecord | None) -> JobMove:
    if submission is None:
        return JobMove.RETRY
    return JobMove.RECHECK if submission.remote_id is None else JobMove.REATTACH
