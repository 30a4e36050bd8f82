"""Quotes: each video at its price, sums by currency, and what is unknown said."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.batch.factory import new_batch
from actors.batch.price_files import price_table
from actors.batch.prices import Asked, Price
from actors.batch.quotes import Quote, QuotedPrice, QuotedVideo, quote
from actors.batch.requests import BatchVideoRequest
from actors.errors import InvalidRequest
from actors.settings import Settings
from tests.builders import NOON

TABLE = {
    "sora-2": {"output_cost_per_second": 0.1, "output_cost_per_second_1080p": 0.3, "source": "https://p", "as_of": "2026-11-29"},
    "euro": {"currency": "EUR", "output_cost_per_video": 0.5, "input_cost_per_image": 0.01},
}  # fmt: skip
PICTURE = "data:image/png;base64,iVBORw0KGgo="


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "prices.json").write_text(json.dumps(TABLE))

    def with_prices(**changes):
        return Settings(_env_file=None, sora_prices=str(tmp_path / "prices.json"), **changes)

    return with_prices


def test_each_video_and_the_sums(settings) -> None:
    request = {
        "defaults": {"model": "sora-2", "duration": 8},
        "matrix": {"resolution": ["720p", "1080p"]},
        "videos": [
            {"prompt": "A {resolution} film", "params": {"resolution": "{resolution}"}, "takes": 2},
            {"prompt": "Euro", "model": "euro", "input_reference": "no/such.png", "files": {"last_frame": PICTURE}},
            {"prompt": "Other", "model": "other"},
        ],
    }
    told = quote(request, settings())
    assert [video.price and (video.price.estimated_micros, video.price.currency) for video in told.videos] == [
        (800_000, "USD"), (800_000, "USD"), (2_400_000, "USD"), (2_400_000, "USD"), (520_000, "EUR"), (520_000, "EUR"),
        None, None,
    ]  # fmt: skip
    assert [video.index for video in told.videos] == list(range(1, 9))
    assert told.videos[0].prompt == "A 720p film"
    assert [(each.currency, each.estimated_micros, each.videos) for each in told.cost] == [
        ("EUR", 1_040_000, 2),
        ("USD", 6_400_000, 4),
    ]
    assert (told.total, told.unknown_prices, told.seconds, told.unknown_durations) == (8, 2, 64, 0)
    assert told.videos[0].price is not None
    assert (told.videos[0].price.source, told.videos[0].price.as_of) == ("https://p", "2026-11-29")
    assert told.sentence == (
        "at most 1.04 EUR + 6.40 USD for 6 of 8 videos (euro; sora-2, https://p, as of 2026-11-29); "
        "the price of 2 videos is unknown: the table of SORA_PRICES has no price for other: add one, or one for any model (*)"
    )
    assert Quote.model_validate_json(told.model_dump_json()) == told


def test_the_settings_complete_it(settings) -> None:
    told = quote({"videos": [{"prompt": "Sea"}]}, settings(sora_model="sora-2", sora_size="1080x1920", sora_seconds=4))
    assert told.sentence == "at most 1.20 USD for 1 video (sora-2, https://p, as of 2026-11-29)"
    twice = quote({"videos": [{"prompt": "Sea", "model": "euro"}]}, settings(sora_paid_attempts=2))
    assert twice.sentence == "at most 0.50 EUR for 1 video (euro); each may be paid for 2 times (SORA_PAID_ATTEMPTS)"


def test_without_prices_everything_is_unknown() -> None:
    told = quote({"videos": [{"prompt": "Sea"}, {"prompt": "Sky"}]}, Settings(_env_file=None))
    assert told.cost == []
    assert told.sentence == "the price of 2 videos is unknown: set SORA_PRICES to a file of prices"


def test_an_invalid_request_is_named(settings) -> None:
    with pytest.raises(InvalidRequest, match="duration"):
        quote({"videos": [{"prompt": "Sea", "duration": -1}]}, settings())
    with pytest.raises(InvalidRequest, match="11 videos are too many"):
        quote({"videos": [{"prompt": "Sea"}] * 11}, settings())


def test_a_quote_is_what_its_jobs_would_be_priced_at(settings) -> None:
    request = BatchVideoRequest.parse(
        {
            "matrix": {"resolution": ["720p", 1080]},
            "videos": [
                {"prompt": "A", "model": "sora-2", "duration": 7, "params": {"resolution": "{resolution}"}},
                {"prompt": "B", "model": "euro", "input_reference": PICTURE, "files": {"a": PICTURE, "b": PICTURE}},
            ],
        },
        max_size=10,
    )
    table = price_table(settings())
    prices = [table.price(Asked.by(job)) for job in new_batch(request, settings(), NOON).jobs]
    assert [price.micros for price in prices if isinstance(price, Price)] == [700_000, 2_100_000, 530_000, 530_000]
    quoted = [video.price and video.price.estimated_micros for video in quote(request, settings()).videos]
    assert quoted == [700_000, 2_100_000, 530_000, 530_000]


PRICES = st.builds(
    QuotedPrice, currency=st.sampled_from(["USD", "EUR", "CNY"]), estimated_micros=st.integers(0, 10**15),
    model=st.just("m"), fields=st.just({}), images=st.just(0), source=st.none(), as_of=st.none(),
)  # fmt: skip
VIDEOS = st.builds(
    QuotedVideo, index=st.just(1), prompt=st.just("A"), model=st.none(), duration=st.none() | st.integers(1, 60),
    size=st.none(), price=st.none() | PRICES, unknown=st.none(),
)  # fmt: skip


@given(st.lists(VIDEOS, min_size=1, max_size=30))
def test_sums_leave_nothing_out_and_convert_nothing(videos) -> None:
    told = Quote.of(videos)
    prices = [video.price for video in videos if video.price]
    for cost in told.cost:
        assert cost.estimated_micros == sum(each.estimated_micros for each in prices if each.currency == cost.currency)
    assert sum(cost.videos for cost in told.cost) + told.unknown_prices == told.total == len(videos)
    assert len({cost.currency for cost in told.cost}) == len(told.cost)
