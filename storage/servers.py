"""Servers: what is known about them, and what was submitted to them."""

from __future__ import annotations

from collections.abc import Iterable

from storage.database import Database
from storage.records import SubmissionRecord
from storage.rows import Rows
from storage.states import SubmissionState
from storage.urls import key_of, server_of

# Written out: SQLite finds a partial index by the very words that it was made with, in their order. Why no IN: 0025.
OPEN_INTENT = "(state='intended' OR state='unknown' OR state='clashed')"


class Servers:
    """Facts as rows. Reads need a connection, writes a transaction, opened by the caller."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def reuses_ids(self, server: str) -> bool:
        """Whether it has reused an id: then what it lists under that id may be either video."""
        return self._learned(server, "reuses_ids")

    def note_reused_ids(self, server: str) -> None:
        """Record that it has reused an id."""
        self._note(server, "reuses_ids")

    def note_deletes_only_records(self, server: str) -> None:
        """Record that its DELETE removes only the record of a video and stops nothing."""
        self._note(server, "deletes_only_records")

    def carry_over(self, server: str, moved_to: str) -> None:
        """Copy what is known about a server to its new address."""
        for fact in ("reuses_ids", "deletes_only_records"):
            if self._learned(server, fact):
                self._note(moved_to, fact)

    def _learned(self, server: str, fact: str) -> bool:
        rows = self._database.execute(f"SELECT {fact} FROM servers WHERE server=?", (server,)).fetchall()
        return bool(rows and rows[0][0])

    def _note(self, server: str, fact: str) -> None:
        self._database.execute(
            f"INSERT INTO servers (server, {fact}) VALUES (?, TRUE) ON CONFLICT (server) DO UPDATE SET {fact}=TRUE",
            (server,),
        )


class SubmissionsAtServers:
    """What `SubmissionRepository` knows of a server, whatever the batch: which video there is whose."""

    _database: Database
    _rows: Rows[SubmissionRecord]

    def holder(self, server: str, remote_id: str) -> SubmissionRecord | None:
        """The submission that holds this id at a server."""
        return self._rows.first("WHERE server=? AND remote_id=?", (server, remote_id))

    def holders(self, server: str, remote_ids: Iterable[str]) -> dict[str, SubmissionRecord]:
        """The submissions that hold these ids at a server, by remote id."""
        some = f"WHERE server=? AND remote_id {self._database.in_list}"
        found = self._rows.select(some, (server, self._database.list_parameter(remote_ids)))
        return {held.remote_id: held for held in found if held.remote_id is not None}

    def ids_like(self, server: str, beginning: str) -> list[str]:
        """The remote ids at a server with this prefix, and perhaps some that almost match."""
        sql = "SELECT remote_id FROM submissions WHERE server=? AND remote_id LIKE ?"
        return [remote_id for (remote_id,) in self._database.execute(sql, (server, f"{beginning}%")).fetchall()]

    def unresolved(self, server: str, since: float, submission_ids: Iterable[str]) -> list[SubmissionRecord]:
        """The intents at a server whose outcome is unknown, with any key, oldest first, locked.

        As far as they were recorded since a moment, or are named: what nobody resolved long ago does not grow.
        """
        self.fill_in()
        lock = "FOR UPDATE" if self._database.postgresql else ""
        # The range of digests excludes nothing; it makes SQLite use the index of open intents.
        open_ones = (
            f"WHERE server=? AND digest>'' AND {OPEN_INTENT} AND (intended_at>=? OR id {self._database.in_list})"
        )
        parameters = (server, since, self._database.list_parameter(submission_ids))
        return self._rows.select(f"{open_ones} ORDER BY intended_at, id {lock}", parameters)

    def left_unknown(self, server: str, key: str, tried: Iterable[str], limit: int) -> list[SubmissionRecord]:
        """Some intents of ended jobs whose outcome is unknown, sent with this key: nobody resolves them any more.

        Not those that were tried, or what nobody can resolve would hide everything after it.
        """
        ended = "SELECT 1 FROM jobs j WHERE j.id=submissions.job_id AND j.status IN ('failed', 'cancelled')"
        return self._rows.select(
            f"WHERE server=? AND digest>'' AND {OPEN_INTENT} AND key_fingerprint=? AND EXISTS ({ended}) "
            f"AND NOT (id {self._database.in_list}) ORDER BY intended_at LIMIT ?",
            (server, key, self._database.list_parameter(tried), limit),
        )

    def at_server(self, server: str) -> list[SubmissionRecord]:
        """All submissions at one server, with any key."""
        self.fill_in()
        return self._rows.select("WHERE server=?", (server,))

    def rivals(self, adopted: SubmissionRecord, since: float) -> list[SubmissionRecord]:
        """Submissions with another request whose video the adopted one may be: what they made was never told either.

        With the same key at the same server, intended since a moment.
        """
        untold = f"(adopted OR {OPEN_INTENT} OR state='{SubmissionState.ABANDONED}')"
        others = f"WHERE server=? AND key_fingerprint=? AND digest<>? AND intended_at>=? AND {untold}"
        parameters = (adopted.server, adopted.key_fingerprint, adopted.digest, since)
        return self._rows.select(f"{others} ORDER BY intended_at, id", parameters)

    def made_any(self, server: str) -> bool:
        """Whether we ever made a video there."""
        sql = "SELECT 1 FROM submissions WHERE server=? AND remote_id IS NOT NULL LIMIT 1"
        return bool(self._database.execute(sql, (server,)).fetchall())

    def fill_in(self) -> None:
        """Fill in the server and the key, which processes of the previous version do not record."""
        sql = "SELECT DISTINCT provider FROM submissions WHERE server IS NULL"
        for (provider,) in self._database.execute(sql).fetchall():
            self._database.execute(
                "UPDATE submissions SET server=?, key_fingerprint=? WHERE server IS NULL AND provider=?",
                (server_of(provider), key_of(provider), provider),
            )

    def move(self, batch_id: str, server_before: str, provider: str) -> bool:
        """Record that a batch's videos at a server are now at another address: the server has moved.

        Returns:
            False if videos with these ids are known there already: nothing was written.
        """
        server = server_of(provider)
        entries = [
            entry
            for entry in self._rows.select("WHERE batch_id=?", (batch_id,))
            if server_of(entry.provider) == server_before
        ]
        if self.holders(server, [entry.remote_id for entry in entries if entry.remote_id is not None]):
            return False
        for entry in entries:
            moved = f"{provider.partition('#')[0]}#{key_of(entry.provider)}"
            self._database.execute("UPDATE submissions SET provider=?, server=? WHERE id=?", (moved, server, entry.id))
        return True
