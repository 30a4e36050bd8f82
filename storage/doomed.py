"""The files that are to be removed: recorded before they are removed, forgotten when they are gone.

A request to remove an object may take effect late. So an address that is recorded here is given to no further file.
An address that ends with `/` is a place: all that a deleted batch has, or late owners still put, in one store.
"""

from __future__ import annotations

from collections.abc import Iterable

from storage.database import Database


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

    def forget(self, uris: Iterable[str]) -> None:
        """Note that these objects are gone."""
        for uri in uris:
            self._database.execute("DELETE FROM doomed WHERE uri=?", (uri,))  # crash point: undoom
