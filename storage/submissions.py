"""SubmissionRepository: every try at paying for a video, and what became of it.

Whether a POST may go out is always read from here: the database holds at most one live submission a job, so a
second intent can't even be recorded while the first one's outcome is unknown or its video exists.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from storage.database import Database
from storage.records import SubmissionRecord
from storage.rows import Insert, Rows
from storage.states import LIVE_SUBMISSION, UNRESOLVED, SubmissionState

_ENDS_A_VIDEO = frozenset({SubmissionState.FAILED, SubmissionState.DELETED, SubmissionState.ABANDONED})


def _in(states: Collection[SubmissionState]) -> str:
    """Written out: SQLite finds a partial index by the very words that it was made with, in their order."""
    return f"state IN ({', '.join(repr(state.value) for state in SubmissionState if state in states)})"


_UNRESOLVED, _LIVE = _in(UNRESOLVED), _in(LIVE_SUBMISSION)


class SubmissionRepository:
    """Submissions as rows. Reads want a connection, writes a transaction; the caller has opened them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._rows = Rows(database, "submissions", SubmissionRecord)
        self._intend = Insert(
            database, "submissions", SubmissionRecord,
            "ON CONFLICT (id) DO UPDATE SET intended_at=excluded.intended_at WHERE submissions.state=excluded.state",
            given={"intended_at": database.clock, "state": f"'{SubmissionState.INTENDED}'"},
        )  # fmt: skip

    def intend(self, intents: Collection[SubmissionRecord]) -> bool:
        """Record that a POST is about to go out, at the database's time; again, if it is recorded already.

        Returns:
            False if one was recorded and has been resolved since: it must not be sent.

        Raises:
            peewee.IntegrityError: a job has a live submission.
        """
        return self._intend(intents) == len(intents)

    def bind(self, submission_id: str, remote_id: str, *, adopted: bool = False) -> bool:
        """Write down which video a submission made, whoever owns the batch by now.

        Returns:
            False if the intent had been resolved otherwise by then: the video is kept as surplus.
        """
        cursor = self._database.execute(
            "UPDATE submissions SET state=?, remote_id=?, adopted=?, "
            f"closed_at=COALESCE(closed_at, {self._database.clock}) "
            f"WHERE id=? AND {_UNRESOLVED}",
            (SubmissionState.BOUND.value, remote_id, adopted, submission_id),
        )
        if cursor.rowcount == 1:
            return True
        self._database.execute(
            "UPDATE submissions SET state=?, remote_id=? WHERE id=? AND remote_id IS NULL",
            (SubmissionState.SURPLUS.value, remote_id, submission_id),
        )
        # It may have been written before: a COMMIT of unknown outcome is repeated.
        after = self.get(submission_id)
        return after.state is SubmissionState.BOUND and after.remote_id == remote_id

    def settle(self, submission_id: str, state: SubmissionState, note: str | None = None) -> None:
        """Write down that nothing was paid, that nobody can tell, or that the video is no more."""
        if state is SubmissionState.BOUND:
            raise ValueError("a submission is bound by bind(), which knows the remote id")
        # A final outcome is never overwritten; `bound` only gives way to what ends the video.
        before = _LIVE if state in _ENDS_A_VIDEO else _UNRESOLVED
        self._database.execute(
            "UPDATE submissions SET state=?, note=COALESCE(?, note), "
            f"closed_at=COALESCE(closed_at, {self._database.clock}) WHERE id=? AND {before}",
            (state.value, note, submission_id),
        )

    def annotate(self, submission_id: str, note: str) -> None:
        """Add what happened to a submission's video without changing its state."""
        self._database.execute("UPDATE submissions SET note=? WHERE id=?", (note, submission_id))

    def get(self, submission_id: str) -> SubmissionRecord:
        """The submission."""
        (submission,) = self._rows.select("WHERE id=?", (submission_id,))
        return submission

    def of_batch(self, batch_id: str) -> list[SubmissionRecord]:
        """All tries of a batch, in order."""
        return self._rows.select("WHERE batch_id=? ORDER BY intended_at, id", (batch_id,))

    def live_of_batch(self, batch_id: str) -> dict[str, SubmissionRecord]:
        """The one live submission of each job that has one, by job id."""
        return {live.job_id: live for live in self._rows.select(f"WHERE batch_id=? AND {_LIVE}", (batch_id,))}

    def unresolved(self, provider: str, digest: str) -> list[SubmissionRecord]:
        """The intents of one digest whose outcome is open, over all batches, in order of creation, locked."""
        lock = "FOR UPDATE" if self._database.postgresql else ""
        same = f"WHERE provider=? AND digest=? AND {_UNRESOLVED} ORDER BY intended_at, id {lock}"
        return self._rows.select(same, (provider, digest))

    def unresolved_others(self, provider: str, digest: str) -> list[SubmissionRecord]:
        """The intents of all other requests there whose outcome is open."""
        # The range says nothing; it makes SQLite take the index of open intents, not the one of all that was ever made.
        others = f"WHERE provider=? AND digest>'' AND digest<>? AND {_UNRESOLVED}"
        return self._rows.select(others, (provider, digest))

    def held(self, provider: str, remote_ids: Iterable[str]) -> set[str]:
        """Which of these videos a submission holds."""
        sql = f"SELECT remote_id FROM submissions WHERE provider=? AND remote_id {self._database.among}"
        found = self._database.execute(sql, (provider, self._database.listed(remote_ids))).fetchall()
        return {remote_id for (remote_id,) in found}

    def at_server(self, base_url: str) -> list[SubmissionRecord]:
        """All tries at one server, whatever the key was."""
        return self._rows.select("WHERE SUBSTR(provider, 1, ?)=?", (len(base_url) + 1, f"{base_url}#"))

    def made_any(self, provider: str) -> bool:
        """Whether we ever made a video there."""
        sql = "SELECT 1 FROM submissions WHERE provider=? AND remote_id IS NOT NULL LIMIT 1"
        return bool(self._database.execute(sql, (provider,)).fetchall())

    def abandon(self, batch_id: str, job_ids: Iterable[str]) -> None:
        """Let go of what may exist for these jobs: a person gave consent to pay again, or deletes the batch."""
        self._database.execute(
            f"UPDATE submissions SET state='{SubmissionState.ABANDONED}' "
            f"WHERE batch_id=? AND {_LIVE} AND job_id {self._database.among}",
            (batch_id, self._database.listed(job_ids)),
        )
