"""Forgetting batches that have ended."""

from __future__ import annotations

from actors.batch.events import EventName, batch_event
from actors.batch.lookup import existing
from actors.errors import Conflict
from storage.changes import Storage
from storage.records import BatchRecord, EventRecord
from storage.states import FINAL_BATCH


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
