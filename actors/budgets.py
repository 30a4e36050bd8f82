"""Budgets as a person writes them: `20 USD, 30 seconds`, `50 USD per day`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import NamedTuple

_AMOUNT = re.compile(r"\s*(\d{1,12}(?:\.\d{1,6})?)\s*([A-Za-z]+)(?:\s+per\s+(\w+)|\s+in\s+(all|total))?\s*", re.ASCII)
_UNITS = {"second": "seconds", "s": "seconds", "video": "videos"}
_CURRENCY = re.compile(r"[A-Z]{3}")
PERIODS = ("day", "month")
TOTAL = "total"
NONE = "none"


class Amount(NamedTuple):
    """One part of a budget."""

    amount: str
    """Units, as they were written."""
    unit: str
    """A currency, `seconds` or `videos`."""
    scope: str
    """`day`, `month` or `total`."""

    @property
    def micros(self) -> int:
        """Millionths of the unit."""
        return int(Decimal(self.amount) * 1_000_000)


def read_budget(text: str) -> list[Amount]:
    """Read amounts with their units, one per unit: what a batch may use in all.

    Raises:
        ValueError: a part is none; the text says what is expected.
    """
    amounts = list(_amounts(text, "amounts with their units, such as '20 USD' or '30 seconds, 5 videos'"))
    if any(each.scope != TOTAL for each in amounts):
        raise ValueError("has a period: a batch's budget is for all of it; SORA_BUDGET takes '50 USD per day'")
    return amounts


def read_ceilings(text: str) -> list[Amount]:
    """Read the ceilings of the whole database; `none`: there is none.

    Raises:
        ValueError: a part is none; the text says what is expected.
    """
    if text.strip().lower() == NONE:
        return []
    return list(_amounts(text, "ceilings such as '50 USD per day, 2000 seconds per month', or none"))


def _amounts(text: str, expected: str) -> Iterator[Amount]:
    seen = set()
    for part in text.split(","):
        match = _AMOUNT.fullmatch(part)
        if match is None:
            raise ValueError(f"expected {expected}")
        unit, scope = _UNITS.get(match[2], match[2]), match[3] or TOTAL
        if unit not in ("seconds", "videos") and not _CURRENCY.fullmatch(unit):
            raise ValueError(f"unknown unit {unit}: expected a currency such as USD, or seconds, or videos")
        if scope not in (*PERIODS, TOTAL):
            raise ValueError(f"unknown period {scope}: expected per day, per month, or no period")
        if not Decimal(match[1]):
            raise ValueError("must be more than 0; leave it out to set no limit")
        if (scope, unit) in seen:
            raise ValueError(f"has two entries in {unit}{'' if scope == TOTAL else f' per {scope}'}: give one")
        seen.add((scope, unit))
        yield Amount(match[1], unit, scope)
