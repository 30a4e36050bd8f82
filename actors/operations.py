"""What may be done to a batch from outside: create, want, cancel, retry, delete. Each is one transaction.

The functions run in the recorder's thread, inside its transaction; what they decide comes from `lifecycle`.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

from actors.deletes import owe_deletes, with_a_record, withdraw_deletes
from actors.errors import Conflict, ErrorCode, FieldError, InvalidRequest, NotFound
from actors.events import EventName, batch_event
from actors.lifecycle import BatchMove, JobMove, Step
from actors.model import CancellationSummary, Charge
from actors.settings import SIMULATOR
from storage.changes import Storage
from storage.providers import server_of
from storage.recorder import Recorder
from storage.records import BatchRecord, EventRecord, JobRecord, ReferenceRecord, SubmissionRecord
from storage.states import FINAL_BATCH, LIVE_SUBMISSION, BatchStatus, JobStatus, SubmissionState
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
        if storage.batches.hidden(batch.id):
            raise Conflict(f"batch {batch.id} is being deleted; try again when it is gone, or choose another id")
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


def want(storage: Storage, batch_id: str, provider: str, concurrency: int | None) -> bool:
    """Mark a batch as wanted: whoever has room may claim it.

    Returns:
        Whether nobody had wanted it before.

    Raises:
        NotFound: there is no such batch.
        Conflict: it was started at another server, which may have made something of it.
    """
    batch = existing(storage, batch_id)
    if batch.status in FINAL_BATCH:
        return False
    bring(storage, batch, provider)
    # Its server from now on: a simulated one that nobody claimed in time does not begin to cost.
    changes: dict[str, Any] = {"wanted": True, "claims": 0, "server": server_of(provider)}
    if batch.provider is None:
        changes["provider"] = provider
    if concurrency is not None and batch.owner is None:
        changes["concurrency"] = concurrency
    storage.batches.update(batch_id, **changes)
    return not batch.wanted


def bring(storage: Storage, batch: BatchRecord, provider: str) -> None:
    """See that a batch's videos may be made at this server, with whatever key; bring it there if nothing was made.

    Raises:
        Conflict: it was started at another server, which may have made something of it.
    """
    if batch.provider is None or server_of(batch.provider) == server_of(provider):
        return
    here, there = server_of(provider), server_of(batch.provider)
    simulated = SIMULATOR in (here, there)  # a batch that cost nothing does not begin to cost by itself
    owned = batch.owner is not None and storage.owners.alive(batch.owner)
    if simulated or owned or _may_be_elsewhere(storage, batch.id):
        way_out = (
            "use --simulate for simulated batches, and only for them"
            if simulated
            else f"set OPENAI_BASE_URL to {there}, or, if that server has moved here: sora-batch retry {batch.id} "
            "--move-server (with --pay-again, if this is another one)"
        )
        raise Conflict(f"batch {batch.id} was started at {there}, and this is {here}: {way_out}")
    storage.batches.move(batch, provider)


def _may_be_elsewhere(storage: Storage, batch_id: str) -> bool:
    """Whether a job that isn't completed has a submission that may have made something."""
    tries = {entry.job_id for entry in storage.submissions.of_batch(batch_id) if entry.state in _MAY_HAVE_MADE}
    return any(job.status is not JobStatus.COMPLETED for job in storage.jobs.by_id(tries).values())


def move_server(storage: Storage, batch: BatchRecord, provider: str, *, pay_again: bool) -> None:
    """Have an ended batch go on at another address, on a person's word.

    `pay_again`: it is another server, and what the first may have made is let go; else the same one, with its videos.

    Raises:
        Conflict: one of the two is the simulator.
    """
    if batch.provider is None or server_of(batch.provider) == server_of(provider):
        return
    if SIMULATOR in (batch.provider, provider):
        raise Conflict(f"batch {batch.id}: a simulated batch and a server's are never exchanged; create it again there")
    if pay_again:
        jobs = storage.jobs.of_batch(batch.id)
        storage.submissions.abandon(batch.id, [job.id for job in jobs if job.status is not JobStatus.COMPLETED])
    elif not storage.submissions.move(batch.id, server_of(batch.provider), provider):
        raise Conflict(
            f"batch {batch.id}: other videos with the ids of this batch's are known at {server_of(provider)}, so it is "
            f"not the server of {server_of(batch.provider)}: use --move-server --pay-again for another one"
        )
    else:
        storage.servers.carry_over(server_of(batch.provider), server_of(provider))
    storage.batches.move(batch, provider)


def cancel(
    storage: Storage, batch_id: str, reason: str | None, at: float, *, deletes: bool = True
) -> CancellationSummary:
    """Take a batch over and end it. Its owner, if it has one, is fenced by the same write.

    With `deletes`, the server is owed a DELETE for each video of ours that it may be making.

    Raises:
        NotFound: there is no such batch.
        Conflict: it has ended otherwise.
    """
    batch = existing(storage, batch_id)
    if batch.status is BatchStatus.CANCELLED:
        tries, jobs = _tries(storage, batch_id)
        if deletes:  # a POST may have been answered since, or the DELETE been given up; a finished video is left alone
            ended_at, owed = batch.completed_at or 0.0, storage.deletes.of_batch(batch_id)
            before = {each.submission.id for each in owed}
            again = [entry for entry in tries if entry.id in before or (entry.closed_at or 0.0) >= ended_at]
            owe_deletes(storage, again, jobs)
        return _summary(batch, _charges(tries, jobs))
    if batch.status in FINAL_BATCH:
        raise Conflict(f"batch {batch_id} is {batch.status} already: there is nothing left to cancel")
    return _cancel(storage, batch, reason, at, deletes=deletes)


def _cancel(
    storage: Storage, batch: BatchRecord, reason: str | None, at: float, *, deletes: bool
) -> CancellationSummary:
    step = Step(batch, at)
    step.batch = step.batch._replace(epoch=batch.epoch + 1)
    failure = {"code": ErrorCode.CANCELLED.value, "message": reason or "the batch was cancelled", "retryable": True}
    finished = set()
    for job in storage.jobs.of_batch(batch.id, open_only=True):
        step.move(job, JobMove.CANCEL, EventName.JOB_CANCELLED, error={**failure, "detail": None})
        if job.status is JobStatus.DOWNLOADING:
            finished.add(job.id)
    tries, jobs = _tries(storage, batch.id, step.jobs)
    charges = _charges(tries, jobs)
    told = [charge.model_dump() for charge in charges if charge.job_id in step.jobs]
    step.close(BatchMove.CANCEL, reason=reason, may_be_charged=told)
    if not storage.apply(step.changes()):
        raise AssertionError("the batch is locked by this transaction")
    if deletes:
        owe_deletes(storage, [entry for entry in tries if entry.job_id not in finished], jobs)
    return _summary(step.batch, charges)


def tidy(storage: Storage, folder: VideoFolder, batch_id: str) -> None:
    """Remove the files of an ended batch that no job records: unfinished ones, and those that came too late.

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
            kept = {Path(job.video["path"]).name for job in jobs if job.video is not None}
            folder.clear(batch_id, {job.id for job in jobs}, kept)


def tidy_soon(recorder: Recorder, storage: Storage, folder: VideoFolder, batch_id: str) -> None:
    """Have `tidy` done in the background, by the recorder's thread; nobody waits for it."""

    def told(done: Future[None]) -> None:
        error = done.exception()
        if error is not None:
            text = storage.database.told(error)
            logger.warning("a batch's files were not tidied", extra={"batch_id": batch_id, "error": text})

    recorder.read(lambda: tidy(storage, folder, batch_id)).add_done_callback(told)


_MAY_HAVE_MADE = LIVE_SUBMISSION | {SubmissionState.SURPLUS}


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


@dataclass(frozen=True, slots=True)
class Retried:
    """The jobs of a batch that are tried again, and those that a blanket retry has left alone."""

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
    """Put what failed or was cancelled back to work; what Sora may still have is attached to, never paid anew.

    Args:
        storage: where.
        batch_id: of a batch that has ended.
        provider: where its videos are made from now on.
        job_ids: only these; None: all that failed or was cancelled, as far as trying again unchanged may help.
        changes: for a job id, the columns of its request that change; that is a new payment.
        changed_references: the bytes that the changes refer to.
        pay_again: the consent to pay for what may exist: an unknown outcome, a video that the server lost, and
            whatever is named.
        at: now.
        moves_server: the server has moved to this address; with `pay_again`: this is another server.

    Raises:
        InvalidRequest: the list of jobs is empty.
        NotFound: there is no such batch, or no such job in it.
        Conflict: the batch has not ended, nothing of it can be tried again, or it was started elsewhere.
        DeleteIsOut: wait for it, and call this again.
    """
    if job_ids is not None and not job_ids:
        message = "job_ids: must name at least one job; leave it out for all that failed or were cancelled"
        raise InvalidRequest(message, (FieldError("/job_ids", message, "at least one job", "too_short"),))
    batch = existing(storage, batch_id)
    if batch.status not in FINAL_BATCH:
        raise Conflict(f"batch {batch_id} is {batch.status}: wait until it has ended, or cancel it")
    jobs = {job.id: job for job in storage.jobs.of_batch(batch_id)}
    named = dict.fromkeys([*(job_ids or []), *changes])
    for job_id in named:
        if job_id not in jobs:
            raise NotFound(f"batch {batch_id} has no job {job_id!r}; it has {', '.join(list(jobs)[:5])}, ...")
        if jobs[job_id].status is JobStatus.COMPLETED:
            raise Conflict(f"job {job_id} is completed: there is nothing to retry")
    chosen, left = _chosen(batch, jobs, named, _unknown(storage, batch_id, jobs.values()), pay_again=pay_again)
    if not pay_again:
        chosen, gone = with_a_record(storage, batch_id, chosen, named, changes)
        left += gone
    if moves_server:
        move_server(storage, batch, provider, pay_again=pay_again)
    else:
        bring(storage, batch, provider)
    batch = existing(storage, batch_id)
    consented = _consented(storage, batch_id, chosen, named, pay_again=pay_again)
    let_go = consented | {job.id for job in chosen if _is_changed(job, changes.get(job.id, {}))}
    withdraw_deletes(storage, batch_id, [job for job in chosen if job.id not in let_go])
    for reference in changed_references:
        storage.jobs.keep_reference(reference)
    _put_back(storage, batch, chosen, changes, let_go, at)
    return Retried(tuple(job.id for job in chosen), tuple(job.id for job in left))


_WORTH_ANOTHER_TRY = frozenset({ErrorCode.PERMISSION, ErrorCode.NOT_FOUND, ErrorCode.SUBMISSION_UNKNOWN})
"""Not retryable by themselves, and yet mended before a retry of all: rights, an address, an outcome told since."""


_TELLS = frozenset({SubmissionState.BOUND, SubmissionState.NOT_SENT, SubmissionState.REFUSED})


def _unknown(storage: Storage, batch_id: str, jobs: Collection[JobRecord]) -> set[str]:
    """Which jobs may have been made, for all that is known by now: some answers come after their job has ended."""
    unknown = {job.id for job in jobs if _code(job) is ErrorCode.SUBMISSION_UNKNOWN}
    entries = storage.submissions.of_batch(batch_id) if unknown else []
    last = {entry.job_id: entry.state for entry in entries}
    return {job_id for job_id in unknown if last.get(job_id) not in _TELLS}


def _chosen(
    batch: BatchRecord, jobs: dict[str, JobRecord], named: Collection[str], unknown: set[str], *, pay_again: bool
) -> tuple[list[JobRecord], list[JobRecord]]:
    """The jobs to try again, and those that are left alone."""
    if named:
        return [job for job in jobs.values() if job.id in named], []
    ended = [job for job in jobs.values() if job.status in (JobStatus.FAILED, JobStatus.CANCELLED)]
    chosen: list[JobRecord] = []
    left: list[JobRecord] = []
    for job in ended:
        helps = pay_again if job.id in unknown else _helps(job)
        (chosen if helps else left).append(job)
    if not chosen:
        unknown_ones = [job.id for job in left if job.id in unknown]
        why = "nothing failed or was cancelled"
        if unknown_ones:
            ids = ", ".join(unknown_ones)
            why = f"whether {ids} was made is unknown; naming the job looks again, and consent to pay again submits it"
        elif left:
            ids = ", ".join(f"{job.id} ({_code(job)})" for job in left)
            why = f"{ids} would fail again unchanged; change the request, or name the job to try it all the same"
        raise Conflict(f"batch {batch.id} is {batch.status}, and nothing of it can be retried: {why}")
    return chosen, left


def _code(job: JobRecord) -> ErrorCode | None:
    return ErrorCode(job.error["code"]) if job.error else None


def _helps(job: JobRecord) -> bool:
    """Whether trying it again unchanged may help."""
    code = _code(job)
    return code is None or code.retryable or code in _WORTH_ANOTHER_TRY


def _is_changed(job: JobRecord, change: dict[str, Any]) -> bool:
    return any(getattr(job, name) != value for name, value in change.items())


def _put_back(
    storage: Storage,
    batch: BatchRecord,
    chosen: list[JobRecord],
    changes: dict[str, dict[str, Any]],
    let_go: set[str],
    at: float,
) -> None:
    storage.submissions.abandon(batch.id, let_go)
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
    storage: Storage, batch_id: str, chosen: list[JobRecord], named: Collection[str], *, pay_again: bool
) -> set[str]:
    """For which jobs a person said that what may exist shall not keep us from paying again."""
    if not pay_again:
        return set()
    live = storage.submissions.live_of_batch(batch_id)
    unresolved = {job_id for job_id, submission in live.items() if submission.remote_id is None}
    lost = {job.id for job in chosen if job.error and job.error["code"] == ErrorCode.NOT_FOUND.value}
    gone = storage.deletes.record_gone(batch_id)
    return {job.id for job in chosen} & (unresolved | lost | gone | set(named))


def _way_back(submission: SubmissionRecord | None) -> JobMove:
    if submission is None:
        return JobMove.RETRY
    return JobMove.RECHECK if submission.remote_id is None else JobMove.REATTACH


def delete(storage: Storage, batch_id: str, at: float, rows: int = 1000) -> bool:
    """Forget an ended batch, or as much of it as this transaction may remove; its journal stays until it is pruned.

    Args:
        storage: where.
        batch_id: of a batch that has ended, or whose deletion was begun.
        at: now.
        rows: at most so many.

    Returns:
        Whether all of it is gone. Nobody sees it any more in any case.

    Raises:
        NotFound: there is no such batch.
        Conflict: it has not ended.
    """
    if not storage.batches.hidden(batch_id):
        batch = existing(storage, batch_id)
        if batch.status not in FINAL_BATCH:
            raise Conflict(f"batch {batch_id} is {batch.status}: only what has ended can be deleted; cancel it first")
        storage.journal.append([batch_event(EventName.BATCH_DELETED, batch, batch.sequence + 1, at)])
        storage.publications.delete({batch_id: batch.sequence + 1})
        storage.batches.hide(batch_id, at)
    most = max(1, (rows - DELETED_ROWS) // 2)  # each job has at most one live submission
    job_ids = storage.jobs.some_of(batch_id, most)
    storage.submissions.abandon(batch_id, job_ids)
    storage.jobs.remove(job_ids)
    if len(job_ids) == most:
        return False
    storage.batches.remove(batch_id)
    return True


DELETED_ROWS = 4
"""What the deletion of a batch writes besides its jobs and their submissions."""


def delete_ended(storage: Storage, batches: list[BatchRecord], events: list[EventRecord]) -> int:
    """Forget these batches, but for those that have changed since they were read.

    Args:
        storage: where.
        batches: that have ended.
        events: of each, that it is deleted.

    Returns:
        How many went.
    """
    batch_ids = set(storage.batches.unchanged(batches))
    told = [event for event in events if event.batch_id in batch_ids]
    if told:
        storage.submissions.abandon_all(batch_ids)
        storage.journal.append(told)
        storage.publications.delete({event.batch_id: event.sequence for event in told})
        storage.batches.remove(*batch_ids)
    return len(told)
