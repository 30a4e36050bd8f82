"""Creating a batch, and queueing it for a server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from actors.batch.events import EventName, batch_event
from actors.batch.loading import existing
from actors.errors import Conflict
from actors.settings.server import SIMULATOR
from storage.records import BatchRecord, JobRecord, ReferenceRecord
from storage.states import FINAL_BATCH, LIVE_SUBMISSION, JobStatus, SubmissionState
from storage.storage import Storage
from storage.urls import server_of


@dataclass(frozen=True, slots=True)
class NewBatch:
    """A batch to create, with its jobs and the bytes of their references."""

    batch: BatchRecord
    jobs: list[JobRecord]
    references: list[ReferenceRecord]


def create(storage: Storage, new: NewBatch, trace: dict[str, str] | None = None) -> bool:
    """Store a batch, once; in a trace, if one is given.

    Returns:
        False if it was already stored: nothing was written.

    Raises:
        Conflict: the id exists with another request.
    """
    sequence = storage.journal.last_sequence(new.batch.id) + 1
    batch = new.batch._replace(sequence=sequence, trace=new.batch.trace if trace is None else trace)
    if not storage.batches.add(batch):  # crash point: create
        if storage.batches.hidden(batch.id):
            raise Conflict(f"batch {batch.id} is being deleted; try again later, or choose another id")
        if existing(storage, batch.id).digest != batch.digest:
            raise Conflict(f"batch {batch.id} already exists with a different request; choose another id")
        return False
    for reference in new.references:
        storage.jobs.keep_reference(reference)
    storage.jobs.add(new.jobs)
    if batch.budget:
        storage.ledger.set_batch_budget(batch.id, batch.budget)
    storage.journal.append([batch_event(EventName.BATCH_CREATED, batch, sequence, batch.created_at)])
    return True


def want(
    storage: Storage, batch_id: str, provider: str, concurrency: int | None = None, *, lasting: bool = False
) -> bool:
    """Mark a batch as wanted: any process with room may claim it.

    Args:
        storage: where.
        batch_id: of the batch.
        provider: where its videos are to be made.
        concurrency: videos at a time, if it is not running yet.
        lasting: whether this was accepted as a command: whoever queued the batch before can't un-queue it any more.

    Returns:
        Whether it was not wanted before.

    Raises:
        NotFound: there is no such batch.
        Conflict: it was started at another server, which may have made something of it.
    """
    batch = existing(storage, batch_id)
    if batch.status in FINAL_BATCH:
        return False
    bring(storage, batch, provider)
    # Its server from now on: an unclaimed simulated batch never starts to cost.
    changes: dict[str, Any] = {"wanted": True, "claims": 0, "server": server_of(provider)}
    if lasting or not batch.wanted:
        changes["asked_again"] = lasting and batch.wanted
    if batch.provider is None:
        changes["provider"] = provider
    if concurrency is not None and batch.owner is None:
        changes["concurrency"] = concurrency
    storage.batches.update(batch_id, **changes)  # crash point: want
    return not batch.wanted


def bring(storage: Storage, batch: BatchRecord, provider: str) -> None:
    """Check that a batch may be made at this server, with any key; move it there if nothing was made elsewhere.

    Raises:
        Conflict: it was started at another server, which may have made something of it.
    """
    if batch.provider is None or server_of(batch.provider) == server_of(provider):
        return
    here, there = server_of(provider), server_of(batch.provider)
    simulated = SIMULATOR in (here, there)  # a free batch must not start to cost by itself
    owned = batch.owner is not None and storage.owners.alive(batch.owner)
    if simulated or owned or _may_be_elsewhere(storage, batch.id):
        way_out = "use --simulate for simulated batches only" if simulated else _way_here(batch, there)
        raise Conflict(f"batch {batch.id} was started at {there}, but this is {here}: {way_out}")
    storage.batches.move(batch, provider)


def _way_here(batch: BatchRecord, there: str) -> str:
    moved = "add --move-server to the retry"
    if batch.status not in FINAL_BATCH:  # only an ended one can move
        moved = f"run sora-batch cancel {batch.id}, then sora-batch retry {batch.id} --move-server"
    return (
        f"set OPENAI_BASE_URL to {there}; if that server has moved here, {moved} "
        "(with --pay-again if this is a different server)"
    )


_MAY_HAVE_MADE = LIVE_SUBMISSION | {SubmissionState.SURPLUS}


def _may_be_elsewhere(storage: Storage, batch_id: str) -> bool:
    """Whether a job that isn't completed has a submission that may have made something."""
    tries = {entry.job_id for entry in storage.submissions.of_batch(batch_id) if entry.state in _MAY_HAVE_MADE}
    return any(job.status is not JobStatus.COMPLETED for job in storage.jobs.by_id(tries).values())


def move_server(storage: Storage, batch: BatchRecord, provider: str, *, pay_again: bool) -> None:
    """Move an ended batch to another address, on a person's word.

    `pay_again`: a different server, and videos at the first one are given up; otherwise the same, with its videos.

    Raises:
        Conflict: one of the two is the simulator.
    """
    if batch.provider is None or server_of(batch.provider) == server_of(provider):
        return
    if SIMULATOR in (batch.provider, provider):
        raise Conflict(
            f"batch {batch.id}: a batch can't move between the simulator and a real server; create it again there"
        )
    if pay_again:
        jobs = storage.jobs.of_batch(batch.id)
        storage.submissions.abandon(batch.id, [job.id for job in jobs if job.status is not JobStatus.COMPLETED])
    elif not storage.submissions.move(batch.id, server_of(batch.provider), provider):
        raise Conflict(
            f"batch {batch.id}: {server_of(provider)} already has other videos with this batch's remote ids, so it is "
            f"not the server that was at {server_of(batch.provider)}: use --move-server --pay-again for a "
            "different server"
        )
    else:
        storage.servers.carry_over(server_of(batch.provider), server_of(provider))
    storage.batches.move(batch, provider)
