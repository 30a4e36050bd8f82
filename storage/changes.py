"""An update of a batch, recorded completely or not at all, and only for its owner."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from storage.batches import BatchRepository
from storage.database import Database
from storage.deletes import Deletes
from storage.inbox import Inbox
from storage.jobs import JobRepository
from storage.journal import Journal, Publications
from storage.owners import Owners
from storage.records import BatchRecord, Document, EventRecord, JobRecord, SubmissionRecord
from storage.servers import Servers
from storage.states import SubmissionState
from storage.submissions import SubmissionRepository


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmissionOutcome:
    """The outcome of a submission, or of its video."""

    submission_id: str
    state: SubmissionState
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What to write: records as they will be; `epoch` and `sequence` that the batch must have now."""

    batch: BatchRecord
    epoch: int
    sequence: int
    jobs: tuple[JobRecord, ...] = ()
    intents: tuple[SubmissionRecord, ...] = ()
    outcomes: tuple[SubmissionOutcome, ...] = ()
    told: tuple[tuple[str, Document], ...] = ()
    """What servers said about the prices of submissions, by submission id."""
    events: tuple[EventRecord, ...] = ()
    closing: Callable[[BatchRecord, Iterable[JobRecord]], EventRecord] | None = None
    """Builds the last event from the batch and all of its jobs, as they are after the change."""


class Storage:
    """All repositories of one database, and the one way to change a batch."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.batches = BatchRepository(database)
        self.jobs = JobRepository(database)
        self.submissions = SubmissionRepository(database)
        self.deletes = Deletes(database)
        self.journal = Journal(database)
        self.publications = Publications(database, self.journal)
        self.owners = Owners(database)
        self.inbox = Inbox(database)
        self.servers = Servers(database)

    def apply(self, changes: Changes) -> bool:
        """Write an update inside the caller's transaction. Repeating it after an unknown COMMIT changes nothing.

        Returns:
            False if another process has the batch by now, or has resolved an intent that was recorded before: the
            caller must not act on it. (No exception: that would roll back the other writes of the same group.)
        """
        if not self.batches.advance(changes.batch, epoch=changes.epoch, sequence=changes.sequence):
            if not self._is_repetition(changes):
                return False
            return self.submissions.intend(changes.intents)  # the send window starts again
        for outcome in changes.outcomes:
            self.submissions.settle(outcome.submission_id, outcome.state, outcome.note)
        for submission_id, told in changes.told:
            self.submissions.tell(submission_id, told)
        if not self.submissions.intend(changes.intents):
            return False
        self.jobs.save(changes.jobs)
        self.journal.append(changes.events)
        if changes.closing is not None:
            after = self.batches.get(changes.batch.id)
            assert after is not None
            self.journal.append([changes.closing(after, self.jobs.each_of_batch(after.id))])
        return True

    def _is_repetition(self, changes: Changes) -> bool:
        found = self.batches.get(changes.batch.id)
        stands = found is not None and (found.epoch, found.sequence) == (
            changes.batch.epoch,
            changes.batch.sequence,
        )
        return stands and changes.batch.sequence != changes.sequence
