"""Inbox: the commands that were taken, each with its answer, so that one delivered twice is done once.

A row is written in the transaction of what the command did.
"""

from __future__ import annotations

from storage.database import Database
from storage.records import InboxRecord


class Inbox:
    """Taken commands as rows. Everything wants a transaction; the caller has opened it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def take(self, source: str, command_id: str, digest: str, at: float) -> InboxRecord | None:
        """Enter a command, whose `answer` is to follow in the same transaction.

        Returns:
            None if it is new; else what was entered before: nothing was written. Whoever takes the same command
            elsewhere at this moment waits until we have answered it.
        """
        # An unread RETURNING breaks the COMMIT on SQLite: read it here.
        taken = self._database.execute(
            "INSERT INTO inbox (source, id, digest, answer, received_at) VALUES (?, ?, ?, '', ?) "
            "ON CONFLICT (source, id) DO NOTHING RETURNING id",
            (source, command_id, digest, at),
        ).fetchall()
        if taken:
            return None
        rows = self._database.execute(
            "SELECT source, id, digest, answer, received_at FROM inbox WHERE source=? AND id=?", (source, command_id)
        ).fetchall()
        return InboxRecord(*rows[0])

    def answer(self, source: str, command_id: str, answer: str) -> None:
        """Keep how a command was answered."""
        self._database.execute("UPDATE inbox SET answer=? WHERE source=? AND id=?", (answer, source, command_id))

    def prune(self, before: float, limit: int = 1000) -> int:
        """Forget some of the commands that were taken before a moment.

        Returns:
            How many went.
        """
        cursor = self._database.execute(
            "DELETE FROM inbox WHERE (source, id) IN "
            "(SELECT source, id FROM inbox WHERE received_at < ? ORDER BY received_at LIMIT ?)",
            (before, limit),
        )
        return int(cursor.rowcount)
