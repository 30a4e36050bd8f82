"""The objects that are to be removed from a bucket: recorded before they are removed, forgotten when they are gone.

A request to remove one may take effect late. So an address that is recorded here is given to no further file.
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
        """The addresses of a batch that are recorded."""
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
