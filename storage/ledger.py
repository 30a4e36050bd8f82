"""Ledger: what each submission costs or may cost, and the budgets that this counts against.

A charge is the submission's own row. A budget's `used` is, after each COMMIT, the sum of the charges that count against
it. Reserving is one conditional UPDATE per budget, so that no two processes exceed a ceiling together. Budgets are
locked in one order: those of the database first, then the batch's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple

from storage.database import Database
from storage.records import BatchRecord, BudgetRecord, CeilingRecord, Document, SubmissionRecord
from storage.rows import Rows
from storage.states import ChargeState

MICROS = 1_000_000
SECONDS, VIDEOS = "seconds", "videos"
TOTAL, DAY, MONTH, BATCH = "total", "day", "month", "batch"
_FILL_IN = """
UPDATE submissions SET day=COALESCE(day, {day}),
    charge=CASE WHEN state IN ('not_sent', 'refused', 'absent') THEN 'released'
                WHEN state IN ('bound', 'failed', 'deleted', 'surplus') OR remote_id IS NOT NULL THEN 'assumed'
                ELSE 'reserved' END,
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


@dataclass(frozen=True, slots=True)
class Reservation:
    """Intents with the day of their charge, and what was added for them to which budgets."""

    intents: list[SubmissionRecord]
    taken: list[tuple[Key, int]] = field(default_factory=list)


class ToldPrice(NamedTuple):
    """What a submission costs, as a server or a person told it."""

    currency: str
    amount: Decimal
    """In units of the currency."""


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
        of_postgresql = "to_char(to_timestamp(intended_at) AT TIME ZONE 'UTC', 'YYYY-MM-DD')"
        self._day = of_postgresql if database.postgresql else "date(intended_at, 'unixepoch')"

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

    # --- reserving

    def reserve(
        self, intents: Sequence[SubmissionRecord], batch: BatchRecord, *, anyway: bool = False
    ) -> Reservation | Refusal:
        """Reserve the price of each intent in all budgets that it counts against, or of none.

        Args:
            intents: in order.
            batch: theirs.
            anyway: even beyond a ceiling: they may have been paid for.
        """
        day = datetime.fromtimestamp(self._database.time(), UTC).date().isoformat()
        reservation = Reservation([intent._replace(day=day) for intent in intents])
        ceilings = self._ceilings_of(batch, day)
        if not ceilings:
            return reservation
        keys = sorted(ceilings, key=lambda each: each.order)
        for index, intent in enumerate(reservation.intents):
            amounts = amounts_of(intent)
            refused = None if anyway else _without_amount(intent, keys)
            for key in [key for key in keys if amounts.get(key.unit)] if refused is None else ():
                if self._add(key, amounts[key.unit], intent.id, ceilings[key], anyway=anyway):
                    reservation.taken.append((key, amounts[key.unit]))
                elif self._is_recorded(intent.id):
                    break  # its COMMIT was not answered: it is reserved
                else:
                    refused = key
                    break
            if refused is not None:
                self.take_back(reservation)
                of_kind = frozenset(key.unit for key in keys if (key.scope == BATCH) is (refused.scope == BATCH))
                budget = self._open(refused, ceilings[refused])
                return Refusal(index, budget, amounts.get(refused.unit), of_kind)
        return reservation

    def _is_recorded(self, submission_id: str) -> bool:
        return bool(self._database.execute("SELECT 1 FROM submissions WHERE id=?", (submission_id,)).fetchall())

    def take_back(self, reservation: Reservation) -> None:
        """Undo a reservation in its own transaction."""
        for key, amount in reservation.taken:
            self._change(key, -amount)

    def _ceilings_of(self, batch: BatchRecord, day: str) -> dict[Key, int]:
        """The ceilings that a batch's payments of a day count against."""
        found = {
            Key(each.scope, _period(each.scope, day), each.unit): each.ceiling_micros
            for each in self._read_once()
            if each.ceiling_micros is not None
        }
        return found | {Key(BATCH, batch.id, each["unit"]): micros_of(each["amount"]) for each in batch.budget or ()}

    def _add(self, key: Key, amount: int, intent_id: str, ceiling: int, *, anyway: bool) -> bool:
        """Add to a budget what fits into it, once. False: nothing was added."""
        if anyway:
            ceiling = self._open(key, ceiling).ceiling_micros
        condition = "TRUE" if anyway else "used_micros+?<=ceiling_micros"
        sql = (
            "UPDATE budgets SET used_micros=used_micros+? WHERE scope=? AND period=? AND unit=? "
            f"AND {condition} AND NOT EXISTS (SELECT 1 FROM submissions WHERE id=?)"
        )
        parameters = (amount, *key, *(() if anyway else (amount,)), intent_id)
        if self._database.execute(sql, parameters).rowcount == 1:
            return True
        if self._budgets.first(_ONE, key) is not None:
            return False
        self._open(key, ceiling)
        return bool(self._database.execute(sql, parameters).rowcount == 1)

    def _change(self, key: Key, amount: int) -> None:
        sql = "UPDATE budgets SET used_micros=used_micros+? WHERE scope=? AND period=? AND unit=?"
        self._database.execute(sql, (amount, *key))

    # --- budgets

    def _open(self, key: Key, ceiling: int) -> BudgetRecord:
        """The budget; a new one begins with the sum of the charges of its period."""
        found = self._budgets.first(_ONE, key)
        if found is None:
            self._fill_in()
            self._database.execute(
                "INSERT INTO budgets (scope, period, unit, ceiling_micros, used_micros) VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT DO NOTHING",
                (*key, ceiling, self.used(key)),
            )
            found = self._budgets.first(_ONE, key)
            assert found is not None
        return found

    def _fill_in(self) -> None:
        """Say what the version before does not record of its submissions."""
        self._database.execute(_FILL_IN.format(day=self._day))

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
        where, more = _counted(key)
        sql = f"SELECT COALESCE(SUM({value}), 0) FROM submissions WHERE charge<>'{ChargeState.RELEASED}' AND {where}"
        return int(self._database.execute(sql, (*parameters, *more)).fetchone()[0])

    def set_batch_budget(self, batch_id: str, budget: Sequence[Document]) -> None:
        """Set the ceilings of a batch; what it has used stays. Lock its row first."""
        units = [each["unit"] for each in budget]
        for found in self.of_batch(batch_id):
            if found.unit not in units:
                self._database.execute("DELETE FROM budgets WHERE scope=? AND period=? AND unit=?", found[:3])
        for each in budget:
            key, ceiling = Key(BATCH, batch_id, each["unit"]), micros_of(each["amount"])
            if self._open(key, ceiling).ceiling_micros != ceiling:
                self._database.execute(
                    "UPDATE budgets SET ceiling_micros=? WHERE scope=? AND period=? AND unit=?", (ceiling, *key)
                )

    def lock_batch(self, batch_id: str) -> None:
        """Lock the budgets of a batch until this transaction ends."""
        lock = "FOR UPDATE" if self._database.postgresql else ""
        self._budgets.select(f"WHERE scope='{BATCH}' AND period=? ORDER BY unit {lock}", (batch_id,))

    def of_batch(self, batch_id: str) -> list[BudgetRecord]:
        """The budgets of a batch."""
        return self._budgets.select(f"WHERE scope='{BATCH}' AND period=? ORDER BY unit", (batch_id,))

    def all(self) -> list[BudgetRecord]:
        """All budgets that were ever opened and belong to what is still there."""
        return self._budgets.select("ORDER BY scope, period, unit")

    def forget(self, batch_ids: Iterable[str]) -> None:
        """Remove the budgets of batches that are deleted; their charges stay."""
        sql = f"DELETE FROM budgets WHERE scope='{BATCH}' AND period {self._database.in_list}"
        self._database.execute(sql, (self._database.list_parameter(batch_ids),))

    def move(self, charge: SubmissionRecord, before: dict[str, int], after: dict[str, int]) -> None:
        """Count a charge with other amounts than before, whatever the ceilings."""
        units = {unit for unit in before.keys() | after.keys() if before.get(unit, 0) != after.get(unit, 0)}
        if not units:
            return
        day = charge.day or ""
        where = "WHERE (scope='batch' AND period=?) OR (scope='day' AND period=?) OR (scope='month' AND period=?) "
        found = self._budgets.select(f"{where} OR scope='total'", (charge.batch_id, day, day[:7]))
        for key in sorted((Key(*each[:3]) for each in found if each.unit in units), key=lambda each: each.order):
            self._change(key, after.get(key.unit, 0) - before.get(key.unit, 0))


_ONE = "WHERE scope=? AND period=? AND unit=?"


def _period(scope: str, day: str) -> str:
    return {DAY: day, MONTH: day[:7]}.get(scope, "")


def _counted(key: Key) -> tuple[str, list[Any]]:
    """The charges that count against a budget."""
    match key.scope:
        case "batch":
            # Not those of an earlier batch of this id, which was deleted.
            alive = "COALESCE((SELECT created_at FROM batches WHERE id=?), 0)"
            return f"batch_id=? AND intended_at>={alive}", [key.period, key.period]
        case "day":
            return "day=?", [key.period]
        case "month":
            return "day>=? AND day<=?", [f"{key.period}-01", f"{key.period}-31"]
        case _:
            return "TRUE", []


def _without_amount(intent: SubmissionRecord, budgets: Iterable[Key]) -> Key | None:
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


def micros_of(amount: str) -> int:
    """An amount of units, such as `20.5`, in millionths."""
    return int(Decimal(amount) * MICROS)


def amounts_of(charge: SubmissionRecord) -> dict[str, int]:
    """What a charge counts, by unit, in millionths; what was released counts nothing."""
    if charge.charge in (None, ChargeState.RELEASED):
        return {}
    amounts = {VIDEOS: MICROS, SECONDS: (charge.seconds or 0) * MICROS}
    if charge.currency is not None:
        told = charge.charge is ChargeState.CHARGED
        # A budget counts whole millionths: rounded up, so that it is never exceeded by what was cut off.
        amounts[charge.currency] = (
            (charge.charged_micros or 0) + bool(charge.charged_rest) if told else charge.reserved_micros or 0
        )
    return {unit: amount for unit, amount in amounts.items() if amount}


_ABSURD, _LARGEST = 100, 10**6
"""How many times the reservation, and how many units, a told price is taken for a mistake."""
_EXACT = 18


def charged_by(charge: SubmissionRecord, price: ToldPrice) -> SubmissionRecord:
    """A charge after a price was told. One that can't be meant is only noted: the charge stays what it is."""
    doubt = _doubt(charge, price)
    if doubt is not None:
        return charge._replace(doubt=doubt)
    micros, rest = exact(price.amount)
    reserved = charge.reserved_micros
    more = reserved is not None and micros + bool(rest) > reserved
    return charge._replace(
        charge=ChargeState.CHARGED, currency=price.currency, charged_micros=micros, charged_rest=rest,
        doubt="more than was reserved" if more else None,
    )  # fmt: skip


def exact(amount: Decimal) -> tuple[int, int]:
    """An amount in whole millionths, and the rest in 10^-18 of a unit: whole numbers, whose sums are exact."""
    micros, rest = divmod(int(amount.scaleb(_EXACT)), 10 ** (_EXACT - 6))
    return micros, rest


def _doubt(charge: SubmissionRecord, price: ToldPrice) -> str | None:
    """Why a told price can't be meant."""
    amount = price.amount
    told = f"{amount} {price.currency}"
    if not amount.is_finite() or not 0 <= amount <= _LARGEST:
        return f"told {told}, which is no price"
    if charge.currency is not None and price.currency != charge.currency:
        return f"told {told}, but priced in {charge.currency}"
    reserved = charge.reserved_micros
    if reserved:
        if not amount:
            return f"told {told}, but the model has a price"
        if amount * MICROS > reserved * _ABSURD:
            return f"told {told}, more than {_ABSURD} times what was reserved"
    return None
