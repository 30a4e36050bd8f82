"""After a backup of the database was restored: what happened since it was made is not recorded.

A job that had not ended then may have been submitted since. So the outcome of each such job is made unknown: a video
that the server lists is adopted, and nothing is paid for again without a person's word. No listing proves the opposite:
nobody knows with which key, or by which process, such a POST was sent.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from actors.batch.batch_update import BatchUpdate, new_intent
from actors.batch.transitions import JobMove
from actors.errors import Conflict
from storage.records import BatchRecord
from storage.states import JobStatus
from storage.storage import Storage
from storage.submissions import RESTORED
from storage.urls import server_of

_EPOCHS = 1000
"""By so many each epoch goes up: whoever had a batch after the backup, and still runs, is fenced."""
_SENDER = "restored"


@dataclass(frozen=True, slots=True)
class Restored:
    """What became of the jobs that had not ended."""

    batches: int = 0
    unknown: int = 0
    """Jobs whose outcome is unknown now."""
    attached: int = 0
    """Jobs whose video has a recorded id: it is watched and fetched."""


def doubt_unfinished(storage: Storage, provider: Callable[[], str], *, paid_attempts: int) -> Restored:
    """In one transaction, while no other process uses the database: make the outcome of each unfinished job unknown.

    The batches are wanted from then on, also those that had not been started: that pays for nothing, and finds out.

    Args:
        storage: as it was restored.
        provider: where the batches were made, if anywhere, that had not been started when the backup was made.
        paid_attempts: how often a video may be paid for. Where the id of its video is known, all of these count as
            used: further ones may have been made since.

    Raises:
        SettingsError: no server is named, and there is such a batch.
        Conflict: another process uses the database.
    """
    _check_alone(storage)
    at, since = storage.database.now(), storage.batches.latest()
    unknown = attached = 0
    batch_ids = storage.batches.not_ended()
    for batch_id in batch_ids:
        batch = storage.batches.locked(batch_id)
        assert batch is not None
        if batch.provider is None:
            named = provider()
            storage.batches.update(batch.id, provider=named, server=server_of(named))
            batch = batch._replace(provider=named)
        attached += _doubt_batch(storage, batch, at, paid_attempts)
        unknown += storage.submissions.doubt(batch.id, since, RESTORED)
    return Restored(len(batch_ids), unknown, attached)


def _check_alone(storage: Storage) -> None:
    living = storage.owners.known_to_live()
    if living:
        named = ", ".join(f"{owner.host} (pid {owner.pid})" for owner in living)
        seconds = max(owner.lease_until for owner in living) - storage.database.now()
        raise Conflict(
            f"other processes use this database: {named}; stop them first. One that was killed on another machine "
            f"counts until its lease runs out, in {max(1, math.ceil(seconds))} s"
        )


def _doubt_batch(storage: Storage, batch: BatchRecord, at: float, paid_attempts: int) -> int:
    """Record an intent for each job that has none. Returns how many are attached to their videos."""
    step = BatchUpdate(batch, at)
    step.batch = batch._replace(epoch=batch.epoch + _EPOCHS, owner=None, claims=0, wanted=True)
    live, attached = storage.submissions.live_of_batch(batch.id), 0
    for job in storage.jobs.of_batch(batch.id, open_only=True):
        submission = live.get(job.id)
        if submission is None:
            ready = step.without_a_video(job)
            step.intend(ready, new_intent(ready, batch.provider or "", _SENDER, at))
        elif submission.remote_id is not None:
            attached += 1
            if job.status in (JobStatus.GENERATING, JobStatus.DOWNLOADING):
                step.move(job, JobMove.ACCEPT, attempts=max(job.attempts, paid_attempts))
    if not storage.apply(replace(step.changes(), anyway=True)):
        raise AssertionError("the batch is locked by this transaction")
    return attached
