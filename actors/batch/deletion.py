"""Deletes an ended batch: it is hidden at once, and its files and rows are removed in pieces.

That its files are to be removed is recorded with its deletion. It stays hidden until they are gone, so no other batch
has its id, and no file there is anybody else's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from actors.batch.events import EventName, batch_event
from actors.batch.loading import existing
from actors.errors import Conflict
from storage.records import BatchRecord, EventRecord
from storage.states import FINAL_BATCH
from storage.storage import Storage
from storage.stores import Stores, uri_of
from storage.timing import boottime
from storage.videos import flush_folder

DELETED_ROWS = 4
"""Rows that the deletion of a batch writes besides its jobs and their submissions."""
_TRUSTED = 2.0
"""Seconds for which a look at a batch counts. It may be deleted, and made again, while a process is suspended."""


def delete(storage: Storage, batch_id: str, at: float, rows: int = 1000, *, places: Sequence[str] = ()) -> bool:
    """Begin to delete an ended batch: it is hidden from now on. Its journal stays until it is pruned.

    Args:
        storage: where.
        batch_id: of a batch that has ended, or whose deletion has begun.
        at: now.
        rows: the most to remove at once.
        places: where all of its files are to be removed; as long as that is not done its id is taken.

    Returns:
        Whether all of it is gone: it was small, and has no such places.

    Raises:
        NotFound: there is no such batch.
        Conflict: it has not ended.
    """
    if not storage.batches.hidden(batch_id):
        batch = existing(storage, batch_id)
        if batch.status not in FINAL_BATCH:
            raise Conflict(f"batch {batch_id} is {batch.status}: only an ended batch can be deleted; cancel it first")
        storage.journal.append([batch_event(EventName.BATCH_DELETED, batch, batch.sequence + 1, at)])
        storage.publications.delete({batch_id: batch.sequence + 1})
        storage.batches.hide(batch_id, at)  # crash point: delete
    storage.doomed.doom_places(batch_id, places, at)
    return not places and bool(remove_rows(storage, batch_id, rows))


def files_elsewhere(storage: Storage, batch_id: str, stores: Sequence[str]) -> tuple[str, ...]:
    """The addresses of a batch's files that are in none of these stores; `stores`: what their addresses begin with."""
    jobs = storage.jobs.each_of_batch(batch_id)
    uris = (uri_of(job.video) for job in jobs if job.video and not job.video.get("removed_at"))
    return tuple(uri for uri in uris if not uri.startswith(tuple(stores)))


def remove_rows(storage: Storage, batch_id: str, rows: int) -> bool | None:
    """Remove a batch that is being deleted, or as many rows of it.

    Returns:
        Whether all of it is gone; None: it is not being deleted, or somebody else has finished that.
    """
    if not storage.batches.hold_hidden(batch_id):
        return None
    most = max(1, (rows - DELETED_ROWS) // 2)  # each job has at most one live submission
    job_ids = storage.jobs.some_of(batch_id, most)
    storage.submissions.abandon(batch_id, job_ids)
    storage.jobs.remove(job_ids)
    if len(job_ids) == most:
        return False
    storage.batches.remove(batch_id)  # crash point: delete rows
    storage.ledger.forget([batch_id])
    return True


def delete_ended(storage: Storage, batches: list[BatchRecord], events: list[EventRecord]) -> int:
    """Delete these batches, except those that have changed since they were read.

    Args:
        storage: where.
        batches: ended batches.
        events: the `batch.deleted` of each.

    Returns:
        How many were deleted.
    """
    batch_ids = set(storage.batches.unchanged(batches))
    told = [event for event in events if event.batch_id in batch_ids]
    if told:
        storage.submissions.abandon_all(batch_ids)
        storage.journal.append(told)
        storage.publications.delete({event.batch_id: event.sequence for event in told})
        storage.batches.remove(*batch_ids)  # crash point: prune batches
        storage.ledger.forget(batch_ids)
    return len(told)


class FilesOfDeleted:
    """A search for files to remove, for `Maintenance.finish_deletion`: one batch's, in the stores of this process."""

    def __init__(
        self, storage: Storage, stores: Stores | None, read: Callable[[Callable[[], Any]], Any], batch_id: str
    ) -> None:
        self._storage, self._stores, self._read, self._batch_id = storage, stores, read, batch_id
        self._paths: list[Path] | None = None
        self._objects: list[str] | None = None
        self._looked_at = 0.0
        self._over = False

    def __call__(self, rows: int) -> Callable[[], int] | None:
        """The next piece. Objects are removed outside of any transaction: a slow bucket holds up nobody's writes.

        Raises:
            OSError: the bucket can't be asked.
        """
        if self._stores is None or self._over or not self._is_hidden():
            return None
        places = self._read(lambda: self._storage.doomed.places(self._batch_id))
        folder, bucket = self._stores.folder, self._stores.bucket
        removed = 0
        if bucket is not None and f"{bucket.uri}/{self._batch_id}/" in places:
            if self._objects is None:
                self._objects = bucket.uris(self._batch_id)
            while self._objects and removed < rows and self._is_hidden():
                bucket.remove(self._objects.pop())
                removed += 1
        if f"{folder.root.as_uri()}/{self._batch_id}/" not in places:
            self._paths = []
        elif self._paths is None:
            self._paths = [path for path in folder.batch(self._batch_id).rglob("*") if not path.is_dir()]
        some, self._paths = self._paths[:rows], self._paths[rows:]
        self._over = not self._paths and not self._objects
        return lambda: removed + self._unlink(some)

    def _unlink(self, paths: list[Path]) -> int:
        """Remove files while the batch is locked; at last their folder."""
        assert self._stores is not None
        if not self._storage.batches.hold_hidden(self._batch_id):
            return 0
        for path in paths:
            path.unlink(missing_ok=True)  # crash point: unlink
        folder = self._stores.folder
        if paths and self._over:
            folder.remove_batch(self._batch_id)
            flush_folder(folder.root)
        return len(paths)

    def _is_hidden(self) -> bool:
        if boottime() - self._looked_at > _TRUSTED:
            self._over = not self._read(lambda: self._storage.batches.hidden(self._batch_id))
            self._looked_at = boottime()
        return not self._over
