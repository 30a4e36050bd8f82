"""Late events: those that were recorded of batches that may have ended, so that who follows all batches finds them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from storage.database import Database
from storage.records import EventRecord
from storage.rows import Insert

TYPES = frozenset({"batch.updated", "batch.retried", "batch.deleted", "job.settled"})
"""Every other event is of a batch that has not ended, or ends with it."""
_KEEP_SECONDS = 3600.0
_PIECE = 1000


class LateEvent(NamedTuple):
    """Which event is late."""

    batch_id: str
    sequence: int
    recorded_at: float


class LateEvents:
    """Rows that say which events are late. Reads need a connection, writes a transaction, opened by the caller."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._insert = Insert(database, "late_events", LateEvent)
        if database.postgresql:
            # No transaction below it is under way: what commits from now on has at least this number.
            self._next, row, lock = "txid_snapshot_xmin(txid_current_snapshot())", "ctid", "FOR UPDATE SKIP LOCKED"
        else:
            self._next, row, lock = "(SELECT COALESCE(MAX(place), 0) + 1 FROM late_events)", "rowid", ""
        some = f"SELECT {row} FROM late_events WHERE recorded_at < ? LIMIT {_PIECE} {lock}"
        self._forget = f"DELETE FROM late_events WHERE {row} IN ({some})"

    def note(self, events: Iterable[EventRecord]) -> None:
        """Note those of these events that are late; what was noted an hour ago is forgotten."""
        late = [LateEvent(event.batch_id, event.sequence, event.created_at) for event in events if event.type in TYPES]
        if late:
            self._insert(late)
            self._database.execute(self._forget, (late[-1].recorded_at - _KEEP_SECONDS,))

    def position(self) -> int:
        """Whatever commits after this call is found from here on; a little of what is there now may be, too."""
        return int(self._database.execute(f"SELECT {self._next}").fetchone()[0])

    def since(self, position: int) -> dict[str, tuple[int, int]]:
        """The first and the last late event of each batch from a position on."""
        sql = "SELECT batch_id, MIN(sequence), MAX(sequence) FROM late_events WHERE place >= ? GROUP BY batch_id"
        rows = self._database.execute(sql, (position,)).fetchall()
        return {batch_id: (int(first), int(last)) for batch_id, first, last in rows}
