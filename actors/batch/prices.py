"""What a video costs at most, by a table of prices. Pure.

The fields are those of LiteLLM's public table, in its order of look-up: `output_cost_per_video_per_second`, else
`output_cost_per_second_<tier>`, else `output_cost_per_second`, else `output_cost_per_video` for the whole video; to
these comes `input_cost_per_image`. A tier is chosen by the short edge of the size, so portrait and landscape cost the
same; a size between two tiers belongs to the upper one. What the table does not say is unknown, never 0.

Amounts are exact until the price of one video is known; that is rounded up to a whole micro, a millionth of a unit of
the currency, because a reservation must not be smaller than what it is for. Sums of such prices are exact.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from math import ceil
from typing import Any, NamedTuple

from storage.records import Document, JobRecord

MICROS = 1_000_000
"""Micros in one unit of a currency."""
PER_VIDEO_SECOND = "output_cost_per_video_per_second"
PER_SECOND = "output_cost_per_second"
PER_VIDEO = "output_cost_per_video"
PER_IMAGE = "input_cost_per_image"
TIER = re.compile(rf"{PER_SECOND}_((\d{{3,4}})p|(\d)k)", re.ASCII)
ANY = "*"
"""The name of the entry for models without one of their own."""
_USUAL_TIERS = {"480p": 480, "720p": 720, "1080p": 1080, "4k": 2160}
_K, _K_EDGES = 540, {"2k": 1440}
"""Pixels of the short edge for each `k`, as in 3840x2160; 2k is 2560x1440."""
_SIZE = re.compile(r"\s*(\d{2,5})\s*[x*]\s*(\d{2,5})\s*", re.ASCII)
_EDGE = re.compile(r"(\d{2,5})p?", re.ASCII)
_LARGEST = 10**18
"""Micros: a database can store and add up amounts of this size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What determines a video's price."""

    model: str | None
    seconds: int | None
    size: str | None
    """`<width>x<height>` in pixels."""
    resolution: str | int | None = None
    """The `resolution` in its params, such as `720p`."""
    images: int = 0
    """Its input reference and further files: each is taken for an image."""

    @classmethod
    def by(cls, job: JobRecord) -> Asked:
        """What a job asks for."""
        images = (job.reference is not None) + len(job.files)
        return cls.of(job.model, job.duration, job.size, job.params, images)

    @classmethod
    def of(
        cls, model: str | None, seconds: int | None, size: str | None, params: Mapping[str, Any], images: int
    ) -> Asked:
        """What a video's fields, params and number of input files say."""
        resolution = params.get("resolution")
        readable = isinstance(resolution, str | int) and not isinstance(resolution, bool)
        return cls(model=model, seconds=seconds, size=size, resolution=resolution if readable else None, images=images)


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What one video costs at most, and by what."""

    currency: str
    micros: int
    """Millionths of a unit of the currency; a fraction of one is rounded up."""
    model: str
    """The name of the table's entry."""
    fields: Mapping[str, str]
    """The table's fields that it was computed from, with their exact values."""
    seconds: int | None
    images: int
    source: str | None
    as_of: str | None

    def document(self) -> dict[str, Any]:
        """As JSON, to be stored beside a charge."""
        return {
            "currency": self.currency, "micros": self.micros, "model": self.model, "fields": dict(self.fields),
            "seconds": self.seconds, "images": self.images, "source": self.source, "as_of": self.as_of,
        }  # fmt: skip


class Priced(NamedTuple):
    """What a video costs at most, at the rate now in force."""

    currency: str
    micros: int
    """Millionths of the currency's unit."""
    rate: Document


@dataclass(frozen=True, slots=True)
class UnknownPrice:
    """Why the price of a video is unknown, with the way to give one."""

    reason: str


@dataclass(frozen=True, slots=True)
class Rates:
    """A model's entry in a table."""

    model: str
    currency: str
    source: str | None
    as_of: str | None
    costs: Mapping[str, Decimal]
    """By the names of the fields."""

    def price(self, asked: Asked) -> Price | UnknownPrice:
        """What a video costs at this model's rates."""
        field = self._per_second(asked)
        if field is not None:
            if asked.seconds is None:
                return UnknownPrice(
                    f"{self.model} is priced by the second, and the video has no duration: "
                    "give it one, or set SORA_SECONDS"
                )
            amounts = {field: asked.seconds}
        elif PER_VIDEO in self.costs:
            amounts = {PER_VIDEO: 1}
        else:
            return UnknownPrice(self._missing(asked))
        if asked.images and PER_IMAGE in self.costs:
            amounts[PER_IMAGE] = asked.images
        micros = ceil(sum(Fraction(self.costs[name]) * amount for name, amount in amounts.items()) * MICROS)
        if micros > _LARGEST:
            return UnknownPrice(f"{self.model} would cost more than can be recorded: check its price and the duration")
        return Price(
            currency=self.currency, micros=micros, model=self.model, source=self.source, as_of=self.as_of,
            fields={name: f"{self.costs[name]:f}" for name in amounts},
            seconds=asked.seconds, images=asked.images,
        )  # fmt: skip

    def _per_second(self, asked: Asked) -> str | None:
        """The field of the rate per second; of two tiers (by size and by resolution) the one that costs more."""
        if PER_VIDEO_SECOND in self.costs:
            return PER_VIDEO_SECOND
        tiers = [f"{PER_SECOND}_{tier}" for tier in self._tiers(asked)] or [PER_SECOND]
        found = [field if field in self.costs else PER_SECOND for field in tiers]
        known = [field for field in found if field in self.costs]
        return max(known, key=lambda field: self.costs[field]) if len(known) == len(found) else None

    def _tiers(self, asked: Asked) -> Iterator[str]:
        own = {match[1]: _edge_of(match) for match in map(TIER.fullmatch, self.costs) if match}
        for given in (asked.size, asked.resolution):
            text = str(given).strip().lower() if given is not None else ""
            edge = short_edge(text)
            if text:
                yield text if edge is None else _tier(edge, {**_USUAL_TIERS, **own})

    def _missing(self, asked: Asked) -> str:
        tiers = [name.removeprefix(f"{PER_SECOND}_") for name in self.costs if TIER.fullmatch(name)]
        if not tiers:
            return f"{self.model} has no price per second or per video in the table of SORA_PRICES: add {PER_SECOND}"
        given = " and ".join(str(each) for each in (asked.size, asked.resolution) if each is not None)
        what = f"none for {given}" if given else "the video has no size"
        return f"{self.model} has prices for {', '.join(tiers)} only, and {what}: name such a size, or add {PER_SECOND}"


def short_edge(text: str) -> int | None:
    """Pixels of the short edge of `1280x720`, `720p`, `720` or `4k`; None: it is none of these."""
    if (size := _SIZE.fullmatch(text)) is not None:
        return min(int(size[1]), int(size[2]))
    if (tier := TIER.fullmatch(f"{PER_SECOND}_{text}")) is not None:
        return _edge_of(tier)
    return int(edge[1]) if (edge := _EDGE.fullmatch(text)) is not None else None


def _edge_of(tier: re.Match[str]) -> int:
    return int(tier[2]) if tier[2] else _K_EDGES.get(tier[1], int(tier[3]) * _K)


def _tier(edge: int, tiers: Mapping[str, int]) -> str:
    """The lowest tier that is not below a short edge; above all, the highest."""
    return min(tiers, key=lambda tier: (tiers[tier] < edge, abs(tiers[tier] - edge)))


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


def amount(micros: int) -> str:
    """Micros as units of their currency, exactly, with two decimal places or more: `0.80`, `0.709715`."""
    whole, rest = divmod(abs(micros), MICROS)
    places = f"{rest:06d}".rstrip("0").ljust(2, "0")
    return f"{'-' if micros < 0 else ''}{whole}.{places}"
