"""Waiting for the next day or month of a budget that is used up: SORA_BUDGET_WAIT. Pure."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

from storage.budgets import DAY, MONTH
from storage.records import BudgetRecord

_PROBE = 60.0
"""Seconds between two tries: the ceiling may have been raised, or something been given back."""


class Pause:
    """The times in which a batch starts nothing, by the database's clock."""

    def __init__(self) -> None:
        self.until = -math.inf
        self._began: float | None = None
        self._stood = 0.0
        self._told: tuple[str, str] | None = None

    def begin(self, budget: BudgetRecord, at: float) -> bool:
        """Wait for a budget with a period. Returns whether this is news."""
        self.until = min(next_period(budget), at + _PROBE)
        self._began = at if self._began is None else self._began
        news, self._told = self._told != budget[:2], (budget.scope, budget.period)
        return news

    def end(self, at: float) -> None:
        """Something is started again."""
        self._stood, self._began = self.stood(at), None

    def stood(self, at: float) -> float:
        """Seconds until now in which the batch's time stood still."""
        return self._stood + (0.0 if self._began is None else max(0.0, at - self._began))


def has_period(budget: BudgetRecord) -> bool:
    """Whether waiting helps."""
    return budget.scope in (DAY, MONTH)


def next_period(budget: BudgetRecord) -> float:
    """When the period after a budget's begins."""
    first = datetime.fromisoformat(budget.period if budget.scope == DAY else f"{budget.period}-01").replace(tzinfo=UTC)
    days = 1 if budget.scope == DAY else 31
    following = first + timedelta(days=days)
    return (following if budget.scope == DAY else following.replace(day=1)).timestamp()
