"""Upkeep: removes what is old, or was left over; for `BatchService`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from actors.batch.cleanup import LATE, Maintenance, PruneReport
from actors.batch.orphans import sweep_parts
from actors.batch.retention import FileRemoval
from actors.errors import StorageError
from actors.service.reading import BatchReader


class FilesLeft(StorageError):
    """A batch is deleted, but not all of its files. They are recorded as to be removed."""

    def __init__(self, batch_id: str, error: OSError) -> None:
        reason = error.strerror or str(error)
        super().__init__(
            f"batch {batch_id} is deleted, but not all of its files ({reason}): "
            "`sora-batch serve` or `prune` removes the rest, or delete it again"
        )
        self._extra = {"action": "delete", "batch_id": batch_id, "error": reason}

    def as_logged(self) -> dict[str, str]:
        """What a log line says of it."""
        return dict(self._extra)


class Upkeep(BatchReader):
    """Removes in pieces, so that others can write in between."""

    def prune(
        self,
        older_than: timedelta,
        *,
        delete_batches: bool = False,
        files: bool = False,
        progress: Callable[[PruneReport], object] | None = None,
    ) -> PruneReport:
        """Remove the journals of batches that ended long ago.

        Uses many small transactions: others can write in between, and after an interrupt the next call continues.

        Args:
            older_than: since their end.
            delete_batches: remove those batches too.
            files: remove their files too, as `remove_files` does.
            progress: called with what was removed so far.
        """
        at, maintenance = self.now(), self._maintenance(progress)
        before = at - older_than.total_seconds()
        if files:
            self._remove_old_files(maintenance, before, at)
        return maintenance.prune(before, at, delete_batches=delete_batches)

    def remove_files(self, older_than: timedelta, *, progress: Callable[[PruneReport], object] | None = None) -> int:
        """Remove the files of batches that ended long ago; the batches and their histories stay.

        From then on `video.removed_at` is set, `path` and `url` are None. Files in another machine's folder are left to
        a process there. After an interrupt the next call continues.

        Args:
            older_than: since the end of their batch.
            progress: called with what was removed so far.

        Returns:
            How many files were removed.

        Raises:
            StorageError: the store can't be reached, or the database.
        """
        at = self.now()
        return self._remove_old_files(self._maintenance(progress), at - older_than.total_seconds(), at)

    def forget_commands(self, older_than: timedelta) -> int:
        """Remove older commands from the inbox: repeated, they would be new. Returns how many were removed."""
        return self._maintenance().forget_commands(self.now() - older_than.total_seconds())

    def finish_deletions(self) -> int:
        """Finish the deletions of batches that were interrupted. Returns how many batches were removed."""
        maintenance = self._maintenance()
        maintenance.forget_places(self.now() - LATE)
        return maintenance.finish_deletions()

    def sweep_parts(self) -> int:
        """Remove partial files in VIDEO_DIR that no process writes any more. Returns how many were removed."""
        return self._read(lambda: sweep_parts(self._storage, self.stores.folder))

    def _remove_old_files(self, maintenance: Maintenance, before: float, at: float) -> int:
        try:
            return maintenance.remove_files(FileRemoval(self._storage, self.stores, self._read, before, at))
        except OSError as error:
            reason = error.strerror or error
            raise StorageError(f"a file could not be removed: {reason}; run it again to continue") from error

    def _maintenance(self, progress: Callable[[PruneReport], object] | None = None) -> Maintenance:
        return Maintenance(self._storage, self._read, self._write, progress, self.stores)
