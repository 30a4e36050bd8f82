"""Deletes: the DELETEs owed to servers after cancellations, so that no video is made for nobody.

Recorded as owed in the transaction of the cancellation, as going out before it is sent, and then with what came of it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from storage.database import Database
from storage.records import DeleteRecord, SubmissionRecord
from storage.rows import Rows, names_of
from storage.states import DeleteState, SubmissionState

_GIVEN_UP_AFTER = 86_400.0
"""Seconds from the first attempt."""
_SOME = 50
# Written out: SQLite finds a partial index by the very words that it was made with, in their order.
_OPEN = "state IN ('owed', 'out')"
_WANTED_AGAIN = (
    "SELECT 1 FROM submissions s JOIN jobs j ON j.id=s.job_id WHERE s.id=deletes.submission_id AND "
    f"(s.remote_id IS NULL OR (s.state='{SubmissionState.BOUND}' AND j.status<>'cancelled'))"
)
"""By an earlier version, whose retries don't withdraw; or its id now belongs to another video."""


class Owed(NamedTuple):
    """A DELETE, and the submission whose video it deletes."""

    delete: DeleteRecord
    submission: SubmissionRecord


class Deletes:
    """DELETEs as rows. Reads need a connection, writes a transaction, opened by the caller."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._deletes = Rows(database, "deletes", DeleteRecord)
        self._submissions = Rows(database, "submissions", SubmissionRecord)
        self._names = len(names_of(DeleteRecord))
        columns = [f"d.{name}" for name in names_of(DeleteRecord)]
        columns += [f"s.{name}" for name in names_of(SubmissionRecord)]
        self._select = f"SELECT {', '.join(columns)} FROM deletes d JOIN submissions s ON s.id=d.submission_id "

    def owe(self, submissions: Collection[SubmissionRecord]) -> None:
        """Record a DELETE as owed; again, if a retry had withdrawn it or it was given up.

        Not of a server whose DELETE is known to remove nothing but the record. The servers are filled in already.
        """
        clock = self._database.clock
        again = f"'{DeleteState.WITHDRAWN}', '{DeleteState.GIVEN_UP}'"
        self._database.execute(
            "INSERT INTO deletes (submission_id, batch_id, state, owed_at, due_at, tries, own_key) "
            f"SELECT s.id, s.batch_id, '{DeleteState.OWED}', {clock}, {clock}, 0, FALSE FROM submissions s "
            f"WHERE s.id {self._database.in_list} AND NOT EXISTS "
            "(SELECT 1 FROM servers WHERE servers.server=s.server AND servers.deletes_only_records) "
            "ON CONFLICT (submission_id) DO UPDATE SET state=excluded.state, owed_at=excluded.owed_at, "
            f"due_at=excluded.due_at, tried_at=NULL, answer=NULL WHERE deletes.state IN ({again})",
            (self._database.list_parameter(each.id for each in submissions),),
        )

    def open(self, server: str) -> list[Owed]:
        """The DELETEs owed to a server or in flight, those due first first; not all of them at once."""
        return self._joined(f"WHERE d.{_OPEN} AND s.server=? ORDER BY d.due_at LIMIT {_SOME}", (server,))

    def of_batch(self, batch_id: str) -> list[Owed]:
        """Every DELETE of a batch's videos, in the order in which they became owed."""
        return self._joined("WHERE d.batch_id=? ORDER BY d.owed_at, s.intended_at, s.id", (batch_id,))

    def outstanding(self) -> list[Owed]:
        """The DELETEs that are owed to any server, in flight, or given up."""
        states = f"'{DeleteState.OWED}', '{DeleteState.OUT}', '{DeleteState.GIVEN_UP}'"
        return self._joined(f"WHERE d.state IN ({states}) ORDER BY d.owed_at, s.id", ())

    def claim(self, submission_id: str, *, own_key: bool, seconds: float) -> DeleteRecord | None:
        """Record that it goes out now, and that nobody else may send it for so long.

        Returns:
            It, as it was before; None: it may not be sent now.
        """
        lock = "FOR UPDATE" if self._database.postgresql else ""
        before = self._deletes.first(f"WHERE submission_id=? {lock}", (submission_id,))
        clock = self._database.clock
        taken = self._database.execute(
            f"UPDATE deletes SET state='{DeleteState.OUT}', due_at={clock}+?, tries=tries+1, own_key=(own_key OR ?), "
            f"tried_at=COALESCE(tried_at, {clock}) "
            f"WHERE submission_id=? AND {_OPEN} AND due_at<={clock} AND NOT EXISTS ({_WANTED_AGAIN})",
            (seconds, own_key, submission_id),
        ).rowcount
        if taken:
            return before
        self._database.execute(
            f"UPDATE deletes SET state='{DeleteState.WITHDRAWN}' "
            f"WHERE submission_id=? AND state='{DeleteState.OWED}' AND EXISTS ({_WANTED_AGAIN})",
            (submission_id,),
        )
        return None

    def not_sent(self, before: DeleteRecord, seconds: float, answer: str) -> None:
        """Mark it as owed again, for another attempt: not a byte had left."""
        self._database.execute(
            f"UPDATE deletes SET due_at={self._database.clock}+?, tries=?, own_key=?, answer=?, "
            f"state=CASE WHEN {self._database.clock}-tried_at>=? THEN '{DeleteState.GIVEN_UP}' "
            f"ELSE '{DeleteState.OWED}' END WHERE submission_id=? AND state='{DeleteState.OUT}' AND tries=?",
            (seconds, before.tries, before.own_key, answer, _GIVEN_UP_AFTER, before.submission_id, before.tries + 1),
        )

    def postpone(self, submission_id: str, tries: int, seconds: float, answer: str) -> None:
        """Leave it owed for another attempt, or give it up after enough time."""
        clock = self._database.clock
        self._database.execute(
            f"UPDATE deletes SET due_at={clock}+?, tried_at=COALESCE(tried_at, {clock}), answer=?, "
            f"state=CASE WHEN {clock}-tried_at>=? THEN '{DeleteState.GIVEN_UP}' ELSE '{DeleteState.OWED}' END "
            f"WHERE submission_id=? AND {_OPEN} AND tries=?",
            (seconds, answer, _GIVEN_UP_AFTER, submission_id, tries),
        )

    def end(self, submission_id: str, state: DeleteState, answer: str) -> None:
        """End a DELETE: it is no longer owed."""
        self._database.execute(
            f"UPDATE deletes SET state=?, answer=? WHERE submission_id=? AND {_OPEN}",
            (state.value, answer, submission_id),
        )

    def end_all(self, server: str, answer: str) -> None:
        """End all DELETEs owed to a server; those in flight end by themselves."""
        self._database.execute(
            f"UPDATE deletes SET state='{DeleteState.DONE}', answer=? WHERE state='{DeleteState.OWED}' AND "
            "submission_id IN (SELECT id FROM submissions WHERE server=?)",
            (answer, server),
        )

    def withdraw(self, submission_ids: Collection[str]) -> float:
        """Withdraw the owed DELETEs of these submissions.

        Returns:
            For how many seconds one that is on its way is to be waited for, at the most; 0: none is.
        """
        clock, ids = self._database.clock, self._database.list_parameter(submission_ids)
        some = f"submission_id {self._database.in_list}"
        self._database.execute(
            f"UPDATE deletes SET state='{DeleteState.WITHDRAWN}' "
            f"WHERE {some} AND (state='{DeleteState.OWED}' OR (state='{DeleteState.OUT}' AND due_at<={clock}))",
            (ids,),
        )
        out = f"SELECT MAX(due_at)-{clock} FROM deletes WHERE {some} AND state='{DeleteState.OUT}'"
        ((seconds,),) = self._database.execute(out, (ids,)).fetchall()
        return max(0.0, float(seconds or 0.0))

    def record_gone(self, batch_id: str) -> set[str]:
        """The jobs of a batch whose video is out of reach but may still be made."""
        sql = (
            "SELECT s.job_id FROM deletes d JOIN submissions s ON s.id=d.submission_id "
            f"WHERE d.batch_id=? AND d.state='{DeleteState.RECORD_ONLY}' AND s.state='{SubmissionState.BOUND}'"
        )
        return {job_id for (job_id,) in self._database.execute(sql, (batch_id,)).fetchall()}

    def was_sent(self, submission_id: str) -> bool:
        """Whether one went out with the key that made the video."""
        sql = "SELECT 1 FROM deletes WHERE submission_id=? AND own_key"
        return bool(self._database.execute(sql, (submission_id,)).fetchall())

    def _joined(self, rest: str, parameters: tuple[str, ...]) -> list[Owed]:
        rows = self._database.execute(self._select + rest, parameters).fetchall()
        return [
            Owed(self._deletes.read(row[: self._names]), self._submissions.read(row[self._names :])) for row in rows
        ]
