"""Inbox: the applied commands with their answers, so that one delivered twice is applied once.

A row is written in the transaction of the command's effect.
"""

from __future__ import annotations

from typing import NamedTuple

from storage.database import Database


class InboxRecord(NamedTuple):
    """A command that was applied, and its answer."""

    source: str
    id: str
    digest: str
    """Of the command's bytes: detects the same id with a different body."""
    answer: str
    """The event that answers it, as published."""
    received_at: float


class Inbox:
    """Applied commands as rows. Everything needs a transaction, opened by the caller."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def take(self, source: str, command_id: str, digest: str, at: float) -> InboxRecord | None:
        """Enter a command, whose `answer` is to follow in the same transaction.

        Returns:
            None if it is new; otherwise the earlier entry, with nothing written. A process that enters the same command
            at the same time waits until we have answered it.
        """
        # An unread RETURNING breaks the COMMIT on SQLite: read it here.
        taken = self._database.execute(
            "INSERT INTO inbox (source, id, digest, answer, received_at) VALUES (?, ?, ?, '', ?) "
            "ON CONFLICT (source, id) DO NOTHING RETURNING id",
            (source, command_id, digest, at),
        ).fetchall()
        if taken:
            return None
        found = self.get(source, command_id)
        assert found is not None
        return found

    def get(self, source: str, command_id: str) -> InboxRecord | None:
        """The entry of a command that was answered, or None."""
        rows = self._database.execute(
            "SELECT source, id, digest, answer, received_at FROM inbox WHERE source=? AND id=?", (source, command_id)
        ).fetchall()
        return InboxRecord(*rows[0]) if rows else None

    def answer(self, source: str, command_id: str, answer: str) -> None:
        """Store the answer of a command."""
        self._database.execute("UPDATE inbox SET answer=? WHERE source=? AND id=?", (answer, source, command_id))

    def prune(self, before: float, limit: int = 1000) -> int:
        """Remove some of the commands from before a time.

        Returns:
            How many were removed.
        """
        cursor = self._database.execute(  # crash point: forget commands
            "DELETE FROM inbox WHERE (source, id) IN "
            "(SELECT source, id FROM inbox WHERE received_at < ? ORDER BY received_at LIMIT ?)",
            (before, limit),
        )
        return int(cursor.rowcount)
