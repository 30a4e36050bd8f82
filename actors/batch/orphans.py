"""Removes the files of ended batches that no job records: partial ones, and those that came too late.

Called after cancelling a batch, losing it, ending it after another owner, or noting its owner's death.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from storage.failures import DatabaseClosed
from storage.owners import OwnerRecord
from storage.recorder import Recorder
from storage.states import FINAL_BATCH
from storage.storage import Storage
from storage.stores import Stores, uri_of
from storage.timing import boottime
from storage.videos import VideoFolder

if TYPE_CHECKING:
    from storage.buckets import Bucket
    from storage.records import JobRecord

logger = logging.getLogger(__name__)
_LAST_SECONDS = 5.0
_TRUSTED = 2.0
"""Seconds for which what was recorded as to be removed may be removed without another look."""


class Orphans:
    """Removes orphans for one service, in the background: nobody waits for it."""

    def __init__(self, recorder: Recorder, storage: Storage, stores: Stores) -> None:
        self._recorder, self._storage, self._stores = recorder, storage, stores
        self._threads: set[threading.Thread] = set()

    def clean_soon(self, batch_id: str) -> None:
        """Remove the orphans of a batch, if it has ended."""
        clean = self._recorder.read(lambda: delete_orphan_files(self._storage, self._stores.folder, batch_id))
        clean.add_done_callback(lambda done: self._told(batch_id, done))
        if self._stores.bucket is not None:
            self._clean_bucket_soon(self._stores.bucket, [batch_id])

    def finish_soon(self) -> None:
        """Finish what earlier processes did not: the objects that they were about to remove."""
        if self._stores.bucket is not None:
            self._clean_bucket_soon(self._stores.bucket, None)

    def close(self) -> None:
        """Wait for what is being removed, some seconds at most. What remains is recorded."""
        until = time.monotonic() + _LAST_SECONDS
        for thread in list(self._threads):
            thread.join(max(0.0, until - time.monotonic()))

    def _clean_bucket_soon(self, bucket: Bucket, batch_ids: list[str] | None) -> None:
        def clean() -> None:
            try:
                doomed = self._storage.doomed
                for batch_id in self._recorder.read(doomed.batch_ids).result() if batch_ids is None else batch_ids:
                    self._clean_bucket(bucket, batch_id)
            except DatabaseClosed:
                return
            except Exception as error:  # noqa: BLE001  (a thread of its own: nobody else could tell)
                self._tell(", ".join(batch_ids or ()), error)
            finally:
                self._threads.discard(threading.current_thread())

        # Not the recorder's: a slow store must hold up nobody's writes.
        thread = threading.Thread(target=clean, name="sora-orphans", daemon=True)
        self._threads.add(thread)
        thread.start()

    def _clean_bucket(self, bucket: Bucket, batch_id: str) -> None:
        """Remove a batch's orphans from the bucket.

        What is to be removed is recorded first. Whoever makes a video of the batch later, after a retry, gives its file
        no name that is recorded so: a removal that is late removes nothing that is wanted.
        """
        doomed = self._storage.doomed
        there = bucket.uris(batch_id)
        place, removed = f"{bucket.uri}/{batch_id}/", []

        def look() -> tuple[list[str], float]:
            return self._recorder.write(lambda: _doom(self._storage, batch_id, place, there)).result(), boottime()

        uris, looked_at = look()
        while uris:
            if boottime() - looked_at > _TRUSTED:  # suspended meanwhile: others may have finished this, and retried
                uris, looked_at = look()
                uris = [uri for uri in uris if uri not in removed]
                continue
            removed.append(uris.pop())
            bucket.remove(removed[-1])
        if removed:
            self._recorder.write(lambda: doomed.forget(removed)).result()

    def _told(self, batch_id: str, done: Future[None]) -> None:
        error = done.exception()
        if error is not None:
            self._tell(batch_id, error)

    def _tell(self, batch_id: str, error: BaseException) -> None:
        text = str(error) if isinstance(error, OSError) else self._storage.database.describe(error)
        logger.warning("could not remove the orphan files of a batch", extra={"batch_id": batch_id, "error": text})


def delete_orphan_files(storage: Storage, folder: VideoFolder, batch_id: str) -> None:
    """Remove the orphans of an ended batch from a folder.

    The batch is locked meanwhile, so a retry waits. It runs in a transaction of its own: an uncommitted end may still
    be rolled back, and a removed file does not come back.
    """
    if not folder.batch(batch_id).is_dir():
        return
    with storage.database.begin():
        batch = storage.batches.locked(batch_id)
        if batch is None and f"{folder.root.as_uri()}/{batch_id}/" in storage.doomed.places(batch_id):
            folder.remove_batch(batch_id)  # it is deleted
        elif batch is not None and batch.status in FINAL_BATCH:
            made = {entry.job_id for entry in storage.submissions.of_batch(batch_id) if entry.remote_id is not None}
            jobs = storage.jobs.by_id(made).values()  # of another one no file can have come
            kept = {PurePosixPath(uri).name for uri in _kept(jobs)}
            folder.clear(batch_id, {job.id for job in jobs}, kept)


def sweep_parts(storage: Storage, folder: VideoFolder) -> int:
    """Remove the partial files that processes left in a folder when they were killed.

    Whoever takes a batch over removes those in its own folder; on another machine it does not see this one.

    Returns:
        How many were removed.
    """
    parts = list(folder.parts())
    batch_ids = {part.parent.name for part in parts}
    standings = storage.batches.standings(batch_ids)
    for batch_id in sorted(batch_ids):
        status, epoch, _ = standings.get(batch_id, ("", 0, None))
        if status in FINAL_BATCH or batch_id not in standings:
            delete_orphan_files(storage, folder, batch_id)
        else:
            folder.sweep(batch_id, epoch)
    return sum(not part.exists() for part in parts)


def reap(
    storage: Storage,
    stores: Stores,
    owner: OwnerRecord,
    lease: float,
    clean_up: Callable[[str], object],
    *,
    here: bool = True,
) -> None:
    """Remove what a dead owner left of ended batches, log what it may not have logged, then note its death.

    Args:
        storage: where batches and owners are recorded.
        stores: the folder, which is cleaned at once, and the bucket.
        owner: the dead one.
        lease: how long a lease lasts, in seconds.
        clean_up: cleans a batch's part of the bucket, in the background.
        here: whether it could leave files only where this process sees them; if not, its own machine looks, too.
    """
    ended = abs(owner.lease_until)  # negative: another machine has noticed it
    for batch_id in storage.batches.ended_badly_since(ended - 2 * lease):
        delete_orphan_files(storage, stores.folder, batch_id)
        if stores.bucket is not None:
            clean_up(batch_id)
    if owner.lease_until > 0:
        storage.journal.log_last_words(owner.id, ended - lease - _LAST_SECONDS)
    storage.owners.expire(owner.id, known=here)


def _doom(storage: Storage, batch_id: str, place: str, uris: list[str]) -> list[str]:
    """Record which of these objects are to be removed: those of an ended batch that no job records.

    `place`: where they are; of a batch that is deleted with its files, none stays there.

    Returns:
        All that are to be removed of this batch, those that others recorded included.
    """
    batch = storage.batches.locked(batch_id)
    if batch is None and uris and place in storage.doomed.places(batch_id):
        storage.doomed.doom(batch_id, uris, storage.database.time())
    elif batch is not None and batch.status in FINAL_BATCH and uris:
        kept = _kept(storage.jobs.of_batch(batch_id))
        storage.doomed.doom(batch_id, [uri for uri in uris if uri not in kept], storage.database.time())
    return storage.doomed.of_batch(batch_id)


def _kept(jobs: Iterable[JobRecord]) -> set[str]:
    """The addresses of the files that these jobs have. One that is to be removed may have come back since."""
    return {uri_of(job.video) for job in jobs if job.video is not None and not job.video.get("removed_at")}
