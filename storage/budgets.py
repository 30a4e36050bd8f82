"""Which budgets there are, what counts against them, and why one refuses. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from storage.charges import CLOCK_MARGIN, SECONDS, VIDEOS
from storage.records import BudgetRecord, SubmissionRecord

TOTAL, DAY, MONTH, BATCH = "total", "day", "month", "batch"


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
