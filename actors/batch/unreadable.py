"""Fails a batch that can't be loaded, with an error that says what is broken; all others continue."""

from __future__ import annotations

from typing import Any

from actors.batch.batch_update import BatchUpdate
from actors.batch.transitions import BatchMove, derived_counts
from actors.errors import ErrorCode, Failure
from storage.rows import mend
from storage.states import FINAL_BATCH, FINAL_JOB, BatchStatus
from storage.storage import Storage

_TOLD = 10


def fail_unreadable(storage: Storage, batch_id: str, error: str, at: float) -> None:
    """Replace what can't be read and end the batch, in one transaction. Paid videos stay bound to their jobs."""
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
