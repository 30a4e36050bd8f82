"""The journal: the events of each batch, as published, in a gapless sequence; which are late; and their log lines."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

from storage.database import Database
from storage.records import EventRecord
from storage.rows import Insert, Rows
from storage.traces import note_trace

logger = logging.getLogger(__name__)
_TOUCHED = (
    "SELECT id FROM batches WHERE owner=? AND status IN ('pending', 'processing') "
    "UNION SELECT id FROM batches WHERE completed_at >= ? UNION SELECT id FROM batches WHERE created_at >= ?"
)
"""The batches that an owner has, and those that it may have ended or created since a time."""


class Journal:
    """Events as rows. Reads need a connection, writes a transaction, opened by the caller."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._rows = Rows(database, "journal", EventRecord)
        self._append = Insert(database, "journal", EventRecord)
        self.late = LateEvents(database)
        self.listener: Callable[[list[EventRecord]], object] | None = None
        """Called with the events that this process has recorded, after the COMMIT, in the committing thread."""
        self.observers: list[Callable[[list[EventRecord]], object]] = []
        """Called with the same: those that publish nothing."""

    def append(self, events: Iterable[EventRecord]) -> None:
        """Store events. Their sequence numbers come from the fence of the same transaction."""
        rows = list(events)
        self._append(rows)
        if not rows:
            return
        self.late.note(rows)
        for told in self.observers if self.listener is None else (self.listener, *self.observers):
            self._database.after_commit(partial(told, rows))
        if logger.isEnabledFor(logging.INFO):
            self._database.after_commit(partial(log_events, rows))

    def log_last_words(self, owner_id: str, since: float) -> None:
        """Log again what an owner that has died has recorded since a time: a kill may come between COMMIT and the line.

        What others recorded of the batches that ended or began since then is logged, too: whose it was is not recorded.
        """
        if logger.isEnabledFor(logging.INFO):
            some = f"WHERE created_at >= ? AND batch_id IN ({_TOUCHED}) ORDER BY batch_id, sequence"
            log_events(self._rows.select(some, [since, owner_id, since, since]), again=True)

    def read(self, batch_id: str, from_sequence: int = 1, limit: int | None = None) -> list[EventRecord]:
        """A batch's events in order."""
        some, parameters = "WHERE batch_id=? AND sequence>=? ORDER BY sequence", [batch_id, from_sequence]
        if limit is None:
            return self._rows.select(some, parameters)
        return self._rows.select(f"{some} LIMIT ?", [*parameters, limit])

    def first_since(self, batch_id: str, moment: float) -> int | None:
        """The number of a batch's first event from a time on; None: there is none."""
        sql = "SELECT MIN(sequence) FROM journal WHERE batch_id=? AND created_at >= ?"
        first = self._database.execute(sql, (batch_id, moment)).fetchone()[0]
        return None if first is None else int(first)

    def last_sequence(self, batch_id: str) -> int:
        """The newest number, 0 if there is none: a batch created again under an old id continues the sequence."""
        newest = self._database.execute("SELECT MAX(sequence) FROM journal WHERE batch_id=?", (batch_id,)).fetchone()
        return int(newest[0] or 0)

    def first_sequence(self, batch_id: str) -> int | None:
        """The oldest number that was not pruned; None: there is none."""
        oldest = self._database.execute("SELECT MIN(sequence) FROM journal WHERE batch_id=?", (batch_id,)).fetchone()
        return None if oldest[0] is None else int(oldest[0])

    def old(self, before: float, after: tuple[str, int], limit: int) -> list[tuple[str, int]]:
        """Some events after `after` of batches that ended before a time, and of deleted ones: batch and number."""
        sql = (
            "SELECT j.batch_id, j.sequence FROM journal j LEFT JOIN batches b ON b.id=j.batch_id "
            "WHERE (j.batch_id, j.sequence) > (?, ?) AND j.created_at < ? AND (b.id IS NULL OR b.completed_at < ?) "
            "ORDER BY j.batch_id, j.sequence LIMIT ?"
        )
        return list(map(tuple, self._database.execute(sql, (*after, before, before, limit)).fetchall()))

    def prune(self, events: list[tuple[str, int]], before: float) -> int:
        """Remove these events, except those of a batch that runs again.

        Returns:
            How many were removed.
        """
        cursor = self._database.execute(  # crash point: prune
            f"DELETE FROM journal WHERE (batch_id, sequence) IN ({self._database.pairs}) AND NOT EXISTS "
            "(SELECT 1 FROM batches b WHERE b.id=batch_id AND (b.completed_at IS NULL OR b.completed_at >= ?))",
            (json.dumps(events), before),
        )
        return int(cursor.rowcount)


_LATE = frozenset({"batch.updated", "batch.retried", "batch.deleted", "job.settled"})
"""Every other event is of a batch that has not ended, or ends with it."""
_LATE_FOR = 3600.0
_FORGOTTEN_AT_ONCE = 1000


class LateEvent(NamedTuple):
    """Which event is late."""

    batch_id: str
    sequence: int
    recorded_at: float


class LateEvents:
    """Rows that say which events were recorded of batches that may have ended: who follows all batches finds them.

    Reads need a connection, writes a transaction, opened by the caller.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._insert = Insert(database, "late_events", LateEvent)
        if database.postgresql:
            # No transaction below it is under way: what commits from now on has at least this number.
            self._next, row, lock = "txid_snapshot_xmin(txid_current_snapshot())", "ctid", "FOR UPDATE SKIP LOCKED"
        else:
            self._next, row, lock = "(SELECT COALESCE(MAX(place), 0) + 1 FROM late_events)", "rowid", ""
        some = f"SELECT {row} FROM late_events WHERE recorded_at < ? LIMIT {_FORGOTTEN_AT_ONCE} {lock}"
        self._forget = f"DELETE FROM late_events WHERE {row} IN ({some})"

    def note(self, events: Iterable[EventRecord]) -> None:
        """Note those of these events that are late; what was noted an hour ago is forgotten."""
        late = [LateEvent(event.batch_id, event.sequence, event.created_at) for event in events if event.type in _LATE]
        if late:
            self._insert(late)
            self._database.execute(self._forget, (late[-1].recorded_at - _LATE_FOR,))

    def position(self) -> int:
        """Whatever commits after this call is found from here on; a little of what is there now may be, too."""
        return int(self._database.execute(f"SELECT {self._next}").fetchone()[0])

    def since(self, position: int) -> dict[str, tuple[int, int]]:
        """The first and the last late event of each batch from a position on."""
        sql = "SELECT batch_id, MIN(sequence), MAX(sequence) FROM late_events WHERE place >= ? GROUP BY batch_id"
        rows = self._database.execute(sql, (position,)).fetchall()
        return {batch_id: (int(first), int(last)) for batch_id, first, last in rows}


_ENVELOPE = frozenset({"batch_id", "status", "progress", "batch", "job"})
_TRACE = ("traceparent", "tracestate")


def log_events(events: Iterable[EventRecord], *, again: bool = False) -> None:
    """Log what is committed, each line made from its event. Where nobody wants the lines, no event is read.

    Args:
        events: what was recorded.
        again: by a process that has died since, and may have logged it or not: the lines say `again`.
    """
    for event in events:
        # Progress is for who looks closely.
        level = logging.DEBUG if event.type.endswith(".progressed") else logging.INFO
        if logger.isEnabledFor(level):
            data = _data_of(event)
            if "traceparent" in data:
                note_trace(event.batch_id, {name: data[name] for name in _TRACE if name in data})
            if again:
                data["again"] = True
            text = "recorded %s, in the last seconds of a process that died" if again else "recorded %s"
            logger.log(level, text, event.type, extra=data)


def _data_of(event: EventRecord) -> dict[str, Any]:
    """What of an event its line has: of whom it tells, and what changed."""
    document = json.loads(event.body)
    data = document.get("data", {})
    job, batch = data.get("job"), data.get("batch") or {}
    told: dict[str, Any] = {"action": event.type, "event": event.type, "batch_id": event.batch_id}
    if job is not None:
        told |= {"job_id": job["id"], "status": job["status"], "progress": job["progress"]}
        told |= {"remote_id": job.get("remote_id"), "attempts": job.get("attempts")}
    else:
        told |= {"status": data.get("status"), "progress": data.get("progress", {}).get("percentage")}
    error = (job or batch).get("error") or {}
    told |= {"error_code": error.get("code"), "error": error.get("message"), "sequence": event.sequence}
    further = {name: data[name] for name in data if name not in _ENVELOPE}
    told["changed"] = json.dumps(further, ensure_ascii=False) if further else None
    traced = {name: document.get(name) for name in _TRACE}
    return {name: value for name, value in {**told, **traced}.items() if value is not None}
