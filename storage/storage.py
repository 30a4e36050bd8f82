"""Storage: all repositories of one database, and the one way to change a batch."""

from __future__ import annotations

from functools import cached_property

from storage.batches import BatchRepository
from storage.budgets import Refusal
from storage.changes import Changes
from storage.costs import Costs
from storage.database import Database
from storage.deletes import Deletes
from storage.inbox import Inbox
from storage.jobs import JobRepository
from storage.journal import Journal
from storage.ledger import Ledger, Reservation
from storage.owners import Owners, StoreNotes
from storage.publications import Publications
from storage.removals import Doomed, Retentions
from storage.servers import Servers
from storage.submissions import SubmissionRepository


class Storage:
    """All repositories of one database, and the one way to change a batch.

    Those that not every command needs are made when first used.
    """

    owners = cached_property(lambda self: Owners(self.database))
    deletes = cached_property(lambda self: Deletes(self.database))
    publications = cached_property(lambda self: Publications(self.database, self.journal))
    inbox = cached_property(lambda self: Inbox(self.database))
    servers = cached_property(lambda self: Servers(self.database))
    doomed = cached_property(lambda self: Doomed(self.database))
    retentions = cached_property(lambda self: Retentions(self.database))
    stores = cached_property(lambda self: StoreNotes(self.database))

    def __init__(self, database: Database) -> None:
        self.database = database
        self.batches = BatchRepository(database)
        self.jobs = JobRepository(database)
        self.costs, self.ledger = Costs(database), Ledger(database)
        self.submissions = SubmissionRepository(database)
        self.journal = Journal(database)

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
            # crash point: reservation
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
        for outcome in changes.outcomes:  # crash point: give back
            self.submissions.settle(outcome.submission_id, outcome.state, outcome.note, charged=outcome.charged)
        for submission_id, told, price in changes.told:
            self.submissions.tell(submission_id, told, price)  # crash point: price
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
        stands = found is not None and (found.epoch, found.sequence) == (changes.batch.epoch, changes.batch.sequence)
        return stands and changes.batch.sequence != changes.sequence
