"""BatchRepository: the batches, their owners, and the fence that every change passes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from storage.batch_lists import KEPT, OPEN, BatchLists
from storage.database import Database
from storage.records import BatchRecord, Document
from storage.rows import Insert, Rows, encode
from storage.states import BatchStatus
from storage.urls import server_of

# The row's lock, the sequence numbers and the fence in one statement: nothing is written for an owner that lost
# its batch, nor a second time after a COMMIT whose outcome was unknown (the sequence has moved on by then).
_ADVANCE = (
    "UPDATE batches SET sequence=?, status=?, completed=?, failed=?, cancelled=?, processing=?, error=?, "
    "concurrency=?, owner=?, wanted=?, claims=?, spent=?, epoch=?, updated_at=?, started_at=?, completed_at=? "
    "WHERE id=? AND epoch=? AND sequence=?"
)
# Whoever changes the ceilings locks this table first: what is recorded from then on knows of them.
_SAME_CEILINGS = " AND (SELECT COALESCE(MAX(version), 0) FROM ceilings)=?"
# Without a server: not started yet, or by the version before, which knows only the provider's own text.
_IS_AT = "({0}server=? OR ({0}server IS NULL AND ({0}provider IS NULL OR {0}provider=?)))"


class BatchRepository(BatchLists):
    """Batches as rows. Reads need a connection, writes a transaction, opened by the caller."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._rows = Rows(database, "batches", BatchRecord)
        self._add = Insert(database, "batches", BatchRecord, "ON CONFLICT (id) DO NOTHING RETURNING id")

    def add(self, batch: BatchRecord) -> bool:
        """Store a new batch.

        Returns:
            False if its id is taken, be it by somebody who was just a moment faster: nothing was written.
        """
        return bool(self._add.one(batch))

    def get(self, batch_id: str) -> BatchRecord | None:
        """The batch, or None."""
        return self._rows.first(f"WHERE id=? AND {KEPT}", (batch_id,))

    def sequence(self, batch_id: str) -> int | None:
        """The number of a batch's last event; None: there is no such batch."""
        sql = f"SELECT sequence FROM batches WHERE id=? AND {KEPT}"
        row = self._database.execute(sql, (batch_id,)).fetchone()
        return None if row is None else int(row[0])

    def heads(self, batch_ids: Iterable[str]) -> dict[str, tuple[int, BatchStatus]]:
        """The number of the last event, and the status, of each existing batch among these."""
        sql = f"SELECT id, sequence, status FROM batches WHERE id {self._database.in_list} AND {KEPT}"
        rows = self._database.execute(sql, (self._database.list_parameter(batch_ids),)).fetchall()
        return {batch_id: (int(sequence), BatchStatus(status)) for batch_id, sequence, status in rows}

    def moving(self, since: float) -> dict[str, int]:
        """The number of the last event of each batch that has not ended, or ended since a time."""
        sql = (
            f"SELECT id, sequence FROM batches WHERE {OPEN} AND {KEPT} "
            f"UNION ALL SELECT id, sequence FROM batches WHERE completed_at >= ? AND {KEPT}"
        )
        return dict(self._database.execute(sql, (since,)).fetchall())

    def locked(self, batch_id: str) -> BatchRecord | None:
        """The batch, locked until this transaction ends."""
        lock = "FOR UPDATE" if self._database.postgresql else ""
        return self._rows.first(f"WHERE id=? AND {KEPT} {lock}", (batch_id,))

    def unfinished(self, provider: str) -> list[str]:
        """Ids of the unfinished batches that were started or are wanted, oldest first."""
        self.fill_in()
        sql = (
            f"SELECT id FROM batches WHERE {OPEN} AND {KEPT} AND (status='processing' OR wanted) "
            f"AND {_IS_AT.format('')} ORDER BY created_at"
        )
        at = (server_of(provider), provider)
        return [batch_id for (batch_id,) in self._database.execute(sql, at).fetchall()]

    def standings(self, batch_ids: Iterable[str]) -> dict[str, tuple[str, int, str | None]]:
        """`(status, epoch, owner)` of each existing batch; the status as written, even an invalid one."""
        sql = f"SELECT id, status, epoch, owner FROM batches WHERE id {self._database.in_list} AND {KEPT}"
        rows = self._database.execute(sql, (self._database.list_parameter(batch_ids),)).fetchall()
        return {batch_id: (status, epoch, owner) for batch_id, status, epoch, owner in rows}

    def advance(self, batch: BatchRecord, *, epoch: int, sequence: int, ceilings: int | None = None) -> bool:
        """Write all mutable columns of a batch, if it is still at `epoch` and `sequence`.

        `ceilings`: and if the database's ceilings are still those of this version.

        Returns:
            False if somebody else has changed one of them since: nothing was written.
        """
        cursor = self._database.execute(
            _ADVANCE if ceilings is None else f"{_ADVANCE}{_SAME_CEILINGS}",
            (
                batch.sequence, batch.status.value, batch.completed, batch.failed, batch.cancelled, batch.processing,
                None if batch.error is None else encode(batch.error), batch.concurrency, batch.owner, batch.wanted,
                batch.claims, batch.spent, batch.epoch, batch.updated_at, batch.started_at, batch.completed_at,
                batch.id, epoch, sequence, *(() if ceilings is None else (ceilings,)),
            ),
        )  # fmt: skip
        return bool(cursor.rowcount == 1)

    def move(self, batch: BatchRecord, provider: str) -> None:
        """Record that a batch's videos are made elsewhere from now on. Its owner is fenced."""
        self.update(batch.id, provider=provider, server=server_of(provider), epoch=batch.epoch + 1, owner=None)

    def fill_in(self) -> None:
        """Fill in the servers of open batches that a process of the previous version has started."""
        started = f"{OPEN} AND server IS NULL AND provider IS NOT NULL"
        for (provider,) in self._database.execute(f"SELECT DISTINCT provider FROM batches WHERE {started}").fetchall():
            sql = f"UPDATE batches SET server=? WHERE {started} AND provider=?"
            self._database.execute(sql, (server_of(provider), provider))

    def update(self, batch_id: str, **columns: Any) -> None:
        """Change columns that do not belong to the owner: `wanted`, `metadata`, and those not in use at the moment."""
        given = ", ".join(f"{name}=?" for name in columns)
        values = [encode(value) if isinstance(value, dict | list) else value for value in columns.values()]
        self._database.execute(f"UPDATE batches SET {given} WHERE id=?", [*values, batch_id])

    def join_trace(self, batch_id: str, trace: Document) -> None:
        """Put a batch into a trace if it has none and nobody works on it."""
        sql = "UPDATE batches SET trace=? WHERE id=? AND trace IS NULL AND owner IS NULL"
        self._database.execute(sql, (encode(trace), batch_id))

    def wanted(self, provider: str, *, owner: str, limit: int) -> dict[str, str | None]:
        """Ids of the wanted batches of a provider without another live owner, oldest first.

        With the owner that each had until now, if it had one.
        Among the owner's own is what it claimed without hearing of it.
        """
        sql = (
            f"SELECT b.id, b.owner FROM batches b WHERE b.wanted AND b.{OPEN} AND b.{KEPT} "
            f"AND {_IS_AT.format('b.')} AND (b.owner IS NULL OR b.owner=? OR NOT EXISTS "
            f"(SELECT 1 FROM owners o WHERE o.id=b.owner AND o.lease_until >= {self._database.clock})) "
            "ORDER BY b.created_at LIMIT ?"
        )
        parameters = [server_of(provider), provider, owner, limit]
        return dict(self._database.execute(sql, parameters).fetchall())

    def claim(
        self, batch_ids: Iterable[str], *, owner: str, provider: str, limit: int, only_wanted: bool = False
    ) -> list[str]:
        """Claim batches without an owner, or whose owner's lease has expired: each epoch goes up.

        A batch of the new owner's own is taken again: its supervisor has died.

        Args:
            batch_ids: these.
            owner: the new owner.
            provider: only batches of its server, whatever the key, or that have none yet (they get this one).
            limit: at most so many, oldest first.
            only_wanted: not those that nobody wants any more; else whoever asks for them by name wants them.
        """
        ids = list(batch_ids)
        if not ids or limit < 1:
            return []
        chosen = f"AND b.id {self._database.in_list} {'AND b.wanted ' if only_wanted else ''}"
        lock = "FOR UPDATE OF b SKIP LOCKED" if self._database.postgresql else ""
        sql = (
            "UPDATE batches SET owner=?, epoch=epoch+1, wanted=TRUE, "
            # Its supervisor has died of a bug, and the process lives: that is no death.
            "claims=CASE WHEN owner=? THEN 0 ELSE claims END, provider=COALESCE(provider, ?), server=? "
            f"WHERE id IN (SELECT b.id FROM batches b WHERE b.{OPEN} AND b.{KEPT} "
            f"AND {_IS_AT.format('b.')} {chosen}"
            "AND (b.owner=? OR NOT EXISTS (SELECT 1 FROM owners o WHERE o.id=b.owner "
            f"AND o.lease_until >= {self._database.clock})) "
            f"ORDER BY b.created_at LIMIT ? {lock}) RETURNING id"
        )
        server = server_of(provider)
        listed = self._database.list_parameter(ids)
        parameters = [owner, owner, provider, server, server, provider, listed, owner, limit]
        # An unread RETURNING breaks the COMMIT on SQLite: read it here.
        return [row[0] for row in self._database.execute(sql, parameters).fetchall()]  # crash point: claim

    def release(self, batch_id: str, *, epoch: int, spent: float, wanted: bool, claims: int = 0) -> bool:
        """Release a batch, if it is still held at `epoch`.

        Args:
            batch_id: of the batch.
            epoch: the owner's.
            spent: the seconds of its time that are spent.
            wanted: whether it stays queued; it does if a command asked for it since it was queued.
            claims: unchanged if it was not begun.

        Returns:
            Whether it is queued now.
        """
        released = self._database.execute(  # crash point: release
            "UPDATE batches SET owner=NULL, epoch=epoch+1, claims=?, spent=?, wanted=(? OR asked_again) "
            "WHERE id=? AND epoch=? RETURNING wanted",
            (claims, spent, wanted, batch_id, epoch),
        ).fetchall()
        return any(wanted for (wanted,) in released)

    def release_idle(self, batch_id: str, *, owner: str, wanted: bool) -> None:
        """Release a batch that is not running here, unless another owner has it."""
        self._database.execute(  # crash point: leave
            "UPDATE batches SET owner=NULL, epoch=epoch+1, wanted=(wanted AND (? OR asked_again)) "
            "WHERE id=? AND (owner IS NULL OR owner=?)",
            (wanted, batch_id, owner),
        )

    def unchanged(self, batches: Iterable[BatchRecord]) -> list[str]:
        """Ids of the batches unchanged since they were read; locked until this transaction ends."""
        stood = {batch.id: (batch.epoch, batch.sequence) for batch in batches}
        lock = "ORDER BY id FOR UPDATE" if self._database.postgresql else ""  # in order: two that lock many don't clash
        sql = f"SELECT id, epoch, sequence FROM batches WHERE id {self._database.in_list} AND {KEPT} {lock}"
        rows = self._database.execute(sql, (self._database.list_parameter(stood),)).fetchall()
        return [batch_id for batch_id, *stands in rows if stood[batch_id] == tuple(stands)]

    def hide(self, batch_id: str, at: float) -> None:
        """Start deleting a batch: from now on it is hidden."""
        self._database.execute("UPDATE batches SET deleted_at=? WHERE id=?", (at, batch_id))

    def hold_hidden(self, batch_id: str) -> bool:
        """Whether a batch is being deleted; until this transaction ends, nobody finishes that."""
        held = self._database.execute(
            "UPDATE batches SET deleted_at=deleted_at WHERE id=? AND deleted_at IS NOT NULL", (batch_id,)
        )
        return bool(held.rowcount)

    def hidden(self, batch_id: str | None = None) -> list[str]:
        """Ids of the batches (or only this one) whose deletion has begun."""
        one, parameters = ("AND id=?", [batch_id]) if batch_id is not None else ("", [])
        sql = f"SELECT id FROM batches WHERE deleted_at IS NOT NULL {one}"
        return [each for (each,) in self._database.execute(sql, parameters).fetchall()]

    def latest(self) -> float:
        """When something was last recorded of a batch or a submission, by the database's clock; 0: nothing ever was."""
        sql = "SELECT MAX(updated_at) FROM batches UNION ALL SELECT MAX(intended_at) FROM submissions"
        return max(moment or 0.0 for (moment,) in self._database.execute(sql).fetchall())

    def remove(self, *batch_ids: str) -> None:
        """Remove batches and their jobs."""
        listed = self._database.list_parameter(batch_ids)
        self._database.execute(f"DELETE FROM batches WHERE id {self._database.in_list}", (listed,))
