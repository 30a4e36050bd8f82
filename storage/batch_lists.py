"""Lists of batches: those of a status and with some metadata, those that run, and those that have ended."""

from __future__ import annotations

import functools
import json
import math
import operator
from collections.abc import Mapping
from typing import Any

from peewee import SQL, Table

from storage.database import Database
from storage.records import BatchRecord
from storage.rows import Rows, encode, names_of
from storage.states import BatchStatus

# Written out: SQLite finds a partial index by the very words that it was made with, in their order.
OPEN = "status IN ('pending', 'processing')"
KEPT = "deleted_at IS NULL"
"""It is not being deleted: a batch in deletion is hidden."""


class BatchLists:
    """The reads of `BatchRepository` that give several batches. They need a connection, opened by the caller."""

    _database: Database
    _rows: Rows[BatchRecord]

    def find(
        self,
        *,
        status: BatchStatus | None = None,
        metadata: Mapping[str, Any] | None = None,
        spelled: Mapping[str, str] | None = None,
        limit: int = 50,
        after: str | None = None,
    ) -> list[BatchRecord]:
        """Batches, newest first, starting after `after`; `metadata` must match in each given key.

        `spelled`: the same in words, as a URL has them: also a number or a boolean that is written so.
        """
        table: Any = Table("batches", names_of(BatchRecord)).bind(self._database.peewee)
        query = table.select().where(SQL(KEPT)).order_by(table.created_at.desc(), table.id.desc()).limit(limit)
        if status is not None:
            query = query.where(table.status == status.value)
        for key, value in (metadata or {}).items():
            query = query.where(self._has(key, value))
        for key, text in (spelled or {}).items():
            query = query.where(functools.reduce(operator.or_, (self._has(key, value) for value in _meant_by(text))))
        if after is not None:
            last = table.select(table.created_at).where(table.id == after)
            # The first condition enters the index; without it all newer rows would be scanned.
            query = query.where(
                table.created_at <= last, (table.created_at < last) | ((table.created_at == last) & (table.id < after))
            )
        return [self._rows.read(row) for row in query.tuples().execute()]

    def _has(self, key: str, value: Any) -> SQL:
        """Whether a batch has this in its metadata; None: or nothing. Not by a path: on SQLite none names every key."""
        if self._database.postgresql:
            return SQL("COALESCE(metadata -> %s::text, 'null') = %s::jsonb", (key, encode(value)))
        if value is None:
            return SQL("NOT EXISTS (SELECT 1 FROM json_each(metadata) WHERE key=? AND type<>'null')", (key,))
        same = "key=? AND type=json_type(?) AND value=json_extract(?, '$')"
        return SQL(f"EXISTS (SELECT 1 FROM json_each(metadata) WHERE {same})", (key, encode(value), encode(value)))

    def running(self, limit: int) -> list[BatchRecord]:
        """Some of the unfinished batches that were started or are wanted, of every provider, newest first."""
        some = f"WHERE {OPEN} AND {KEPT} AND (status='processing' OR wanted) ORDER BY created_at DESC LIMIT ?"
        return self._rows.select(some, (limit,))

    def ended_before(self, moment: float, limit: int) -> list[BatchRecord]:
        """Some of the batches that ended before a time, oldest first."""
        return self._rows.select(f"WHERE completed_at < ? AND {KEPT} ORDER BY completed_at LIMIT ?", (moment, limit))

    def ended_badly_since(self, moment: float) -> list[str]:
        """Ids of the batches that ended since a time without all videos completed."""
        sql = "SELECT id FROM batches WHERE completed_at >= ? AND status <> 'completed'"
        return [batch_id for (batch_id,) in self._database.execute(sql, (moment,)).fetchall()]

    def not_ended(self) -> list[str]:
        """Ids of the batches that have not ended, started or not, of every provider."""
        sql = f"SELECT id FROM batches WHERE {OPEN} AND {KEPT} ORDER BY created_at"
        return [each for (each,) in self._database.execute(sql).fetchall()]


def _meant_by(text: str) -> list[Any]:
    """What somebody may mean who can only write text."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return [text]
    return [text, value] if isinstance(value, bool | int | float) and math.isfinite(value) else [text]
