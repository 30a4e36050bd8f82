"""What a cancellation owes the server, and what a retry takes back of it. Runs inside their transactions."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from actors.errors import Conflict
from storage.changes import Storage
from storage.records import JobRecord, SubmissionRecord
from storage.states import JobStatus, SubmissionState

_RECORD_ONLY_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32}", re.IGNORECASE)
"""The ids of SGLang and FastVideo, whose DELETE removes the record of a video that they go on making."""


class DeleteIsOut(Exception):
    """A DELETE for what is to be retried is on its way: its answer, or its end, is to be waited for."""

    def __init__(self, seconds: float, submission_ids: list[str]) -> None:
        super().__init__(f"a DELETE is on its way, for {seconds:.1f} s at the most")
        self.seconds, self.submission_ids = seconds, submission_ids


def owe_deletes(storage: Storage, tries: Iterable[SubmissionRecord], jobs: dict[str, JobRecord]) -> None:
    """Record that the server is to be asked to stop the videos of cancelled jobs: those that we made ourselves."""
    owed = [
        entry
        for entry in tries
        if entry.state is SubmissionState.BOUND
        and entry.remote_id is not None
        and not entry.adopted
        and not _RECORD_ONLY_ID.fullmatch(entry.remote_id)
        and entry.job_id in jobs
        and jobs[entry.job_id].status is JobStatus.CANCELLED
    ]
    if owed:
        storage.submissions.fill_in()
        storage.deletes.owe(owed)


def owe_delete_of_cancelled(storage: Storage, submission_id: str) -> None:
    """As `owe_deletes`, of a video whose POST was answered when its job may have been cancelled already."""
    entry = storage.submissions.get(submission_id)
    owe_deletes(storage, [entry], storage.jobs.by_id([entry.job_id]))


def withdraw_deletes(storage: Storage, batch_id: str, chosen: Iterable[JobRecord]) -> None:
    """See that no video is deleted under a job that is tried again.

    Raises:
        DeleteIsOut: it may be, at this moment.
    """
    live = storage.submissions.live_of_batch(batch_id)
    ours = [live[job.id].id for job in chosen if job.id in live]
    seconds = storage.deletes.withdraw(ours) if ours else 0.0
    if seconds:
        raise DeleteIsOut(seconds, ours)


def with_a_record(
    storage: Storage, batch_id: str, chosen: list[JobRecord], named: Collection[str], changed: Collection[str]
) -> tuple[list[JobRecord], list[JobRecord]]:
    """Those whose video can be had or made, and those that nobody may pay for again without consent.

    Raises:
        Conflict: one of the latter is named, or nothing else is chosen.
    """
    gone = storage.deletes.record_gone(batch_id) - set(changed)
    left = [job for job in chosen if job.id in gone]
    if left and (len(left) == len(chosen) or gone & set(named)):
        raise Conflict(
            f"the server removed its record of the video of {', '.join(job.id for job in left)}, and may be making it "
            "all the same: it can't be had any more; allow to pay again (--pay-again), and it is made anew"
        )
    return [job for job in chosen if job not in left], left
