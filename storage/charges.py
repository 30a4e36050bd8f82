"""Charges: what a submission counts, and what becomes of it when a price is told. Pure."""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

from storage.records import SubmissionRecord
from storage.states import ChargeState

MICROS = 1_000_000
SECONDS, VIDEOS = "seconds", "videos"


class ToldPrice(NamedTuple):
    """What a submission costs, as a server or a person told it."""

    currency: str
    amount: Decimal
    """In units of the currency."""


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
