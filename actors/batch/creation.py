"""Creating a batch: recorded once, whoever repeats it."""

from __future__ import annotations

from dataclasses import dataclass

from actors.batch.events import EventName, batch_event
from actors.batch.lookup import existing
from actors.errors import Conflict
from storage.changes import Storage
from storage.records import BatchRecord, JobRecord, ReferenceRecord


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
