"""A table of prices: which entry is a model's, and what a table must be. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from actors.batch.prices import (
    PER_IMAGE,
    PER_SECOND,
    PER_VIDEO,
    PER_VIDEO_SECOND,
    TIER,
    Asked,
    Price,
    Rates,
    UnknownPrice,
)

ANY = "*"
"""The name of the entry for models without one of their own."""
_COSTS = (PER_VIDEO_SECOND, PER_SECOND, PER_VIDEO, PER_IMAGE)
_EXAMPLE = f'{{"sora-2": {{"{PER_SECOND}": 0.1}}}}'
_USD = "USD"
_HIGHEST = 1_000_000
_MOST_PLACES = 30
_CODES = """
AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CLF
CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HTG
HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA
MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD
RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX
USD UYU UZS VED VES VND VUV WST XAF XCD XCG XOF XPF YER ZAR ZMW ZWG
"""
CURRENCIES = frozenset(_CODES.split())
"""The currencies of ISO 4217 that people pay in."""


class WrongTable(ValueError):
    """What is wrong with a table of prices: the model, the field, the value and what is expected."""


class PriceTable:
    """The prices of models, each by its name in the table."""

    def __init__(self, rates: Iterable[Rates] = ()) -> None:
        self._rates = {each.model: each for each in rates}

    def __len__(self) -> int:
        return len(self._rates)

    @property
    def currencies(self) -> frozenset[str]:
        """All currencies that something costs."""
        return frozenset(each.currency for each in self._rates.values())

    def price(self, asked: Asked) -> Price | UnknownPrice:
        """What a video costs at most, or why that is unknown."""
        if not self._rates:
            return UnknownPrice("set SORA_PRICES to a file of prices")
        if asked.model is None and ANY not in self._rates:
            return UnknownPrice(
                "the request names no model: name one, set SORA_MODEL, or give a price for any model (*) in SORA_PRICES"
            )
        found = [rates.price(asked) for rates in self._found(asked.model)]
        if not found:
            return UnknownPrice(
                f"the table of SORA_PRICES has no price for {asked.model}: add one, or one for any model (*)"
            )
        amounts = {(each.currency, each.micros) if isinstance(each, Price) else None for each in found}
        if len(amounts) > 1:
            names = " and ".join(rates.model for rates in self._found(asked.model))
            return UnknownPrice(f"the table of SORA_PRICES has several prices for {asked.model} ({names}): name one")
        return found[0]

    def _found(self, model: str | None) -> list[Rates]:
        """A model's entries: by its name, without its provider, with any provider, else that of any model.

        As in LiteLLM's table, a provider is what stands before a `/`; several providers may have a model of the name.
        """
        if model is not None:
            parts = model.split("/")
            for start in range(len(parts)):
                name = "/".join(parts[start:])
                if name in self._rates:
                    return [self._rates[name]]
            if several := [rates for name, rates in self._rates.items() if name.endswith(f"/{model}")]:
                return several
        return [self._rates[ANY]] if ANY in self._rates else []

    @classmethod
    def read(cls, document: Any) -> PriceTable:
        """A table from its JSON; fields and models that have nothing to do with videos are ignored.

        Raises:
            WrongTable: it is none, or a value can't be used.
        """
        if not isinstance(document, dict):
            raise WrongTable(f"must be an object of prices by model, such as {_EXAMPLE}")
        return cls(_rates(str(model), entry) for model, entry in document.items() if not _is_other(entry))


def _is_other(entry: Any) -> bool:
    """Whether LiteLLM's table has it for something else, such as chat."""
    if not isinstance(entry, dict) or entry.get("mode") == "video_generation":
        return False
    # A table of one's own needs no mode; LiteLLM's gives each video model one.
    return entry.get("mode") is not None or ("litellm_provider" in entry and not any(map(_is_rate, entry)))


def _is_rate(field: Any) -> bool:
    return field in _COSTS[:3] or (isinstance(field, str) and TIER.fullmatch(field) is not None)


def _rates(model: str, entry: Any) -> Rates:
    if not isinstance(entry, dict):
        raise WrongTable(f"{model}: must be an object such as {_EXAMPLE} (got {_shown(entry)})")
    currency = _USD if entry.get("currency") is None else entry["currency"]
    if not isinstance(currency, str) or currency not in CURRENCIES:
        raise WrongTable(f"{model}.currency: must be a code of ISO 4217, such as USD (got {_shown(currency)})")
    return Rates(
        model=model, currency=currency, source=_text(model, entry, "source"), as_of=_text(model, entry, "as_of"),
        costs={
            name: _cost(f"{model}.{name}", value)
            for name, value in entry.items()
            if value is not None and (name == PER_IMAGE or _is_rate(name))
        },
    )  # fmt: skip


def _text(model: str, entry: Mapping[str, Any], field: str) -> str | None:
    value = entry.get(field)
    if value is not None and not isinstance(value, str):
        raise WrongTable(f"{model}.{field}: must be a text in quotes (got {_shown(value)})")
    return value


def _cost(place: str, value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise WrongTable(f"{place}: must be a number such as 0.1, without quotes (got {_shown(value)})")
    cost = Decimal(str(value))
    if not cost.is_finite() or not 0 <= cost <= _HIGHEST:
        raise WrongTable(f"{place}: must be a price from 0 to {_HIGHEST} (got {_shown(cost)})")
    if cost and -int(cost.as_tuple().exponent) > _MOST_PLACES:
        raise WrongTable(f"{place}: must have at most {_MOST_PLACES} decimal places (got {_shown(cost)})")
    return cost or Decimal(0)


def _shown(value: Any) -> str:
    text = str(value) if isinstance(value, Decimal) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
