"""What a value must be, in plain words, and spans and budgets as a person writes them. Pure.

pydantic's own messages speak of inputs and Python types.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Any, NamedTuple

ID_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"
SIZE_PATTERN = r"^\d{2,5}x\d{2,5}$"
UNIT_PATTERN = r"^([A-Z]{3}|seconds|videos)$"
_PATTERNS = {
    UNIT_PATTERN: "must be a currency code such as USD, or seconds, or videos",
    ID_PATTERN: "must be 1 to 64 letters, digits, '-' or '_'",
    SIZE_PATTERN: "must be <width>x<height> in pixels, for example 1280x720",
}
_SENTENCES = {
    "missing": "is required",
    "extra_forbidden": "unknown field",
    "too_short": "must have at least {min_length} entry",
    "too_long": "must have at most {max_length} entries",
    "recursion_depth_exceeded": "must not be nested so deeply",
    "finite_number": "must be a finite number",
    "decimal_parsing": "must be a number",
    "decimal_type": "must be a number",
    "decimal_max_places": "must have at most {decimal_places} decimal places",
    "string_too_short": "must have at least {min_length} character",
    "string_too_long": "must have at most {max_length} characters",
    "greater_than": "must be more than 0",  # the only such limit, of durations too
    "greater_than_equal": "must be {ge} or more",
    "less_than_equal": "must be {le} or less",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "float_parsing": "must be a number",
    "literal_error": "must be {expected}",
    "string_type": "must be a string",
    "string_unicode": "must be valid Unicode, without lone surrogates",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
}
_AMOUNT = re.compile(r"\s*(\d{1,12}(?:\.\d{1,6})?)\s*([A-Za-z]+)(?:\s+per\s+(\w+)|\s+in\s+(all|total))?\s*", re.ASCII)
_UNIT_OF = {"second": "seconds", "s": "seconds", "video": "videos"}
_CURRENCY = re.compile(r"[A-Z]{3}")
PERIODS = ("day", "month")
TOTAL = "total"
NONE = "none"
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_SPAN = re.compile(r"(\d{1,12})(ms|[smhdw])", re.ASCII | re.IGNORECASE)


def span_of(text: str) -> timedelta | None:
    """Read `500ms`, `90s`, `5m`, `12h`, `30d` or `2w`; None: it is none of them, or too long for a timedelta."""
    match = _SPAN.fullmatch(text.strip())
    try:
        return timedelta(seconds=int(match[1]) * _UNITS[match[2].lower()]) if match else None
    except OverflowError:
        return None


def expectation(entry: Mapping[str, Any]) -> str:
    """The sentence for one entry of pydantic's report; pydantic's own if we have none."""
    context = entry.get("ctx", {})
    if entry["type"] == "string_pattern_mismatch" and context["pattern"] in _PATTERNS:
        return _PATTERNS[context["pattern"]]
    kind = entry["type"]
    if kind in {"too_short", "too_long"} and isinstance(entry.get("input"), str):
        kind = f"string_{kind}"  # pydantic doesn't know what is left of it after checks of our own
    sentence = _SENTENCES.get(kind)
    return sentence.format(**context) if sentence else str(entry["msg"]).removeprefix("Value error, ")


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
        unit, scope = _UNIT_OF.get(match[2], match[2]), match[3] or TOTAL
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
