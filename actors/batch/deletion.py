"""Removes the files of batches that are being deleted: that they are to be removed was recorded with the deletion.

The batch stays hidden until its files are gone, so no other one has its id, and no file there is anybody else's.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from storage.storage import Storage
from storage.stores import Stores
from storage.timing import boottime
from storage.videos import flush_folder

_TRUSTED = 2.0
"""Seconds for which a look at a batch counts. It may be deleted, and made again, while a process is suspended."""


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
