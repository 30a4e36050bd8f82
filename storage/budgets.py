"""Budgets: which there are, what counts against them, why one refuses; and their rows.

A charge is the submission's own row. A budget's `used` is, after each COMMIT, the sum of the charges that count against
it.

On PostgreSQL two locks see to it, which no statement is sent for. Budgets are changed in turn: the first UPDATE of a
transaction takes an advisory lock, so that whatever order a step's videos, or a group of steps, have, no two
transactions each hold a budget that the other waits for. And a budget is opened, with the sum of its charges, only
while nobody else writes (`Database.be_alone`): else that sum would lack a charge that is just being changed by somebody
who does not see the new budget yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from storage.charges import CLOCK_MARGIN, MICROS, SECONDS, VIDEOS, micros_of
from storage.database import Database
from storage.records import BudgetRecord, Document, SubmissionRecord
from storage.rows import Rows
from storage.states import ChargeState

TOTAL, DAY, MONTH, BATCH = "total", "day", "month", "batch"
TURN = 0x50_4A_BA_7E
"""The key of the advisory lock under which budgets are changed."""
BY_STATE = (
    "CASE WHEN state IN ('not_sent', 'refused', 'absent') THEN 'released' "
    "WHEN state IN ('bound', 'failed', 'deleted', 'surplus') OR remote_id IS NOT NULL THEN 'assumed' "
    "ELSE 'reserved' END"
)
"""The charge of a submission that the version before recorded, which records none."""
_FILL_IN = """
UPDATE submissions SET day=COALESCE(day, {day}),
    charge={charge},
    model=COALESCE(model, (SELECT j.model FROM jobs j WHERE j.id=submissions.job_id)),
    seconds=COALESCE(seconds, (SELECT j.duration FROM jobs j WHERE j.id=submissions.job_id))
WHERE charge IS NULL
"""


class Key(NamedTuple):
    """Which budget."""

    scope: str
    period: str
    unit: str

    @property
    def order(self) -> tuple[bool, bool, str, str, str]:
        """The order in which budgets are locked."""
        return (self.scope == BATCH, self.unit in (SECONDS, VIDEOS), self.unit, self.scope, self.period)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A step was not recorded: a payment does not fit into a budget, or has no amount in its unit. False."""

    index: int
    """Which of the step's intents, from 0."""
    budget: BudgetRecord
    amount_micros: int | None
    """What it would have added; None: it has no price, or no duration, in the budget's unit."""
    currencies: frozenset[str] = frozenset()
    """Those of the budgets in money of the same kind: one of them would have done."""

    def __bool__(self) -> bool:
        return False


def period_of(scope: str, day: str) -> str:
    """The period of a scope that a UTC day belongs to."""
    return {DAY: day, MONTH: day[:7]}.get(scope, "")


def counted_by(key: Key) -> tuple[str, list[Any]]:
    """The charges that count against a budget: a condition in SQL, and its parameters."""
    match key.scope:
        case "batch":
            # Not those of an earlier batch of this id, which was deleted.
            alive = "COALESCE((SELECT created_at FROM batches WHERE id=?), 0)"
            return f"batch_id=? AND intended_at>={alive}-{CLOCK_MARGIN}", [key.period, key.period]
        case "day":
            return "day=?", [key.period]
        case "month":
            return "day>=? AND day<=?", [f"{key.period}-01", f"{key.period}-31"]
        case _:
            return "TRUE", []


def without_amount(intent: SubmissionRecord, budgets: Iterable[Key]) -> Key | None:
    """A budget in whose unit an intent has no amount: of several in money, one has to be in its currency."""
    keys = list(budgets)
    for of_batch in (False, True):
        mine = [key for key in keys if (key.scope == BATCH) is of_batch]
        money = [key for key in mine if key.unit not in (SECONDS, VIDEOS)]
        if money and intent.currency not in {key.unit for key in money}:
            return money[0]
        if intent.seconds is None and (seconds := [key for key in mine if key.unit == SECONDS]):
            return seconds[0]
    return None


def day_of_intent(database: Database) -> str:
    """The UTC day of a submission's intent, in SQL."""
    of_postgresql = "to_char(to_timestamp(intended_at) AT TIME ZONE 'UTC', 'YYYY-MM-DD')"
    return of_postgresql if database.postgresql else "date(intended_at, 'unixepoch')"


class Budgets:
    """What the `Ledger` does with one budget. Reads need a connection, writes a transaction, opened by the caller."""

    _database: Database
    _budgets: Rows[BudgetRecord]
    _in_turn: str

    def _one(self, key: Key) -> BudgetRecord | None:
        return self._budgets.first("WHERE scope=? AND period=? AND unit=?", key)

    def of_batch(self, batch_id: str) -> list[BudgetRecord]:
        """The budgets of a batch."""
        return self._budgets.select(f"WHERE scope='{BATCH}' AND period=? ORDER BY unit", (batch_id,))

    def all(self) -> list[BudgetRecord]:
        """All budgets that were ever opened and belong to what is still there."""
        return self._budgets.select("ORDER BY scope, period, unit")

    def _add(self, key: Key, amount: int, intent_id: str, *, anyway: bool) -> bool:
        """Add to a budget what fits into it, once. False: nothing was added."""
        condition = "TRUE" if anyway else "used_micros+?<=ceiling_micros"
        sql = (
            "UPDATE budgets SET used_micros=used_micros+? WHERE scope=? AND period=? AND unit=? "
            f"AND {condition} AND NOT EXISTS (SELECT 1 FROM submissions WHERE id=?){self._in_turn}"
        )
        parameters = (amount, *key, *(() if anyway else (amount,)), intent_id)
        return bool(self._database.execute(sql, parameters).rowcount == 1)

    def _change(self, key: Key, amount: int) -> None:
        sql = f"UPDATE budgets SET used_micros=used_micros+? WHERE scope=? AND period=? AND unit=?{self._in_turn}"
        self._database.execute(sql, (amount, *key))

    def _remove(self, key: Key) -> None:
        self._database.execute(f"DELETE FROM budgets WHERE scope=? AND period=? AND unit=?{self._in_turn}", key)

    def _open(self, key: Key, ceiling: int) -> None:
        """Open a budget, unless it is there; it begins with the sum of the charges of its period.

        Raises:
            NotAlone: run the transaction again, alone.
        """
        if self._one(key) is None:
            if key.scope != BATCH or self._has_charges(key.period):
                self._database.be_alone()
                self._fill_in()
            self._database.execute(
                "INSERT INTO budgets (scope, period, unit, ceiling_micros, used_micros) VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT DO NOTHING",
                (*key, ceiling, self.used(key)),
            )

    def _has_charges(self, batch_id: str) -> bool:
        """Whether there are any of a batch, or of an earlier one of its id."""
        return bool(
            self._database.execute("SELECT 1 FROM submissions WHERE batch_id=? LIMIT 1", (batch_id,)).fetchall()
        )

    def _fill_in(self) -> None:
        """Say what the version before does not record of its submissions, and count it."""
        if self._database.execute(_FILL_IN.format(day=day_of_intent(self._database), charge=BY_STATE)).rowcount:
            for each in self.all():
                self._count(Key(*each[:3]))

    def _count(self, key: Key) -> None:
        """Add up anew what a budget has used. Nobody else may be writing."""
        sql = "UPDATE budgets SET used_micros=? WHERE scope=? AND period=? AND unit=?"
        self._database.execute(sql, (self.used(key), *key))

    def used(self, key: Key) -> int:
        """The sum of the charges that count against a budget."""
        if key.unit in (SECONDS, VIDEOS):
            value, parameters = f"COALESCE({key.unit if key.unit == SECONDS else 1}, 0) * {MICROS}", []
        else:
            value = (
                f"CASE WHEN currency=? THEN CASE charge WHEN '{ChargeState.CHARGED}' THEN "
                "charged_micros + CASE WHEN charged_rest > 0 THEN 1 ELSE 0 END ELSE reserved_micros END ELSE 0 END"
            )
            parameters = [key.unit]
        where, more = counted_by(key)
        sql = f"SELECT COALESCE(SUM({value}), 0) FROM submissions WHERE charge<>'{ChargeState.RELEASED}' AND {where}"
        return int(self._database.execute(sql, (*parameters, *more)).fetchone()[0])

    def set_batch_budget(self, batch_id: str, budget: Sequence[Document]) -> None:
        """Set the ceilings of a batch; what it has used stays.

        Raises:
            NotAlone: run the transaction again, alone.
        """
        units = [each["unit"] for each in budget]
        for found in self.of_batch(batch_id):
            if found.unit not in units:
                self._remove(Key(*found[:3]))
        for each in budget:
            key, ceiling = Key(BATCH, batch_id, each["unit"]), micros_of(each["amount"])
            self._open(key, ceiling)
            sql = f"UPDATE budgets SET ceiling_micros=? WHERE scope=? AND period=? AND unit=?{self._in_turn}"
            self._database.execute(sql, (ceiling, *key))

    def forget(self, batch_ids: Iterable[str]) -> None:
        """Remove the budgets of batches that are deleted; their charges stay."""
        sql = f"DELETE FROM budgets WHERE scope='{BATCH}' AND period {self._database.in_list}{self._in_turn}"
        self._database.execute(sql, (self._database.list_parameter(batch_ids),))

    def move(self, charge: SubmissionRecord, before: dict[str, int], after: dict[str, int]) -> None:
        """Count a charge with other amounts than before, whatever the ceilings."""
        units = {unit for unit in before.keys() | after.keys() if before.get(unit, 0) != after.get(unit, 0)}
        if not units:
            return
        day = charge.day or ""
        # Not against the budget of a later batch of this id.
        own = f"EXISTS (SELECT 1 FROM batches b WHERE b.id=? AND b.created_at<=?+{CLOCK_MARGIN})"
        where = f"WHERE (scope='batch' AND period=? AND {own}) OR (scope='day' AND period=?) OR (scope='month' AND "
        parameters = (charge.batch_id, charge.batch_id, charge.intended_at, day, day[:7])
        found = self._budgets.select(f"{where}period=?) OR scope='total'", parameters)
        for key in sorted((Key(*each[:3]) for each in found if each.unit in units), key=lambda each: each.order):
            self._change(key, after.get(key.unit, 0) - before.get(key.unit, 0))
