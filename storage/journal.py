"""Journal: what happened to each batch, as the bytes that are published, in a gapless sequence."""

from __future__ import annotations

import json
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

    def first_sequence(self, batch_id: str) -> int | None:
        """The oldest number that was not pruned, None without any."""
        oldest = self._database.execute("SELECT MIN(sequence) FROM journal WHERE batch_id=?", (batch_id,)).fetchone()
        return None if oldest[0] is None else int(oldest[0])

    def old(self, before: float, after: tuple[str, int], limit: int) -> list[tuple[str, int]]:
        """Some events behind `after` of batches that ended before a moment, and of deleted ones: batch and number."""
        sql = (
            "SELECT j.batch_id, j.sequence FROM journal j LEFT JOIN batches b ON b.id=j.batch_id "
            "WHERE (j.batch_id, j.sequence) > (?, ?) AND j.created_at < ? AND (b.id IS NULL OR b.completed_at < ?) "
            "ORDER BY j.batch_id, j.sequence LIMIT ?"
        )
        return list(map(tuple, self._database.execute(sql, (*after, before, before, limit)).fetchall()))

    def prune(self, events: list[tuple[str, int]], before: float) -> int:
        """Remove these, but for those of a batch that runs again.

        Returns:
            How many events went.
        """
        cursor = self._database.execute(
            f"DELETE FROM journal WHERE (batch_id, sequence) IN ({self._database.pairs}) AND NOT EXISTS "
            "(SELECT 1 FROM batches b WHERE b.id=batch_id AND (b.completed_at IS NULL OR b.completed_at >= ?))",
            (json.dumps(events), before),
        )
        return int(cursor.rowcount)
