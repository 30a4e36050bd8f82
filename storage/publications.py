"""How far each batch's journal is published.

Each batch has a watermark: the broker has confirmed everything up to it. All processes of a database share it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from storage.database import Database
from storage.journal import Journal
from storage.records import EventRecord

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
