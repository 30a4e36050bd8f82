"""Journal: what happened to each batch, as the bytes that are published, in a gapless sequence."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from storage.database import Database
from storage.records import EventRecord

_CHUNK = 500


class Journal:
    """Events as rows. Reads want a connection, writes a transaction; the caller has opened them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._table = database.tables.journal
        self.listener: Callable[[list[EventRecord]], object] | None = None
        """Told of what this process has recorded, after its COMMIT, by the thread that committed."""

    def append(self, events: Iterable[EventRecord]) -> None:
        """Store events. Their sequence numbers come from the fence of the same transaction."""
        rows = list(events)
        for start in range(0, len(rows), _CHUNK):
            chunk = rows[start : start + _CHUNK]
            marks = ", ".join(["(?, ?, ?, ?, ?, ?)"] * len(chunk))
            self._database.execute(
                f"INSERT INTO journal (batch_id, sequence, type, key, body, created_at) VALUES {marks}",
                [value for event in chunk for value in _values(event)],
            )
        if self.listener is not None and rows:
            self._database.after_commit(partial(self.listener, rows))

    def read(self, batch_id: str, from_sequence: int = 1, limit: int | None = None) -> list[EventRecord]:
        """A batch's events in order."""
        table = self._table
        query = table.select().where((table.batch_id == batch_id) & (table.sequence >= from_sequence))
        return [EventRecord(**row) for row in query.order_by(table.sequence).limit(limit).dicts()]

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


def _values(event: EventRecord) -> tuple[object, ...]:
    return event.batch_id, event.sequence, event.type, event.key, event.body, event.created_at
