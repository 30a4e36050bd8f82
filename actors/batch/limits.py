"""Why a video is not submitted: what a budget, the batch's time, or another video's failure says. Pure.

With SORA_BUDGET_WAIT a batch pauses until the next day or month of a budget that is used up.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Protocol

from actors.errors import ErrorCode, Failure
from storage.budgets import BATCH, DAY, MONTH, Refusal
from storage.charges import MICROS, SECONDS, VIDEOS
from storage.records import BudgetRecord, JobRecord
from storage.states import SubmissionState

if TYPE_CHECKING:
    from actors.batch.prices import Priced

_PROBE = 60.0
"""Seconds between two tries: the ceiling may have been raised, or something been given back."""
_PERIODS = {"day": " per day", "month": " per month", "total": " in all", BATCH: ""}


def amount_text(micros: int, unit: str) -> str:
    """An amount in millionths for a person: `19.20 USD`, `2.5 seconds`, `1 video`."""
    amount = Decimal(micros) / MICROS
    if unit not in (SECONDS, VIDEOS):
        return f"{amount:.2f} {unit}" if micros % 10_000 == 0 else f"{amount.normalize():f} {unit}"
    return f"{amount.normalize():f} {unit[:-1] if micros == MICROS else unit}"


def ceiling_text(micros: int, unit: str, scope: str) -> str:
    """A ceiling for a person: `50.00 USD per day`, `5.00 USD in all`."""
    return f"{amount_text(micros, unit)}{_PERIODS[scope]}"


def budget_document(budget: BudgetRecord) -> dict[str, Any]:
    """A budget as it is told: its ceiling and what it has used, in millionths of its unit."""
    return {
        "scope": budget.scope,
        "period": None if budget.scope == BATCH else budget.period or None,
        "unit": budget.unit,
        "ceiling_micros": budget.ceiling_micros,
        "used_micros": budget.used_micros,
    }


def budget_text(budget: BudgetRecord) -> str:
    """Which budget, for a person: `the batch's budget of 20 USD`."""
    ceiling = f"{Decimal(budget.ceiling_micros).scaleb(-6).normalize():f} {budget.unit}"
    whose = "the batch's budget" if budget.scope == BATCH else "the budget"
    return f"{whose} of {ceiling}{_PERIODS[budget.scope]}"


class Ceiling(Protocol):
    """A ceiling, and what it has used."""

    @property
    def scope(self) -> str: ...  # noqa: D102
    @property
    def unit(self) -> str: ...  # noqa: D102
    @property
    def ceiling_micros(self) -> int: ...  # noqa: D102
    @property
    def used_micros(self) -> int: ...  # noqa: D102


def left_text(budget: Ceiling) -> str:
    """What is left of a budget, for a person: `12.40 USD left of 50.00 USD per day`."""
    left = budget.ceiling_micros - budget.used_micros
    whole = ceiling_text(budget.ceiling_micros, budget.unit, budget.scope)
    if left < 0:
        return f"{amount_text(-left, budget.unit)} over {whole}"
    return f"{amount_text(left, budget.unit)} left of {whole}"


def refused_by(refusal: Refusal, job: JobRecord) -> Failure:
    """Why a job is not submitted, with the way out."""
    budget, detail = refusal.budget, budget_document(refusal.budget)
    if refusal.amount_micros is None:
        return Failure(ErrorCode.PRICE_UNKNOWN, f"not submitted: {_lacking(budget, job)}", detail)
    left = max(0, budget.ceiling_micros - budget.used_micros)
    way_out = (
        f"raise it with sora-batch retry {job.batch_id} --budget '<AMOUNT> {budget.unit}'"
        if budget.scope == BATCH
        else f"raise SORA_BUDGET{' or wait for the next period' if budget.period else ''}, then retry the batch"
    )
    return Failure(
        ErrorCode.BUDGET_EXCEEDED,
        f"not submitted: the next video ({amount_text(refusal.amount_micros, budget.unit)}) would exceed "
        f"{budget_text(budget)}, with {amount_text(left, budget.unit)} left; {way_out}",
        {**detail, "amount_micros": refusal.amount_micros},
    )


def lacks_amount(refusal: Refusal, price: Callable[[JobRecord], Priced | None], job: JobRecord) -> bool:
    """Whether a job has no amount in the unit of the budget that refused another for this."""
    if refusal.budget.unit == SECONDS:
        return job.duration is None
    priced = price(job)
    return priced is None or priced.currency not in refusal.currencies


def _lacking(budget: BudgetRecord, job: JobRecord) -> str:
    if budget.unit == SECONDS:
        return f"{budget_text(budget)} needs a duration, and the video has none; set its duration, or SORA_SECONDS"
    model = f"the model {job.model}" if job.model else "a video without a model"
    return (
        f"{budget_text(budget)} needs a price in {budget.unit}, and the price of {model} is unknown; "
        "add it to the file of SORA_PRICES, or give a budget in seconds or videos"
    )


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


def rejection(job: JobRecord, failure: Failure) -> str:
    """Why others are not submitted after a job was rejected."""
    status, said = failure.detail.get("status"), failure.detail.get("message")
    met = f"HTTP {status}: {said}" if status and said else failure.message
    return f"not submitted: {job.id} was rejected with {met}"


def unsent_text(job: JobRecord, failure: Failure) -> str:
    """Why others are not submitted after a job could not be sent."""
    return f"not submitted: {job.id} could not be sent: {failure.message}"


def repeatedly(failure: Failure, outcome: SubmissionState, times: int) -> Failure:
    """Why a job is not submitted once more after so many POSTs that made nothing."""
    made = "; nothing was made" if outcome is SubmissionState.ABSENT else ""
    return replace(failure, message=f"{failure.message} ({times} times{made})")


def out_of_time(timeout: float, rounds: int) -> Failure:
    """Why nothing is submitted any more after the batch's time; `timeout`: seconds a round."""
    seconds = timeout * rounds
    span = f"{seconds:g} s" if seconds % 60 else f"{seconds / 60:g} min"
    of = f"BATCH_TIMEOUT x {rounds} rounds" if rounds > 1 else "BATCH_TIMEOUT"
    return Failure(ErrorCode.BATCH_TIMEOUT, f"not submitted within {span} ({of})")
