"""Removes the files of batches that ended long ago: what is to be removed is recorded first.

A file counts as removed from the commit that records it. A process that dies afterwards leaves files that its successor
finds by that record; nothing else is ever removed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from actors.batch.cleanup import Piece
from storage.records import BatchRecord, JobRecord
from storage.storage import Storage
from storage.stores import Stores, path_of, uri_of
from storage.videos import flush_folder

_BATCHES = 64
"""Batches that are read at a time."""


@dataclass(frozen=True, slots=True)
class _Portion:
    """Some of the jobs of a batch whose files are to be removed."""

    batch: BatchRecord
    jobs: list[JobRecord]
    last: bool
    """No further one of this batch follows."""

    @property
    def uris(self) -> list[str]:
        """Where the files are."""
        return [uri_of(job.video) for job in self.jobs if job.video]


class FileRemoval:
    """A search for files to remove, for `Maintenance.remove_files`: each portion is recorded, then removed."""

    def __init__(
        self, storage: Storage, stores: Stores, read: Callable[[Callable[[], Any]], Any], before: float, at: float
    ) -> None:
        """Remove files of batches that ended before a time.

        Args:
            storage: where they are recorded.
            stores: where they are. A file that is in none of ours is left to the process whose it is.
            read: runs a query.
            before: seconds since 1970.
            at: now.
        """
        self._storage, self._stores, self._read = storage, stores, read
        self._before, self._at = before, at
        self._ours = stores.prefixes
        self._store = self._ours[-1]
        self._waiting = self._portions()
        self._rows = 1
        self._recorded: list[_Portion] = []
        self._removed: list[_Portion] = []

    def __call__(self, rows: int) -> Piece | None:
        """The next piece: first the record of some files, then their removal.

        Raises:
            OSError: a bucket can't be reached. What is recorded is removed by the next run.
        """
        self._rows = rows
        if self._recorded:
            portions, self._recorded = self._recorded, []
            return self._removal(portions)
        removed, self._removed = self._removed, []
        _flush_folders(removed)
        portions, count = [], 0
        for portion in self._waiting:
            portions.append(portion)
            count += 2 * len(portion.jobs) + 1  # its record, and where it is in a bucket its address
            if count >= rows:
                break
        return self._record(portions, removed) if portions or removed else None

    def _portions(self) -> Iterator[_Portion]:
        after = (0.0, "")
        while batches := self._read(partial(self._storage.retentions.due, self._before, self._store, after, _BATCHES)):
            for batch in batches:
                yield from self._of_batch(batch)
            assert batches[-1].completed_at is not None
            after = batches[-1].completed_at, batches[-1].id

    def _of_batch(self, batch: BatchRecord) -> Iterator[_Portion]:
        position, last = 0, False
        while not last:
            limit = max(1, self._rows // 2)
            jobs: list[JobRecord] = self._read(partial(self._storage.jobs.with_files_of, batch.id, position, limit))
            last = len(jobs) < limit
            position = jobs[-1].position if jobs else position
            yield _Portion(batch, [job for job in jobs if self._is_ours(job)], last)

    def _is_ours(self, job: JobRecord) -> bool:
        """Whether a file can be removed here. One that is not there may be in another machine's folder."""
        assert job.video is not None
        uri = uri_of(job.video)
        if not uri.startswith(self._ours):
            return False
        return self._stores.size(uri) is not None if uri.startswith("file:") else True

    def _record(self, portions: list[_Portion], removed: list[_Portion]) -> Piece:  # crash point: remove old
        """Note the batches whose files are gone, and record the next files to remove."""

        def piece() -> int:
            jobs = self._storage.jobs
            done = [portion.batch.id for portion in self._unchanged(removed) if portion.last]
            self._storage.retentions.note(done, self._store, self._at)
            unchanged = self._unchanged(portions)
            for portion in unchanged:
                doomed = [job for job in portion.jobs if job.video and not job.video.get("removed_at")]
                jobs.save(job._replace(video={**(job.video or {}), "removed_at": self._at}) for job in doomed)
                uris = [uri_of(job.video) for job in doomed if job.video]
                self._storage.doomed.doom(portion.batch.id, [uri for uri in uris if not _in_folder(uri)], self._at)
            self._recorded = unchanged
            return 0

        return piece

    def _removal(self, portions: list[_Portion]) -> Piece:  # crash point: removed old
        objects = [uri for portion in portions for uri in portion.uris if not _in_folder(uri)]
        for uri in objects:  # outside of any transaction: a slow bucket holds up nobody's writes
            self._stores.remove(uri)

        def piece() -> int:
            # The batches are locked meanwhile: nobody makes a new file of the same name.
            self._removed = self._unchanged(portions)
            # Another process may remove the same: each file is counted by one of them.
            return sum(map(_unlinked, _paths(self._removed))) + self._storage.doomed.forget(objects)

        return piece

    def _unchanged(self, portions: list[_Portion]) -> list[_Portion]:
        """Those whose batch is still as it was read; locked until this transaction ends."""
        kept = set(self._storage.batches.unchanged(portion.batch for portion in portions))
        return [portion for portion in portions if portion.batch.id in kept]


def _in_folder(uri: str) -> bool:
    return uri.startswith("file:")


def _paths(portions: list[_Portion]) -> list[Path]:
    return [path_of(uri) for portion in portions for uri in portion.uris if _in_folder(uri)]


def _unlinked(path: Path) -> bool:
    """Remove a file; False: somebody else was faster."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


def _flush_folders(portions: list[_Portion]) -> None:
    """Make the removal of files last through a power cut. A folder that is empty then goes too."""
    for folder in {path.parent for path in _paths(portions)}:
        with suppress(FileNotFoundError):
            flush_folder(folder)
        with suppress(OSError):  # it is not empty, or somebody else was faster
            folder.rmdir()
