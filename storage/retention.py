"""Which batches still have files that a retention may remove."""

from __future__ import annotations

from collections.abc import Iterable

from storage.database import Database
from storage.records import BatchRecord
from storage.rows import Rows

_DUE = (
    "WHERE completed_at < ? AND deleted_at IS NULL AND (completed_at > ? OR (completed_at = ? AND id > ?)) "
    "AND NOT EXISTS (SELECT 1 FROM files_removed r WHERE r.batch_id=batches.id AND r.store=? "
    "AND r.removed_at >= batches.completed_at) ORDER BY completed_at, id LIMIT ?"
)


class Retentions:
    """Notes of removed files as rows. Reads need a connection, writes a transaction, opened by the caller."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._batches = Rows(database, "batches", BatchRecord)

    def due(self, before: float, store: str, after: tuple[float, str], limit: int) -> list[BatchRecord]:
        """Some batches that ended before a time and whose files in a store were not all removed since, oldest first.

        `after`: end and id of the last one of the page before.
        """
        at, batch_id = after
        return self._batches.select(_DUE, (before, at, at, batch_id, store, limit))

    def note(self, batch_ids: Iterable[str], store: str, at: float) -> None:
        """Note that these batches have no files left in a store."""
        for batch_id in batch_ids:
            self._database.execute(
                "INSERT INTO files_removed (batch_id, store, removed_at) VALUES (?, ?, ?) "
                "ON CONFLICT (batch_id, store) DO UPDATE SET removed_at=excluded.removed_at",
                (batch_id, store, at),
            )
