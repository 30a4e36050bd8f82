"""Charges: what a submission counts, and what becomes of it when a price is told. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import NamedTuple

from storage.records import Document, SubmissionRecord
from storage.states import NOTHING_MADE, ChargeState, SubmissionState

MICROS = 1_000_000
SECONDS, VIDEOS = "seconds", "videos"
CLOCK_MARGIN = 1.0
"""Seconds by which two readings of the clock may differ: a batch's own charges may seem that much older than it is."""


class ToldPrice(NamedTuple):
    """What a submission costs, as a server or a person told it."""

    currency: str
    amount: Decimal
    """In units of the currency."""

    @property
    def believable(self) -> bool:
        """Whether it can be the price of a video at all."""
        return self.amount.is_finite() and 0 <= self.amount <= _LARGEST


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
    if not price.believable:
        return f"reported {told}, which is not a price"
    if charge.currency is not None and price.currency != charge.currency:
        return f"reported {told}, but priced in {charge.currency}"
    reserved = charge.reserved_micros
    if reserved:
        if not amount:
            return f"reported {told}, but the model has a price"
        if amount * MICROS > reserved * _ABSURD:
            return f"reported {told}, more than {_ABSURD} times what was reserved"
    return None


def after_outcome(charge: SubmissionRecord, state: SubmissionState, *, charged: bool = True) -> SubmissionRecord:
    """A charge after the outcome of its submission, as `SubmissionRepository` records it.

    `charged`: whether a generation that failed costs what was reserved for it.
    """
    after = charge.charge
    if charge.settled_by is None and after in (ChargeState.RESERVED, ChargeState.ASSUMED):
        if state in NOTHING_MADE or (state is SubmissionState.FAILED and not charged):
            after = ChargeState.RELEASED
        elif state in (SubmissionState.BOUND, SubmissionState.FAILED):
            after = ChargeState.ASSUMED
    return charge._replace(state=state, charge=after)


class Part(NamedTuple):
    """Charges in one state and one currency, added up."""

    currency: str | None
    charge: str | None
    reserved_micros: int | None
    charged_micros: int | None
    charged_rest: int | None
    number: int = 1


_REST: int = 10 ** (_EXACT - 6)


def part_of(charge: SubmissionRecord) -> Part:
    """One charge."""
    return Part(charge.currency, charge.charge, charge.reserved_micros, charge.charged_micros, charge.charged_rest)


def cost_of(parts: Iterable[Part]) -> list[Document]:
    """What charges cost, with one entry per currency; last those of unknown price. What was released is left out.

    `estimated_micros`: what the table of prices said of all of them.
    """
    sums: dict[str | None, list[int]] = {}
    for currency, charge, reserved, charged, rest, number in parts:
        if charge == ChargeState.RELEASED:
            continue
        if (found := sums.get(currency)) is None:
            found = sums[currency] = [0, 0, 0, 0, 0, 0]
        if charge == ChargeState.CHARGED:
            found[2] += charged or 0
            found[5] += rest or 0
        elif reserved:
            found[3 if charge == ChargeState.ASSUMED else 1] += reserved
        found[0] += reserved or 0
        if currency is None:
            found[4] += number
    ordered = sorted(sums, key=lambda each: (each is None, each or "")) if len(sums) > 1 else sums
    return [_entry(currency, *sums[currency]) for currency in ordered]


def _entry(
    currency: str | None, estimated: int, reserved: int, charged: int, assumed: int, unknown: int, rest: int
) -> Document:
    return {
        "currency": currency, "estimated_micros": estimated, "reserved_micros": reserved,
        # Exact until here, and rounded once: half to even, which favours nobody.
        "charged_micros": charged + _rounded(rest) if rest else charged,
        "assumed_micros": assumed, "unknown_prices": unknown,
    }  # fmt: skip


def _rounded(rest: int) -> int:
    whole, part = divmod(rest, _REST)
    return whole + int(2 * part > _REST or (2 * part == _REST and whole % 2 == 1))


class BatchCosts:
    """What a batch and each of its jobs cost."""

    def __init__(self, parts: Iterable[tuple[str, Part]] = ()) -> None:
        self._parts: dict[str, list[Part]] = {}
        for job_id, part in parts:
            self._parts.setdefault(job_id, []).append(part)

    def of_job(self, job_id: str) -> list[Document]:
        """What a job costs, with one entry per currency."""
        return cost_of(parts) if (parts := self._parts.get(job_id)) else []

    @property
    def whole(self) -> list[Document]:
        """What the batch costs."""
        return cost_of(part for parts in self._parts.values() for part in parts)


class Charges:
    """What the jobs of a running batch cost, as far as its owner knows: an event tells it without a query.

    It mirrors what the submissions record.
    """

    def __init__(self, known: Iterable[SubmissionRecord] = ()) -> None:
        self._charges: dict[str, SubmissionRecord] = {}
        self._of_job: dict[str, list[str]] = {}
        for each in known:
            self.intend(each)

    def intend(self, intent: SubmissionRecord) -> None:
        """A payment was reserved."""
        self._of_job.setdefault(intent.job_id, []).append(intent.id)
        self._charges[intent.id] = intent

    def take_back(self, submission_id: str) -> None:
        """It was not reserved after all."""
        intent = self._charges.pop(submission_id, None)
        if intent is not None:
            self._of_job[intent.job_id].remove(submission_id)

    def resolve(self, submission_id: str, state: SubmissionState, *, charged: bool = True) -> None:
        """The outcome of a submission is known; `charged`: whether a failed generation costs anything."""
        if (charge := self._charges.get(submission_id)) is not None:
            self._charges[submission_id] = after_outcome(charge, state, charged=charged)

    def tell(self, submission_id: str, price: ToldPrice | None) -> None:
        """The server told a price."""
        charge = self._charges.get(submission_id)
        if price is not None and charge is not None and charge.settled_by is None:
            self._charges[submission_id] = charged_by(charge, price)

    def cost(self, job_id: str) -> list[Document]:
        """What a job costs, with one entry per currency."""
        charges = [self._charges[each] for each in self._of_job.get(job_id, ())]
        return cost_of(map(part_of, charges)) if charges else []

    def forget(self, job_id: str) -> None:
        """The job has ended, and its end was told."""
        for submission_id in self._of_job.pop(job_id, ()):
            del self._charges[submission_id]
