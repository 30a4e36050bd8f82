"""Journal: what happened to each batch, as the bytes that are published, in a gapless sequence."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from storage.database import Database
from storage.records import EventRecord
from storage.rows import Insert, Rows


class Journal:
    """Events as rows. Reads want a connection, writes a transaction; the caller has opened them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._rows = Rows(database, "journal", EventRecord)
        self._append = Insert(database, "journal", EventRecord)
        self.listener: Callable[[list[EventRecord]], object] | None = None
        """Told of what this process has recorded, after its COMMIT, by the thread that committed."""

    def append(self, events: Iterable[EventRecord]) -> None:
        """Store events. Their sequence numbers come from the fence of the same transaction."""
        rows = list(events)
        self._append(rows)
        if self.listener is not None and rows:
            self._database.after_commit(partial(self.listener, rows))

    def read(self, batch_id: str, from_sequence: int = 1, limit: int | None = None) -> list[EventRecord]:
        """A batch's events in order."""
        some, parameters = "WHERE batch_id=? AND sequence>=? ORDER BY sequence", [batch_id, from_sequence]
        if limit is None:
            return self._rows.select(some, parameters)
        return self._rows.select(f"{some} LIMIT ?", [*parameters, limit])

    def last_sequence(self, batch_id: str) -> int:
        """The newest number, 0 without any: a batch made again under an old id goes on counting."""
        newest = self._database.execute("SELECT MAX(sequence) FROM journal WHERE batch_id=?", (batch_id,)).fetchone()
        return int(newest[0] or 0)

    def prune(self, before: float) -> int:
        """Remove the journals of batches that ended before a moment, and of deleted ones.

        Returns:
            How many events went.
        """
        cursor = self._database.execute(
            "DELETE FROM journal WHERE created_at < ? AND batch_id NOT IN "
            "(SELECT id FROM batches WHERE completed_at IS NULL OR completed_at >= ?)",
            (before, before),
        )
        return int(cursor.rowcount)
