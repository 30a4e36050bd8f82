"""Ledger: what each submission costs or may cost, and the budgets that this counts against.

A charge is the submission's own row. A budget's `used` is, after each COMMIT, the sum of the charges that count against
it. Reserving is one conditional UPDATE per budget, so that no two processes exceed a ceiling together.

On PostgreSQL two locks see to it, which no statement is sent for. Budgets are changed in turn: the first UPDATE of a
transaction takes an advisory lock, so that whatever order a step's videos, or a group of steps, have, no two
transactions each hold a budget that the other waits for. And a budget is opened, with the sum of its charges, only
while nobody else writes (`Database.be_alone`): else that sum would lack a charge that is just being changed by somebody
who does not see the new budget yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from storage.budgets import BATCH, Key, Refusal, counted_by, period_of, without_amount
from storage.charges import CLOCK_MARGIN, MICROS, SECONDS, VIDEOS, amounts_of, micros_of
from storage.database import Database
from storage.records import BatchRecord, BudgetRecord, CeilingRecord, Document, SubmissionRecord
from storage.rows import Rows
from storage.states import ChargeState

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


@dataclass(frozen=True, slots=True)
class Reservation:
    """Intents with the day of their charge, and what was added for them to which budgets."""

    intents: list[SubmissionRecord]
    taken: list[tuple[Key, int]] = field(default_factory=list)
    opened: list[Key] = field(default_factory=list)


class CeilingsChanged(Exception):
    """The ceilings of the database have changed since they were last read: run the transaction again."""


class Ledger:
    """Charges and budgets as rows. Reads need a connection, writes a transaction, opened by the caller."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._budgets = Rows(database, "budgets", BudgetRecord)
        self._ceilings = Rows(database, "ceilings", CeilingRecord)
        self._known: list[CeilingRecord] | None = None
        """The ceilings as they were last read."""
        self._day_known = (0, "1970-01-01")
        of_postgresql = "to_char(to_timestamp(intended_at) AT TIME ZONE 'UTC', 'YYYY-MM-DD')"
        self.day = of_postgresql if database.postgresql else "date(intended_at, 'unixepoch')"
        """The UTC day of a submission's intent, in SQL."""
        self._in_turn = f" AND pg_advisory_xact_lock({_TURN}) IS NOT NULL" if database.postgresql else ""
        """In the WHERE of each statement that locks a budget; taken before the row's own lock."""

    # --- ceilings

    @property
    def version(self) -> int:
        """Of the set of ceilings that this process knows."""
        return max((each.version for each in self._read_once()), default=0)

    @property
    def limited(self) -> bool:
        """Whether the database has a ceiling, as far as this process knows."""
        return any(each.ceiling_micros is not None for each in self._known or ())

    def ceilings(self) -> list[CeilingRecord]:
        """The ceilings of the database."""
        self._known = self._ceilings.select("ORDER BY scope, unit")
        return [each for each in self._known if each.ceiling_micros is not None]

    def _read_once(self) -> list[CeilingRecord]:
        if self._known is None:
            self.ceilings()
        return self._known or []

    def check_version(self, version: int) -> None:
        """See that nobody has added or removed a ceiling.

        Raises:
            CeilingsChanged: somebody has.
        """
        self.ceilings()
        if version != self.version:
            raise CeilingsChanged

    def set_ceilings(self, ceilings: Mapping[tuple[str, str], int], by: str) -> list[CeilingRecord]:
        """Set ceilings of the database, by scope and unit; with none at all, remove those that there are.

        Returns:
            Those that were different before, as they were; new ones without an amount.

        Raises:
            NotAlone: run the transaction again, alone.
        """
        self._database.be_alone()  # whoever records a payment later finds another version
        before = {(each.scope, each.unit): each for each in self._ceilings.select("")}
        wanted: dict[tuple[str, str], int | None] = dict(ceilings) or dict.fromkeys(
            key for key, each in before.items() if each.ceiling_micros is not None
        )
        changed = {
            key: before.get(key, CeilingRecord(*key, None, 0, "", 0.0))
            for key, micros in wanted.items()
            if (before[key].ceiling_micros if key in before else None) != micros
        }
        if not changed:
            return []
        sql = (
            "INSERT INTO ceilings (scope, unit, ceiling_micros, version, set_by, set_at) VALUES (?, ?, ?, "
            f"(SELECT COALESCE(MAX(version), 0) + 1 FROM ceilings), ?, {self._database.clock}) "
            "ON CONFLICT (scope, unit) DO UPDATE SET ceiling_micros=excluded.ceiling_micros, version=excluded.version, "
            "set_by=excluded.set_by, set_at=excluded.set_at"
        )
        day = self._today()
        for (scope, unit), was in changed.items():
            micros = wanted[scope, unit]
            self._database.execute(sql, (scope, unit, micros, by))
            if micros is None or was.ceiling_micros is None:
                self._database.execute("DELETE FROM budgets WHERE scope=? AND unit=?", (scope, unit))
            if micros is not None:
                key = Key(scope, period_of(scope, day), unit)
                self._open(key, micros)
                self._database.execute(
                    "UPDATE budgets SET ceiling_micros=? WHERE scope=? AND unit=? AND period>=?",
                    (micros, scope, unit, key.period),
                )
        self.ceilings()
        return list(changed.values())

    def current(self) -> list[BudgetRecord]:
        """The budgets of the database for the current periods, as far as anything was reserved in them."""
        day = self._today()
        where = "WHERE scope='total' OR (scope='day' AND period=?) OR (scope='month' AND period=?)"
        found = {each[:3]: each for each in self._budgets.select(where, (day, day[:7]))}
        keys = [(Key(each.scope, period_of(each.scope, day), each.unit), each) for each in self.ceilings()]
        return [found.get(key) or BudgetRecord(*key, each.ceiling_micros or 0, 0) for key, each in keys]

    def _today(self) -> str:
        day = int(self._database.time() // _DAY)
        if day != self._day_known[0]:
            self._day_known = day, datetime.fromtimestamp(day * _DAY, UTC).date().isoformat()
        return self._day_known[1]

    # --- reserving

    def reserve(
        self, intents: Sequence[SubmissionRecord], batch: BatchRecord, *, anyway: bool = False
    ) -> Reservation | Refusal:
        """Reserve the price of each intent in all budgets that it counts against, or of none.

        Args:
            intents: in order.
            batch: theirs.
            anyway: even beyond a ceiling: they may have been paid for.

        Raises:
            NotAlone: a budget has to be opened: run the transaction again, alone.
        """
        day = self._today()
        reservation = Reservation([intent._replace(day=day) for intent in intents])
        if not batch.budget and not self._read_once():
            return reservation
        ceilings = self._ceilings_of(batch, day)
        keys = sorted(ceilings, key=lambda each: each.order)
        for index, intent in enumerate(reservation.intents):
            amounts = amounts_of(intent)
            refused = None if anyway else without_amount(intent, keys)
            for key in [key for key in keys if amounts.get(key.unit)] if refused is None else ():
                if self._add(key, amounts[key.unit], intent.id, anyway=anyway) or (
                    self._opens(key, ceilings[key], reservation)
                    and self._add(key, amounts[key.unit], intent.id, anyway=anyway)
                ):
                    reservation.taken.append((key, amounts[key.unit]))
                elif self._is_recorded(intent.id):
                    break  # its COMMIT was not answered: it is reserved
                else:
                    refused = key
                    break
            if refused is not None:
                self.take_back(reservation)
                of_kind = frozenset(key.unit for key in keys if (key.scope == BATCH) is (refused.scope == BATCH))
                budget = self._one(refused) or BudgetRecord(*refused, ceilings[refused], 0)
                return Refusal(index, budget, amounts.get(refused.unit), of_kind)
        return reservation

    def _is_recorded(self, submission_id: str) -> bool:
        return bool(self._database.execute("SELECT 1 FROM submissions WHERE id=?", (submission_id,)).fetchall())

    def take_back(self, reservation: Reservation) -> None:
        """Undo a reservation in its own transaction."""
        for key, amount in reservation.taken:
            self._change(key, -amount)
        for key in reservation.opened:
            if key.scope == BATCH:  # whose budget has another unit by now, or which is gone
                self._remove(key)

    def _ceilings_of(self, batch: BatchRecord, day: str) -> dict[Key, int]:
        """The ceilings that a batch's payments of a day count against."""
        found = {
            Key(each.scope, period_of(each.scope, day), each.unit): each.ceiling_micros
            for each in self._read_once()
            if each.ceiling_micros is not None
        }
        return found | {Key(BATCH, batch.id, each["unit"]): micros_of(each["amount"]) for each in batch.budget or ()}

    def _add(self, key: Key, amount: int, intent_id: str, *, anyway: bool) -> bool:
        """Add to a budget what fits into it, once. False: nothing was added."""
        condition = "TRUE" if anyway else "used_micros+?<=ceiling_micros"
        sql = (
            "UPDATE budgets SET used_micros=used_micros+? WHERE scope=? AND period=? AND unit=? "
            f"AND {condition} AND NOT EXISTS (SELECT 1 FROM submissions WHERE id=?){self._in_turn}"
        )
        parameters = (amount, *key, *(() if anyway else (amount,)), intent_id)
        return bool(self._database.execute(sql, parameters).rowcount == 1)

    def _opens(self, key: Key, ceiling: int, reservation: Reservation) -> bool:
        """Open a budget that is not there yet; or it has been opened just now. Whether to try it once more."""
        if self._one(key) is None:
            self._open(key, ceiling)
            reservation.opened.append(key)
        return True

    def _change(self, key: Key, amount: int) -> None:
        sql = f"UPDATE budgets SET used_micros=used_micros+? WHERE scope=? AND period=? AND unit=?{self._in_turn}"
        self._database.execute(sql, (amount, *key))

    def _remove(self, key: Key) -> None:
        self._database.execute(f"DELETE FROM budgets WHERE scope=? AND period=? AND unit=?{self._in_turn}", key)

    # --- budgets

    def _one(self, key: Key) -> BudgetRecord | None:
        return self._budgets.first("WHERE scope=? AND period=? AND unit=?", key)

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
        if self._database.execute(_FILL_IN.format(day=self.day, charge=BY_STATE)).rowcount:
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

    def of_batch(self, batch_id: str) -> list[BudgetRecord]:
        """The budgets of a batch."""
        return self._budgets.select(f"WHERE scope='{BATCH}' AND period=? ORDER BY unit", (batch_id,))

    def all(self) -> list[BudgetRecord]:
        """All budgets that were ever opened and belong to what is still there."""
        return self._budgets.select("ORDER BY scope, period, unit")

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


_DAY = 86_400
_TURN = 0x50_4A_BA_7E
"""The key of the advisory lock under which budgets are changed."""
