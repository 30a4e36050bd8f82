"""Quotes: what a request would cost at most, before anything is recorded or sent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

from actors.batch.expansion import Expansion, videos_of
from actors.batch.factory import asked_of
from actors.batch.job_views import Output
from actors.batch.price_files import price_table
from actors.batch.prices import Asked, Price, UnknownPrice, amount
from actors.batch.requests import BatchVideoRequest
from actors.settings import Settings

_NAMED = 3
"""So many origins and reasons stand in a sentence."""


class QuotedPrice(Output):
    """What one video costs at most, and by what."""

    currency: str
    estimated_micros: int
    """Millionths of a unit of the currency, rounded up."""
    model: str
    """The entry in the table of prices."""
    fields: dict[str, str]
    """The table's fields that it was computed from, with their values."""
    images: int
    """Its input reference and further files: each counts as an image."""
    source: str | None
    as_of: str | None


class QuotedVideo(Output):
    """One video of a quote."""

    index: int
    """From 1, in the order of the batch's jobs."""
    prompt: str
    model: str | None
    duration: int | None
    """Seconds."""
    size: str | None
    price: QuotedPrice | None
    """None: it is unknown."""
    unknown: str | None
    """Why it is unknown, with the way to give a price."""


class QuotedCost(Output):
    """What the videos of a quote cost at most in one currency."""

    currency: str
    estimated_micros: int
    """Millionths of a unit of the currency: exactly the sum of its videos."""
    videos: int


class Quote(Output):
    """What a request would cost at most, per video and in all. Nothing is converted or left out."""

    total: int
    """Videos."""
    cost: list[QuotedCost]
    """The videos whose price is known, with one entry for each currency."""
    unknown_prices: int
    """Videos whose price is unknown: what they cost comes on top of `cost`."""
    seconds: int
    """The durations that are known, added up."""
    unknown_durations: int
    """Videos without a duration."""
    paid_attempts: int
    """How often a video may be paid for, by SORA_PAID_ATTEMPTS; the prices are for one attempt each."""
    videos: list[QuotedVideo]

    @classmethod
    def of(cls, videos: list[QuotedVideo], *, paid_attempts: int = 1) -> Self:
        """A quote of these videos."""
        prices = [video.price for video in videos if video.price is not None]
        durations = [video.duration for video in videos if video.duration is not None]
        return cls(
            total=len(videos),
            cost=[_cost(each, prices) for each in sorted({price.currency for price in prices})],
            unknown_prices=len(videos) - len(prices),
            seconds=sum(durations),
            unknown_durations=len(videos) - len(durations),
            paid_attempts=paid_attempts,
            videos=videos,
        )

    @property
    def sentence(self) -> str:
        """The quote in one sentence: the sums, whose prices they are, and what is unknown."""
        return "; ".join(self._parts())

    def _parts(self) -> Iterator[str]:
        known = self.total - self.unknown_prices
        if known:
            sums = " + ".join(f"{amount(each.estimated_micros)} {each.currency}" for each in self.cost)
            videos = _videos(self.total) if known == self.total else f"{known} of {_videos(self.total)}"
            yield f"at most {sums} for {videos} ({_some(self._origins())})"
        if self.unknown_prices:
            reasons = dict.fromkeys(video.unknown for video in self.videos if video.unknown is not None)
            yield f"the price of {_videos(self.unknown_prices)} is unknown: {_some(list(reasons))}"
        if known and self.paid_attempts > 1:
            yield f"each may be paid for {self.paid_attempts} times (SORA_PAID_ATTEMPTS)"

    def _origins(self) -> list[str]:
        prices = {(price.model, price.source, price.as_of) for video in self.videos if (price := video.price)}
        return [
            ", ".join(filter(None, (model, source, as_of and f"as of {as_of}")))
            for model, source, as_of in sorted(prices, key=str)
        ]


def quote(request: BatchVideoRequest | dict[str, Any], settings: Settings) -> Quote:
    """What a request would cost at most. Records and sends nothing; input references count, but are not read.

    Raises:
        InvalidRequest: the request is invalid.
        SettingsError: the file of SORA_PRICES can't be used.
    """
    parsed = BatchVideoRequest.parse(request, max_size=settings.batch_max_size)
    table, expansion = price_table(settings), Expansion(parsed.matrix)
    videos: list[QuotedVideo] = []
    for video in videos_of(parsed):
        requested = asked_of(video, settings)
        for take in expansion.takes(video):
            images = (video.input_reference is not None) + len(video.files)
            asked = Asked.of(requested["model"], requested["duration"], requested["size"], take.params, images)
            price = table.price(asked)
            videos.append(
                QuotedVideo(
                    index=len(videos) + 1, prompt=take.prompt, **requested,
                    price=_quoted(price) if isinstance(price, Price) else None,
                    unknown=price.reason if isinstance(price, UnknownPrice) else None,
                )
            )  # fmt: skip
    return Quote.of(videos, paid_attempts=settings.sora_paid_attempts)


def _quoted(price: Price) -> QuotedPrice:
    return QuotedPrice(
        currency=price.currency, estimated_micros=price.micros, model=price.model, fields=dict(price.fields),
        images=price.images, source=price.source, as_of=price.as_of,
    )  # fmt: skip


def _cost(currency: str, prices: list[QuotedPrice]) -> QuotedCost:
    micros = [price.estimated_micros for price in prices if price.currency == currency]
    return QuotedCost(currency=currency, estimated_micros=sum(micros), videos=len(micros))


def _videos(number: int) -> str:
    return f"{number} video" if number == 1 else f"{number} videos"


def _some(texts: list[str]) -> str:
    rest = f"; and {len(texts) - _NAMED} more" if len(texts) > _NAMED else ""
    return "; ".join(texts[:_NAMED]) + rest
