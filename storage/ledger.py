"""Ledger: reserves what each payment may cost in the budgets that it counts against, and sets the ceilings.

Reserving is one conditional UPDATE per budget, so that no two processes exceed a ceiling together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from storage.budgets import BATCH, TURN, Budgets, Key, Refusal, period_of, without_amount
from storage.charges import amounts_of, micros_of
from storage.database import Database
from storage.records import BatchRecord, BudgetRecord, CeilingRecord, SubmissionRecord
from storage.rows import Rows

_DAY = 86_400


@dataclass(frozen=True, slots=True)
class Reservation:
    """Intents with the day of their charge, and what was added for them to which budgets."""

    intents: list[SubmissionRecord]
    taken: list[tuple[Key, int]] = field(default_factory=list)
    opened: list[Key] = field(default_factory=list)


class CeilingsChanged(Exception):
    """The ceilings of the database have changed since they were last read: run the transaction again."""


class Ledger(Budgets):
    """Charges and budgets as rows. Reads need a connection, writes a transaction, opened by the caller."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._budgets = Rows(database, "budgets", BudgetRecord)
        self._ceilings = Rows(database, "ceilings", CeilingRecord)
        self._known: list[CeilingRecord] | None = None
        """The ceilings as they were last read."""
        self._day_known = (0, "1970-01-01")
        self._in_turn = f" AND pg_advisory_xact_lock({TURN}) IS NOT NULL" if database.postgresql else ""
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

    def _opens(self, key: Key, ceiling: int, reservation: Reservation) -> bool:
        """Open a budget that is not there yet; or it has been opened just now. Whether to try it once more."""
        if self._one(key) is None:
            self._open(key, ceiling)
            reservation.opened.append(key)
        return True
