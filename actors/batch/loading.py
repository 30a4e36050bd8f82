"""Finds and locks the batch that a command is about; fails one that can't be loaded."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from actors.batch.batch_update import BatchUpdate
from actors.batch.transitions import BatchMove, derived_counts
from actors.batch.views import version_of
from actors.errors import DeletedBatch, ErrorCode, Failure, Stale, UnknownBatch
from storage.records import BatchRecord
from storage.rows import mend
from storage.states import FINAL_BATCH, FINAL_JOB, BatchStatus
from storage.storage import Storage

_TOLD = 10


def existing(storage: Storage, batch_id: str) -> BatchRecord:
    """The batch, locked.

    Raises:
        UnknownBatch: there is none; the message names the database.
    """
    batch = storage.batches.locked(batch_id)
    if batch is None:
        raise unknown_batch(storage, batch_id)
    return batch


def unknown_batch(storage: Storage, batch_id: str) -> UnknownBatch:
    """The error for an unknown id."""
    deleted = storage.journal.last_sequence(batch_id) > 0
    return (DeletedBatch if deleted else UnknownBatch)(batch_id, f" in the database {storage.database.place}")


def check_expected(storage: Storage, batch_id: str, versions: Collection[str]) -> None:
    """Check that a batch has one of these versions (`version_of`); it is locked.

    Raises:
        UnknownBatch: there is none.
        Stale: it has another one.
    """
    sequence = existing(storage, batch_id).sequence
    if version_of(sequence, storage.jobs.files_removed(batch_id)) not in versions:
        raise Stale(f"batch {batch_id} has changed since it was read: it is at {sequence}; read it again")


def fail_unreadable(storage: Storage, batch_id: str, error: str, at: float) -> None:
    """Replace what can't be read of a batch and end it, in one transaction. Paid videos stay bound to their jobs."""
    broken = mend(storage.database, batch_id)
    batch, jobs = storage.batches.locked(batch_id), storage.jobs.of_batch(batch_id)
    if batch is None or batch.status in FINAL_BATCH:
        return
    if batch.total != len(jobs):
        storage.batches.update(batch_id, total=len(jobs))
    text = f"the batch could not be loaded from the database ({broken[0] if broken else error}); restore a backup, or "
    failure = Failure(ErrorCode.INTERNAL, f"{text}retry what is left of it", {"broken": broken[:_TOLD]})
    step = BatchUpdate(batch, at)
    counts: dict[str, Any] = derived_counts(jobs)
    step.batch = batch._replace(epoch=batch.epoch + 1, total=len(jobs), **counts)
    if batch.status is BatchStatus.PENDING:
        step.move_batch(BatchMove.START, started_at=at)
    for job in jobs:
        if job.status not in FINAL_JOB:
            step.fail(job, failure)
    step.close(BatchMove.PART if step.batch.completed else BatchMove.FAIL, error=failure)
    if not storage.apply(step.changes()):
        raise AssertionError("the batch is locked by this transaction")
