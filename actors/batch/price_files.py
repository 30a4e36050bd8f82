"""Reads the file of `SORA_PRICES`: what a table of prices must be, and what a job's video costs by it."""

from __future__ import annotations

import functools
import stat
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from actors.batch.prices import (
    PER_IMAGE,
    PER_SECOND,
    PER_VIDEO,
    PER_VIDEO_SECOND,
    TIER,
    Asked,
    Price,
    Priced,
    PriceTable,
    Rates,
)
from actors.documents import Unreadable, load_json, load_yaml
from actors.errors import SettingsError
from actors.settings import Settings
from storage.records import JobRecord

_LARGEST = 32 * 1024 * 1024
"""Bytes; LiteLLM's table of all models has 4 MB."""
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


def pricing(settings: Settings) -> Callable[[JobRecord], Priced | None]:
    """The prices in force from now on.

    Raises:
        SettingsError: the table can't be read.
    """
    table = price_table(settings)
    if not len(table):
        return lambda _job: None

    @functools.lru_cache(maxsize=1024)
    def price(asked: Asked) -> Priced | None:
        found = table.price(asked)
        return Priced(found.currency, found.micros, found.document()) if isinstance(found, Price) else None

    return lambda job: price(Asked.by(job))


def price_table(settings: Settings) -> PriceTable:
    """The table of `SORA_PRICES`; an empty one if it is not set. A file is read once, and again once it has changed.

    Raises:
        SettingsError: the file can't be read, or is no table of prices.
    """
    path = settings.sora_prices
    if path is None:
        return PriceTable()
    try:
        found = Path(path).stat()
        if not stat.S_ISREG(found.st_mode):
            raise _wrong(path, "is not a regular file: name a JSON or YAML file of prices")
        return _read(path, (found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev))
    except FileNotFoundError:
        raise _wrong(path, "there is no such file: create it, or correct the path") from None
    except (OSError, ValueError) as error:  # a NUL in the path is a ValueError
        raise _wrong(path, f"the file can't be read ({getattr(error, 'strerror', None) or error})") from None


@functools.lru_cache(maxsize=4)
def _read(path: str, _version: tuple[int, ...]) -> PriceTable:
    content = Path(path).read_bytes()
    if len(content) > _LARGEST:
        raise _wrong(path, f"the file exceeds {_LARGEST >> 20} MiB: keep only the models that you use")
    try:
        text = content.decode("utf-8-sig")
        # Any JSON object is YAML too, but YAML is read far more slowly.
        load = load_json if text.lstrip().startswith(("{", "[")) else load_yaml
        return read_table(load(text, exact=True))
    except UnicodeDecodeError as error:
        raise _wrong(path, f"the file is not UTF-8 (byte {error.start}): save it as UTF-8") from None
    except Unreadable as error:
        raise _wrong(path, f"the file is not a table of prices: {error}") from None
    except WrongTable as error:
        raise _wrong(path, str(error)) from None


def _wrong(path: str, why: str) -> SettingsError:
    return SettingsError(f"SORA_PRICES={path!r}: {why}")


def read_table(document: Any) -> PriceTable:
    """A table from its JSON; fields and models that have nothing to do with videos are ignored.

    Raises:
        WrongTable: it is none, or a value can't be used.
    """
    if not isinstance(document, dict):
        raise WrongTable(f"must be an object of prices by model, such as {_EXAMPLE}")
    return PriceTable(_rates(str(model), entry) for model, entry in document.items() if not _is_other(entry))


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
