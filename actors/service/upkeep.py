"""Upkeep: removes what is old, or was left over; for `BatchService`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import timedelta

from actors.batch.cleanup import LATE, Maintenance, PruneReport
from actors.batch.orphans import sweep_parts
from actors.batch.retention import FileRemoval
from actors.errors import StorageError
from actors.service.reading import BatchReader
from storage.stores import path_of

logger = logging.getLogger(__name__)


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


def tell_of_files_elsewhere(batch_id: str, uris: Sequence[str]) -> None:
    """Tell who deletes a batch that some of its files stay, and where: this process can't remove them."""
    places = sorted({uri.rpartition("/")[0] for uri in uris})
    shown = ", ".join(str(path_of(place)) if place.startswith("file:") else place for place in places[:3])
    logger.warning(
        "batch %s is deleted, but not its %s in %s: this process uses another store. Run sora-batch delete %s "
        "again with the VIDEO_DIR or VIDEO_STORE of that place, on a machine that has it",
        batch_id, "file" if len(uris) == 1 else f"{len(uris)} files", shown, batch_id,
        extra={"action": "delete", "batch_id": batch_id, "count": len(uris)},
    )  # fmt: skip


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
