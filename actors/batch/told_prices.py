"""The price of a submission, in what its server told. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from storage.charges import ToldPrice

_USD = "USD"
_FACTORS = {
    "usage.cost": Decimal(1),
    "usage.cost_in_usd_ticks": Decimal("1e-10"),
    "x-litellm-response-cost": Decimal(1),
}
"""US dollars in a unit of each field, the most exact first."""


def price_in(told: Mapping[str, Any]) -> ToldPrice | None:
    """The price that a server told under its own names, kept exactly; None: it told none."""
    for name, factor in _FACTORS.items():
        if (value := told.get(name)) is not None:
            try:
                amount = Decimal(str(value)) * factor
            except InvalidOperation:
                amount = Decimal("NaN")
            return ToldPrice(_USD, amount)
    return None
