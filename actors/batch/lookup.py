"""A batch by its id: locked, or an error that says where it was looked for."""

from __future__ import annotations

from actors.errors import NotFound
from storage.changes import Storage
from storage.records import BatchRecord


class UnknownBatch(NotFound):
    """There is no such batch; its creation may still be on its way."""


def existing(storage: Storage, batch_id: str) -> BatchRecord:
    """The batch, locked.

    Raises:
        UnknownBatch: there is none; the text names the database that was looked in.
    """
    batch = storage.batches.locked(batch_id)
    if batch is None:
        raise unknown_batch(storage, batch_id)
    return batch


def unknown_batch(storage: Storage, batch_id: str) -> UnknownBatch:
    """The error for an id that is not there."""
    return UnknownBatch(f"there is no batch {batch_id!r} in the database {storage.database.place}")
