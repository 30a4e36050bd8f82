"""SubmissionRepository: every try at paying for a video, and what became of it.

Whether a POST may go out is always read from here: the database holds at most one live submission a job, so a
second intent can't even be recorded while the first one's outcome is unknown or its video exists.
"""

from __future__ import annotations

from collections.abc import Iterable

from peewee import fn

from storage.database import Database
from storage.records import Document, SubmissionRecord
from storage.states import LIVE_SUBMISSION, UNRESOLVED, SubmissionState

_UNRESOLVED = tuple(sorted(state.value for state in UNRESOLVED))


class SubmissionRepository:
    """Submissions as rows. Reads want a connection, writes a transaction; the caller has opened them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._table = database.tables.submission

    def intend(self, intents: Iterable[SubmissionRecord]) -> None:
        """Record that a POST is about to go out, at the database's time; again, if it is recorded already.

        Raises:
            peewee.IntegrityError: a job has a live submission.
        """
        for intent in intents:
            self._database.execute(
                "INSERT INTO submissions (id, job_id, batch_id, attempt, digest, provider, sender, intended_at, state, "
                f"adopted) VALUES (?, ?, ?, ?, ?, ?, ?, {self._database.clock}, ?, ?) "
                "ON CONFLICT (id) DO UPDATE SET intended_at=excluded.intended_at "
                "WHERE submissions.state=excluded.state",
                (
                    intent.id, intent.job_id, intent.batch_id, intent.attempt, intent.digest, intent.provider,
                    intent.sender, SubmissionState.INTENDED.value, intent.adopted,
                ),
            )  # fmt: skip

    def bind(self, submission_id: str, remote_id: str, *, adopted: bool = False) -> bool:
        """Write down which video a submission made, whoever owns the batch by now.

        Returns:
            False if the intent had been resolved otherwise by then: the video is kept as surplus.
        """
        cursor = self._database.execute(
            "UPDATE submissions SET state=?, remote_id=?, adopted=?, "
            f"closed_at=COALESCE(closed_at, {self._database.clock}) "
            f"WHERE id=? AND state IN ({', '.join('?' * len(_UNRESOLVED))})",
            (SubmissionState.BOUND.value, remote_id, adopted, submission_id, *_UNRESOLVED),
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
        before = tuple(_LIVE) if state in _ENDS_A_VIDEO else _UNRESOLVED
        self._database.execute(
            f"UPDATE submissions SET state=?, note=COALESCE(?, note), "
            f"closed_at=COALESCE(closed_at, {self._database.clock}) "
            f"WHERE id=? AND state IN ({','.join('?' * len(before))})",
            (state.value, note, submission_id, *before),
        )

    def annotate(self, submission_id: str, note: str) -> None:
        """Add what happened to a submission's video without changing its state."""
        self._table.update(note=note).where(self._table.id == submission_id).execute()

    def get(self, submission_id: str) -> SubmissionRecord:
        """The submission."""
        return _record(next(iter(self._table.select().where(self._table.id == submission_id).dicts())))

    def of_batch(self, batch_id: str) -> list[SubmissionRecord]:
        """All tries of a batch, in order."""
        table = self._table
        query = table.select().where(table.batch_id == batch_id).order_by(table.intended_at, table.id)
        return [_record(row) for row in query.dicts()]

    def live_of_batch(self, batch_id: str) -> dict[str, SubmissionRecord]:
        """The one live submission of each job that has one, by job id."""
        table = self._table
        query = table.select().where((table.batch_id == batch_id) & table.state.in_(_LIVE))
        return {row["job_id"]: _record(row) for row in query.dicts()}

    def unresolved(self, provider: str, digest: str) -> list[SubmissionRecord]:
        """The intents of one digest whose outcome is open, over all batches, in order of creation, locked."""
        table = self._table
        query = (
            table.select()
            .where((table.provider == provider) & (table.digest == digest) & table.state.in_(_UNRESOLVED))
            .order_by(table.intended_at, table.id)
        )
        if self._database.postgresql:
            query = query.for_update()
        return [_record(row) for row in query.dicts()]

    def unresolved_others(self, provider: str, digest: str) -> list[SubmissionRecord]:
        """The intents of all other requests there whose outcome is open."""
        table = self._table
        others = (table.provider == provider) & (table.digest != digest) & table.state.in_(_UNRESOLVED)
        return [_record(row) for row in table.select().where(others).dicts()]

    def held(self, provider: str, remote_ids: Iterable[str]) -> set[str]:
        """Which of these videos a submission holds."""
        table = self._table
        query = table.select(table.remote_id).where(
            (table.provider == provider) & table.remote_id.in_(list(remote_ids))
        )
        return {remote_id for (remote_id,) in query.tuples()}

    def at_server(self, base_url: str) -> list[SubmissionRecord]:
        """All tries at one server, whatever the key was."""
        table = self._table
        here = fn.SUBSTR(table.provider, 1, len(base_url) + 1) == f"{base_url}#"
        return [_record(row) for row in table.select().where(here).dicts()]

    def made_any(self, provider: str) -> bool:
        """Whether we ever made a video there."""
        table = self._table
        made = (table.provider == provider) & table.remote_id.is_null(is_null=False)
        return bool(list(table.select(table.id).where(made).limit(1).tuples()))

    def abandon(self, batch_id: str, job_ids: Iterable[str]) -> None:
        """Let go of what may exist for these jobs: a person gave consent to pay again, or deletes the batch."""
        table = self._table
        table.update(state=SubmissionState.ABANDONED.value).where(
            (table.batch_id == batch_id) & table.job_id.in_(list(job_ids)) & table.state.in_(_LIVE)
        ).execute()


_LIVE = sorted(state.value for state in LIVE_SUBMISSION)
_ENDS_A_VIDEO = frozenset({SubmissionState.FAILED, SubmissionState.DELETED, SubmissionState.ABANDONED})


def _record(row: Document) -> SubmissionRecord:
    return SubmissionRecord(**{**row, "state": SubmissionState(row["state"])})
