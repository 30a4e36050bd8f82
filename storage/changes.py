"""An update of a batch, recorded completely or not at all, and only for its owner."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from storage.batches import BatchRepository
from storage.budgets import Refusal
from storage.charges import BatchCosts, ToldPrice
from storage.costs import Costs
from storage.database import Database
from storage.deletes import Deletes
from storage.doomed import Doomed
from storage.inbox import Inbox
from storage.jobs import JobRepository
from storage.journal import Journal, Publications
from storage.ledger import Ledger, Reservation
from storage.markers import StoreNotes
from storage.owners import Owners
from storage.records import BatchRecord, Document, EventRecord, JobRecord, SubmissionRecord
from storage.retention import Retentions
from storage.servers import Servers
from storage.states import SubmissionState
from storage.submissions import SubmissionRepository

Closing = Callable[[BatchRecord, Iterable[JobRecord], BatchCosts], EventRecord]


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmissionOutcome:
    """The outcome of a submission, or of its video."""

    submission_id: str
    state: SubmissionState
    note: str | None = None
    charged: bool = True
    """Whether a generation that failed is charged for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What to write: records as they will be; `epoch` and `sequence` that the batch must have now."""

    batch: BatchRecord
    epoch: int
    sequence: int
    jobs: tuple[JobRecord, ...] = ()
    intents: tuple[SubmissionRecord, ...] = ()
    outcomes: tuple[SubmissionOutcome, ...] = ()
    told: tuple[tuple[str, Document, ToldPrice | None], ...] = ()
    """What servers said about the prices of submissions, by submission id; and the price that this comes to."""
    anyway: bool = False
    """The intents may have been paid for: they are recorded beyond any budget."""
    events: tuple[EventRecord, ...] = ()
    closing: Closing | None = None
    """Builds the last event from the batch, all of its jobs and what they cost, as they are after the change."""


class Storage:
    """All repositories of one database, and the one way to change a batch."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.batches = BatchRepository(database)
        self.jobs = JobRepository(database)
        self.ledger = Ledger(database)
        self.costs = Costs(database)
        self.submissions = SubmissionRepository(database, self.ledger)
        self.deletes = Deletes(database)
        self.journal = Journal(database)
        self.publications = Publications(database, self.journal)
        self.owners = Owners(database)
        self.inbox = Inbox(database)
        self.servers = Servers(database)
        self.doomed = Doomed(database)
        self.retentions = Retentions(database)
        self.stores = StoreNotes(database)

    def apply(self, changes: Changes) -> bool | Refusal:
        """Write an update inside the caller's transaction. Repeating it after an unknown COMMIT changes nothing.

        Returns:
            False if another process has the batch by now, or has resolved an intent that was recorded before: the
            caller must not act on it. (No exception: that would roll back the other writes of the same group.)
            A Refusal if an intent does not fit into a budget. Nothing was written then.

        Raises:
            CeilingsChanged: run the transaction again: it has new budgets to reserve in.
        """
        version, reservation = None, Reservation([])
        if changes.intents:
            reserved = self.ledger.reserve(changes.intents, changes.batch, anyway=changes.anyway)
            if isinstance(reserved, Refusal):
                return reserved
            version, reservation = self.ledger.version, reserved
        # crash point: start, beginning
        if not self.batches.advance(changes.batch, epoch=changes.epoch, sequence=changes.sequence, ceilings=version):
            self.ledger.take_back(reservation)
            if version is not None:
                self.ledger.check_version(version)
            if not self._is_repetition(changes):
                return False
            return self.submissions.intend(changes.intents)  # the send window starts again
        for outcome in changes.outcomes:
            self.submissions.settle(outcome.submission_id, outcome.state, outcome.note, charged=outcome.charged)
        for submission_id, told, price in changes.told:
            self.submissions.tell(submission_id, told, price)
        if not self.submissions.intend(reservation.intents):  # crash point: intent
            self.ledger.take_back(reservation)
            return False
        self.jobs.save(changes.jobs)  # crash point: acceptance, fetching, completion, withdraw
        self.journal.append(changes.events)
        if changes.closing is not None:
            after = self.batches.get(changes.batch.id)
            assert after is not None
            costs = self.costs.of_batch(after)
            # crash point: closing
            self.journal.append([changes.closing(after, self.jobs.each_of_batch(after.id), costs)])
        return True

    def _is_repetition(self, changes: Changes) -> bool:
        found = self.batches.get(changes.batch.id)
        stands = found is not None and (found.epoch, found.sequence) == (
            changes.batch.epoch,
            changes.batch.sequence,
        )
        return stands and changes.batch.sequence != changes.sequence
