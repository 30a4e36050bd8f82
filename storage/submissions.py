"""SubmissionRepository: every attempt to pay for a video, and its outcome.

Whether a POST may go out is always read from here: the database holds at most one live submission a job, so a
second intent can't even be recorded while the first one's outcome is unknown or its video exists.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from enum import Enum
from functools import cached_property

from storage.charges import CLOCK_MARGIN, ToldPrice, amounts_of, charged_by, exact
from storage.database import Database
from storage.ledger import Ledger
from storage.records import BatchRecord, Document, SubmissionRecord
from storage.rows import Insert, Rows, encode, names_of
from storage.servers import OPEN_INTENT, SubmissionsAtServers
from storage.states import NOTHING_MADE, UNRESOLVED, ChargeState, SubmissionState

logger = logging.getLogger(__name__)
RESTORED = "the database was restored from a backup"
"""The note of an outcome that `migrate --restored` made unknown."""
_ENDS_A_VIDEO = frozenset({SubmissionState.FAILED, SubmissionState.DELETED, SubmissionState.ABANDONED})
_ACCEPTED = "charge=CASE WHEN charge='reserved' AND settled_by IS NULL THEN 'assumed' ELSE charge END"
MADE_AFTER_ALL = "settled as released, but the server made a video"
_DOUBTED = f"doubt=CASE WHEN charge='released' AND settled_by IS NOT NULL THEN '{MADE_AFTER_ALL}' ELSE doubt END"
"""A person's word stands; that the server's answer says something else is flagged."""
_RELEASED = "charge=CASE WHEN charge IN ('reserved', 'assumed') AND settled_by IS NULL THEN 'released' ELSE charge END"
"""What becomes of a charge, unless the server has told a price, or a person has settled it."""
_LIVE = "(state='intended' OR state='unknown' OR state='clashed' OR state='bound')"
_NOT_HELD = (
    "NOT EXISTS (SELECT 1 FROM submissions o WHERE o.server=submissions.server AND o.remote_id=? "
    "AND o.id<>submissions.id)"
)


class Bind(Enum):
    """The result of binding a video to a submission."""

    BOUND = "bound"
    RESOLVED = "resolved otherwise"
    """Resolved before: the video is recorded as surplus."""
    HELD = "held"
    """Another submission at this server holds that id: nothing was written."""


class SubmissionRepository(SubmissionsAtServers):
    """Submissions as rows. Reads need a connection, writes a transaction, opened by the caller."""

    _ledger = cached_property(lambda self: Ledger(self._database))

    def __init__(self, database: Database) -> None:
        self._database = database
        self._rows = Rows(database, "submissions", SubmissionRecord)
        self._intend = Insert(
            database, "submissions", SubmissionRecord,
            "ON CONFLICT (id) DO UPDATE SET intended_at=excluded.intended_at WHERE submissions.state=excluded.state",
            given={"intended_at": database.clock, "state": f"'{SubmissionState.INTENDED}'"},
        )  # fmt: skip
        self._returning = f" RETURNING {', '.join(names_of(SubmissionRecord))}"

    def intend(self, intents: Collection[SubmissionRecord]) -> bool:
        """Record that a POST is about to go out, at the database's time; again, if already recorded.

        Returns:
            False if one was recorded and has been resolved since: it must not be sent.

        Raises:
            peewee.IntegrityError: a job has a live submission.
        """
        return self._intend(intents) == len(intents)

    def bind(self, submission_id: str, remote_id: str, *, adopted: bool = False) -> Bind:
        """Record the video of a submission, whoever owns the batch by now.

        `adopted`: found in the listing, not told by the create's own answer.
        """
        # Its own answer has just come, even if nobody waited for it any more.
        closed_at = f"COALESCE(closed_at, {self._database.clock})" if adopted else self._database.clock
        cursor = self._database.execute(
            f"UPDATE submissions SET state=?, remote_id=?, adopted=?, closed_at={closed_at}, {_ACCEPTED}, {_DOUBTED} "
            f"WHERE id=? AND {OPEN_INTENT} AND {_NOT_HELD}",
            (SubmissionState.BOUND.value, remote_id, adopted, submission_id, remote_id),
        )
        if cursor.rowcount == 1:
            return Bind.BOUND
        before = self._locked(submission_id)
        if before.state is SubmissionState.BOUND and before.remote_id == remote_id:
            # Already written: a repeated COMMIT of unknown outcome; or adopted from the listing, and answered now.
            still = before.adopted and adopted
            self._database.execute("UPDATE submissions SET adopted=? WHERE id=?", (still, submission_id))
            return Bind.BOUND
        if self.holder(before.server or "", remote_id) is not None:
            return Bind.HELD
        self._database.execute(
            "UPDATE submissions SET state=?, remote_id=? WHERE id=? AND remote_id IS NULL",
            (SubmissionState.SURPLUS.value, remote_id, submission_id),
        )
        if before.charge in (ChargeState.RESERVED, ChargeState.RELEASED):
            settled = before._replace(doubt=MADE_AFTER_ALL), before._replace(charge=ChargeState.ASSUMED)
            self._recharge(before, settled[before.settled_by is None])
        return Bind.RESOLVED

    def let_go_of_id(self, submission_id: str, state: SubmissionState) -> None:
        """Take the id from a submission: it belongs to another video."""
        self._database.execute(
            "UPDATE submissions SET state=?, adopted=?, former_remote_id=remote_id, remote_id=NULL, "
            "charge=CASE WHEN ? AND charge='assumed' AND settled_by IS NULL THEN 'reserved' ELSE charge END WHERE id=?",
            (state.value, False, state in UNRESOLVED, submission_id),
        )

    def unanswered(self, submission_id: str, met: str, *, timed_out: bool) -> None:
        """Record that a POST has ended without a conclusive answer, and what it met."""
        self._database.execute(  # crash point: settle
            "UPDATE submissions SET state=?, met=?, timed_out=?, "
            f"closed_at=COALESCE(closed_at, {self._database.clock}) WHERE id=? AND {OPEN_INTENT}",
            (SubmissionState.UNKNOWN.value, met, timed_out, submission_id),
        )

    def settle(
        self, submission_id: str, state: SubmissionState, note: str | None = None, *, charged: bool = True
    ) -> None:
        """Record that nothing was paid for, that the outcome is unknown, or that the video no longer exists.

        `charged`: whether a generation that failed costs what was reserved for it, if the server tells no price.
        """
        if state is SubmissionState.BOUND:
            raise ValueError("a submission is bound by bind(), which knows the remote id")
        # A final outcome is never overwritten; `bound` only gives way to what ends the video.
        before = _LIVE if state in _ENDS_A_VIDEO else OPEN_INTENT
        costs_nothing = state in NOTHING_MADE or (state is SubmissionState.FAILED and not charged)
        charge = f", {_RELEASED}" if costs_nothing else f", {_ACCEPTED}" if state is SubmissionState.FAILED else ""
        cursor = self._database.execute(
            f"UPDATE submissions SET state=?, note=COALESCE(?, note), "
            f"closed_at=COALESCE(closed_at, {self._database.clock}){charge} WHERE id=? AND {before}"
            f"{self._returning if costs_nothing else ''}",
            (state.value, note, submission_id),
        )
        for row in cursor.fetchall() if costs_nothing else ():
            released = self._rows.read(row)
            if released.charge is ChargeState.RELEASED and released.settled_by is None:
                self._ledger.move(released, amounts_of(released._replace(charge=ChargeState.RESERVED)), {})

    def doubt(self, batch_id: str, since: float, note: str) -> int:
        """Make a batch's open outcomes unknown until a video is found, made by a POST from `since` on or before.

        Returns:
            How many there are.
        """
        # As after a POST that timed out: that no listing shows a video proves nothing.
        cursor = self._database.execute(
            f"UPDATE submissions SET state='{SubmissionState.UNKNOWN}', timed_out=TRUE, note=?, "
            f"closed_at=COALESCE(closed_at, {self._database.clock}), "
            f"intended_at=CASE WHEN intended_at > ? THEN ? ELSE intended_at END WHERE batch_id=? AND {OPEN_INTENT}",
            (note, since, since, batch_id),
        )
        return int(cursor.rowcount)

    def give_up(self, submission_id: str, note: str) -> bool:
        """Abandon an unknown outcome, on the operator's word; False: it is already resolved."""
        sql = f"UPDATE submissions SET state=?, note=? WHERE id=? AND {OPEN_INTENT}"
        return bool(self._database.execute(sql, (SubmissionState.ABANDONED.value, note, submission_id)).rowcount == 1)

    def tell(self, submission_id: str, told: Document, price: ToldPrice | None = None) -> None:
        """Add what the server said about a submission's price, and charge it, if it can be charged."""
        before = self._locked(submission_id)
        joined = {**(before.told or {}), **told}
        self._database.execute("UPDATE submissions SET told=? WHERE id=?", (encode(joined), submission_id))
        if price is not None and before.settled_by is None:
            self._recharge(before, charged_by(before, price))

    def settle_charge(self, submission_id: str, price: ToldPrice | None, by: str) -> SubmissionRecord:
        """Record a person's word on what a submission costs; None: nothing. Only another word changes it any more.

        Raises:
            ValueError: there is no such submission.
        """
        before = self._locked(submission_id)
        after = before._replace(charge=ChargeState.RELEASED)
        if price is not None:
            micros, rest = exact(price.amount)
            after = before._replace(
                charge=ChargeState.CHARGED, currency=price.currency, charged_micros=micros, charged_rest=rest
            )
        after = after._replace(settled_by=by, doubt=None)
        if before.settled_by is not None and after._replace(settled_by=before.settled_by) == before:
            return before  # the same word once more
        self._recharge(before, after)
        return after

    def _recharge(self, before: SubmissionRecord, after: SubmissionRecord) -> None:
        """Record what a submission costs, in all budgets that it counts against."""
        if after.doubt is not None and after.doubt != before.doubt:
            about = {"batch_id": after.batch_id, "job_id": after.job_id, "doubt": after.doubt}
            logger.warning(
                "flagged the price of a submission: %s", after.doubt, extra={"action": "price_flagged", **about}
            )
        cost = (after.charge, after.currency, after.charged_micros, after.charged_rest, after.doubt, after.settled_by)
        self._database.execute(
            "UPDATE submissions SET charge=?, currency=?, charged_micros=?, charged_rest=?, doubt=?, settled_by=? "
            "WHERE id=?",
            (*cost, after.id),
        )
        self._ledger.move(after, amounts_of(before), amounts_of(after))

    def annotate(self, submission_id: str, note: str) -> None:
        """Add what happened to a submission's video without changing its state."""
        self._database.execute("UPDATE submissions SET note=? WHERE id=?", (note, submission_id))

    def _locked(self, submission_id: str) -> SubmissionRecord:
        """The submission, locked until this transaction ends: what it costs is changed by one at a time."""
        lock = "FOR UPDATE" if self._database.postgresql else ""
        (submission,) = self._rows.select(f"WHERE id=? {lock}", (submission_id,))
        return submission

    def get(self, submission_id: str) -> SubmissionRecord:
        """The submission."""
        (submission,) = self._rows.select("WHERE id=?", (submission_id,))
        return submission

    def of_batch(self, batch_id: str) -> list[SubmissionRecord]:
        """All submissions of a batch id, in order; also those of a batch of this id that was deleted."""
        return self._rows.select("WHERE batch_id=? ORDER BY intended_at, id", (batch_id,))

    def of_this_batch(self, batch: BatchRecord) -> list[SubmissionRecord]:
        """All submissions of a batch, in order; not those of an earlier batch of its id, which was deleted."""
        mine = "WHERE batch_id=? AND intended_at>=? ORDER BY intended_at, id"
        return self._rows.select(mine, (batch.id, batch.created_at - CLOCK_MARGIN))

    def live_of_batch(self, batch_id: str) -> dict[str, SubmissionRecord]:
        """The one live submission of each job that has one, by job id."""
        return {live.job_id: live for live in self._rows.select(f"WHERE batch_id=? AND {_LIVE}", (batch_id,))}

    def abandon(self, batch_id: str, job_ids: Iterable[str]) -> None:
        """Abandon what may exist for these jobs: a person allowed paying again, or deletes the batch."""
        self._database.execute(
            f"UPDATE submissions SET state='{SubmissionState.ABANDONED}' "
            f"WHERE batch_id=? AND {_LIVE} AND job_id {self._database.in_list}",
            (batch_id, self._database.list_parameter(job_ids)),
        )

    def abandon_all(self, batch_ids: Iterable[str]) -> None:
        """The same for all jobs of deleted batches."""
        self._database.execute(
            f"UPDATE submissions SET state='{SubmissionState.ABANDONED}' "
            f"WHERE batch_id {self._database.in_list} AND {_LIVE}",
            (self._database.list_parameter(batch_ids),),
        )
