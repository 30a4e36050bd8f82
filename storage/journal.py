"""The journal: the events of each batch, as published, in a gapless sequence; and how far they are published.

Each batch has a watermark: the broker has confirmed everything up to it. All processes of a database share it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from storage.database import Database
from storage.event_log import log_events, logger
from storage.late_events import LateEvents
from storage.records import EventRecord
from storage.rows import Insert, Rows

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


_BEGUN = ""
"""No batch has this id: its row says that events are published from this database."""
_MARKS = 500
_ORPHAN = (
    "NOT EXISTS (SELECT 1 FROM journal j WHERE j.batch_id=publications.batch_id) "
    "AND NOT EXISTS (SELECT 1 FROM batches b WHERE b.id=publications.batch_id)"
)


@dataclass(frozen=True, slots=True)
class Unpublished:
    """A batch's next events."""

    batch_id: str
    published: int
    """Its watermark."""
    events: list[EventRecord]
    more: bool
    """Whether there are more."""


class Publications:
    """Watermarks as rows. Reads need a connection, writes a transaction, opened by the caller."""

    def __init__(self, database: Database, journal: Journal) -> None:
        self._database, self._journal = database, journal

    def begin(self, *, backlog: bool) -> None:
        """Start publishing from this database: earlier events are skipped, unless `backlog` is set."""
        begun = self._database.execute(  # crash point: begin publishing
            "INSERT INTO publications (batch_id, published, skipped) VALUES (?, 0, FALSE) "
            "ON CONFLICT (batch_id) DO NOTHING RETURNING batch_id",
            (_BEGUN,),
        ).fetchall()
        if backlog:
            self._database.execute("UPDATE publications SET published=0, skipped=FALSE WHERE skipped")
        elif begun:
            self._database.execute(
                "INSERT INTO publications (batch_id, published, skipped) "
                "SELECT batch_id, MAX(last), TRUE FROM (SELECT batch_id, sequence AS last FROM journal "
                "UNION ALL SELECT id, sequence FROM batches) AS history GROUP BY batch_id"
            )

    def begun(self) -> bool:
        """Whether events are already published from this database."""
        sql = "SELECT 1 FROM publications WHERE batch_id=?"
        return bool(self._database.execute(sql, (_BEGUN,)).fetchall())

    def mark(self, watermarks: Mapping[str, int]) -> None:
        """Record what is published. A watermark never falls."""
        marks = sorted(watermarks.items())
        for start in range(0, len(marks), _MARKS):
            chunk = marks[start : start + _MARKS]
            rows = ", ".join(["(?, ?, FALSE)"] * len(chunk))
            self._database.execute(  # crash point: mark
                f"INSERT INTO publications (batch_id, published, skipped) VALUES {rows} "
                "ON CONFLICT (batch_id) DO UPDATE SET published=excluded.published, skipped=FALSE "
                "WHERE excluded.published > publications.published",
                [value for mark in chunk for value in mark],
            )

    def delete(self, lasts: Mapping[str, int]) -> None:
        """Record the last event of each deleted batch, so that the rest of its journal is found."""
        rows = ", ".join(["(?, 0, FALSE, ?)"] * len(lasts))
        self._database.execute(
            f"INSERT INTO publications (batch_id, published, skipped, deleted) VALUES {rows} "
            "ON CONFLICT (batch_id) DO UPDATE SET deleted=excluded.deleted",
            [value for last in sorted(lasts.items()) for value in last],
        )

    def behind(self, *, recorded_before: float, ended_after: float) -> dict[str, int]:
        """The number of the last event of each batch that has unpublished ones.

        Args:
            recorded_before: only batches whose first unpublished event is older.
            ended_after: of the ended ones, only those that ended since.
        """
        behind = (
            "SELECT b.id, b.sequence FROM batches b LEFT JOIN publications p ON p.batch_id=b.id "
            "WHERE b.sequence > COALESCE(p.published, 0) "
            "AND (SELECT j.created_at FROM journal j WHERE j.batch_id=b.id AND j.sequence > COALESCE(p.published, 0) "
            "ORDER BY j.sequence LIMIT 1) < ? "
        )
        found = self._database.execute(
            f"{behind} AND b.status IN ('pending', 'processing') UNION ALL {behind} AND b.completed_at >= ? "
            "UNION ALL SELECT batch_id, deleted FROM publications WHERE deleted IS NOT NULL AND deleted > published",
            (recorded_before, recorded_before, ended_after),
        ).fetchall()
        return dict(found)

    def next_of(self, sent: Mapping[str, int], limit: int) -> list[Unpublished]:
        """The next events of each batch, after its watermark and after what was sent here (-1: nothing)."""
        ids = list(sent)
        marks = ", ".join("?" * len(ids))
        rows = self._database.execute(
            f"SELECT batch_id, published FROM publications WHERE batch_id IN ({marks})", ids
        ).fetchall()
        published = dict(rows)
        found = []
        for batch_id in ids:
            watermark = published.get(batch_id, 0)
            events = self._journal.read(batch_id, max(watermark, sent[batch_id]) + 1, limit + 1)
            found.append(Unpublished(batch_id, watermark, events[:limit], more=len(events) > limit))
        return found

    def orphans(self, after: str, limit: int) -> list[str]:
        """Some batches after `after` that have a watermark but no journal any more."""
        sql = f"SELECT batch_id FROM publications WHERE batch_id > ? AND {_ORPHAN} ORDER BY batch_id LIMIT ?"
        return [batch_id for (batch_id,) in self._database.execute(sql, (max(after, _BEGUN), limit)).fetchall()]

    def prune(self, batch_ids: list[str]) -> int:
        """Remove the watermarks of those that still have no journal. Returns how many were removed."""
        cursor = self._database.execute(
            f"DELETE FROM publications WHERE batch_id {self._database.in_list} AND {_ORPHAN}",
            (self._database.list_parameter(batch_ids),),
        )
        return int(cursor.rowcount)
