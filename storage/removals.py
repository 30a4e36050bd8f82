"""Removals: the files that are to be removed, and the batches of which a retention has removed all.

What is to be removed is recorded before, and forgotten when it is gone. A request to remove an object may take effect
late. So an address that is recorded here is given to no further file. An address that ends with `/` is a place: all
that a deleted batch has, or late owners still put, in one store.
"""

from __future__ import annotations

from collections.abc import Iterable

from storage.database import Database
from storage.records import BatchRecord
from storage.rows import Rows


class Doomed:
    """Addresses as rows. Reads need a connection, writes a transaction, opened by the caller."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def doom(self, batch_id: str, uris: Iterable[str], at: float) -> None:
        """Record that these objects of a batch are to be removed, as of a time."""
        for uri in uris:
            self._database.execute(  # crash point: doom
                "INSERT INTO doomed (uri, batch_id, doomed_at) VALUES (?, ?, ?) ON CONFLICT (uri) DO NOTHING",
                (uri, batch_id, at),
            )

    def of_batch(self, batch_id: str) -> list[str]:
        """The addresses of a batch's objects that are recorded."""
        return [uri for uri in self._all_of(batch_id) if not uri.endswith("/")]

    def places(self, batch_id: str) -> list[str]:
        """Where all files of a batch are to be removed."""
        return [uri for uri in self._all_of(batch_id) if uri.endswith("/")]

    def doom_places(self, batch_id: str, places: Iterable[str], at: float) -> None:
        """Record that all files of a batch in these places are to be removed, and in no others."""
        self.forget(self.places(batch_id))
        self.doom(batch_id, places, at)

    def forget_places(self, before: float, limit: int) -> int:
        """Forget some places that were recorded before a time, but not of a batch whose deletion is unfinished.

        Returns:
            How many were forgotten.
        """
        some = (
            "SELECT uri FROM doomed d WHERE substr(uri, length(uri)) = '/' AND doomed_at < ? "
            "AND NOT EXISTS (SELECT 1 FROM batches b WHERE b.id=d.batch_id AND b.deleted_at IS NOT NULL) LIMIT ?"
        )
        sql = f"DELETE FROM doomed WHERE uri IN ({some})"
        return int(self._database.execute(sql, (before, limit)).rowcount)  # crash point: forget places

    def _all_of(self, batch_id: str) -> list[str]:
        rows = self._database.execute("SELECT uri FROM doomed WHERE batch_id=? ORDER BY uri", (batch_id,)).fetchall()
        return [uri for (uri,) in rows]

    def batch_ids(self) -> list[str]:
        """The batches that any are recorded of."""
        rows = self._database.execute("SELECT DISTINCT batch_id FROM doomed ORDER BY batch_id").fetchall()
        return [batch_id for (batch_id,) in rows]

    def forget(self, uris: Iterable[str]) -> int:
        """Note that these objects are gone. Returns of how many nobody had noted it."""
        sql = "DELETE FROM doomed WHERE uri=?"
        return sum(int(self._database.execute(sql, (uri,)).rowcount) for uri in uris)  # crash point: undoom


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
