"""The outcome of a POST, and how the id in its answer is recorded."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection
from dataclasses import dataclass

from actors.batch.batch_update import price_in
from actors.errors import ErrorCode, Failure
from actors.sora.wire import WRAPPED, RemoteVideo, inner_id
from storage.records import Document, JobRecord, SubmissionRecord
from storage.states import FINAL_JOB, LIVE_SUBMISSION, JobStatus, SubmissionState
from storage.storage import Storage
from storage.submissions import Bind

SEND_WINDOW = 2.0
"""Seconds from its record within which a POST or a DELETE must leave: after that its sender must not send it."""


@dataclass(frozen=True, slots=True)
class Bound:
    """The video exists, and its id is recorded."""

    remote_id: str
    video: RemoteVideo | None = None
    """As the create returned it, if it did."""
    told_at: float = -math.inf
    """When the create returned it, by `time.monotonic()`."""
    told: Document | None = None
    """What the create said about its price."""


@dataclass(frozen=True, slots=True)
class NotPaid:
    """Nothing was made; recorded as `state`."""

    state: SubmissionState
    failure: Failure
    passes: bool = True
    """Whether an unchanged retry of an unsent POST may succeed."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """It may have been made, and this can't be found out."""

    failure: Failure


Outcome = Bound | NotPaid | Unknown


def known(submission: SubmissionRecord) -> Outcome:
    """The outcome of a resolved submission."""
    if submission.state is SubmissionState.BOUND and submission.remote_id is not None:
        return Bound(submission.remote_id)
    if submission.state is SubmissionState.SURPLUS:
        return Unknown(Failure(ErrorCode.SUBMISSION_UNKNOWN, submission.note or "it was made, but no job holds it"))
    return NotPaid(submission.state, Failure(ErrorCode.UNAVAILABLE, submission.note or "nothing was paid"))


logger = logging.getLogger(__name__)


def bind_told(storage: Storage, submission_id: str, remote_id: str, told: Document | None = None) -> Bind:
    """Record the video id in a create's own answer, and the price (`told`)."""
    if told is not None:
        storage.submissions.tell(submission_id, told, price_in(told))
    # In flight it keeps others from adopting its video; once it was given up, they may have.
    late = inner_id(remote_id) != remote_id and storage.submissions.get(submission_id).closed_at is not None
    bind = storage.submissions.bind(submission_id, remote_id)
    if late and bind is Bind.BOUND:
        _take_back_twins(storage, submission_id, remote_id)
    if bind is Bind.HELD and _freed(storage, submission_id, remote_id):
        return storage.submissions.bind(submission_id, remote_id)
    if bind is Bind.RESOLVED:
        entry = storage.submissions.get(submission_id)
        adopted = entry.adopted and entry.state is SubmissionState.BOUND
        if adopted and _take_back(storage, entry):
            return storage.submissions.bind(submission_id, remote_id)
        if entry.remote_id != remote_id:
            _warn("a late answer names a video that no job needs", entry, remote_id)
    return bind


def same_videos(storage: Storage, server: str, listed: Collection[str]) -> dict[str, SubmissionRecord]:
    """The submissions of listed videos, by the listed id: a LiteLLM proxy lists other ids than it returned."""
    holders = storage.submissions.holders(server, listed)
    others = {inner_id(each): each for each in listed if each not in holders and inner_id(each) != each}
    if others:
        ours = {each: inner_id(each) for each in storage.submissions.ids_like(server, WRAPPED)}
        alike = {each: others[inner] for each, inner in ours.items() if inner in others}
        holders |= {alike[each]: entry for each, entry in storage.submissions.holders(server, alike).items()}
    return holders


def _take_back_twins(storage: Storage, submission_id: str, remote_id: str) -> None:
    """Take a video back from submissions that adopted it under its listed id."""
    server = storage.submissions.get(submission_id).server or ""
    alike = [each for each in storage.submissions.ids_like(server, WRAPPED) if inner_id(each) == inner_id(remote_id)]
    for entry in storage.submissions.holders(server, alike).values():
        if entry.id != submission_id and entry.adopted and entry.state is SubmissionState.BOUND:
            _take_back(storage, entry)


def _freed(storage: Storage, submission_id: str, remote_id: str) -> bool:
    """Free the id from the submission that holds it, unless that was told the id too and still makes its video."""
    server = storage.submissions.get(submission_id).server or ""
    holder = storage.submissions.holder(server, remote_id)
    if holder is None:
        return True
    adopted = holder.adopted and holder.state is SubmissionState.BOUND
    if adopted and _take_back(storage, holder):
        return True
    storage.batches.locked(holder.batch_id)  # before its job is read: its owner may just be ending it
    job = _job_of(storage, holder)
    storage.servers.note_reused_ids(server)
    _warn("the server reused an id; its listing proves nothing from now on", holder, remote_id)
    if holder.state in LIVE_SUBMISSION and job is not None and job.status not in FINAL_JOB:
        return False
    unknown = holder.state in LIVE_SUBMISSION and job is not None and job.status is not JobStatus.COMPLETED
    storage.submissions.let_go_of_id(holder.id, SubmissionState.UNKNOWN if unknown else holder.state)
    return True


def _take_back(storage: Storage, entry: SubmissionRecord) -> bool:
    """Take an adopted video back from a submission whose job is open: its outcome is unknown again.

    Returns:
        False if its job has ended: nothing was changed.
    """
    batch = storage.batches.locked(entry.batch_id)  # before its job is read: its owner may just be ending it
    job = _job_of(storage, entry)
    if batch is None or job is None or job.status in FINAL_JOB:
        return False
    storage.submissions.let_go_of_id(entry.id, SubmissionState.UNKNOWN)
    # Its owner polls the wrong video: the new epoch fences it, and the next owner resolves the submission.
    storage.batches.update(batch.id, epoch=batch.epoch + 1, owner=None)
    anew = job._replace(status=JobStatus.SUBMITTING, remote_id=None, progress=0, started_at=None)
    storage.jobs.save([anew])
    _warn("an adopted video belongs to another POST", entry, str(entry.remote_id))
    return True


def _job_of(storage: Storage, entry: SubmissionRecord) -> JobRecord | None:
    return storage.jobs.by_id([entry.job_id]).get(entry.job_id)


def _warn(what: str, entry: SubmissionRecord, remote_id: str) -> None:
    ids = {"batch_id": entry.batch_id, "job_id": entry.job_id, "remote_id": remote_id}
    logger.warning(what, extra={"action": "id_taken_back", **ids})
