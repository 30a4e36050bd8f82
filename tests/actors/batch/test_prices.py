"""Prices: the look-up of LiteLLM's table, exact arithmetic, and what is unknown.

The excerpt of ten models is from LiteLLM's public table (MIT).
"""

import json
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from actors.batch.price_files import CURRENCIES, WrongTable, price_table, read_table
from actors.batch.prices import MICROS, Asked, Price, UnknownPrice, amount, short_edge
from actors.errors import SettingsError
from actors.settings import Settings

EXCERPT = Path(__file__).with_name("litellm_excerpt.json")
LITELLM = read_table(json.loads(EXCERPT.read_text(), parse_float=Decimal))
BASE = "output_cost_per_second"


def asked(model="m", seconds=1, size=None, **more):
    return Asked(model=model, seconds=seconds, size=size, **more)


def price_of(entry, *, model="m", **fields):
    return read_table({"m": entry}).price(asked(model, **fields))


def micros_of(entry, **fields):
    price = price_of(entry, **fields)
    assert isinstance(price, Price), price
    return price.micros


@pytest.mark.parametrize(
    ("model", "size", "resolution", "seconds", "images", "currency", "micros"),
    [
        ("sora-2", "1280x720", None, 8, 0, "USD", 800_000),
        ("openai/sora-2", None, None, 12, 0, "USD", 1_200_000),
        ("azure/sora-2-pro-high-res", "1792x1024", None, 4, 0, "USD", 2_000_000),
        ("dashscope/wan3.0-video", "854x480", None, 5, 0, "USD", 206_280),
        ("dashscope/wan3.0-video", "720x1280", None, 5, 0, "USD", 412_565),
        ("dashscope/wan3.0-video", None, None, 5, 0, "USD", 825_125),
        ("gemini/veo-3.1-fast-generate-001", "1280x720", None, 8, 0, "USD", 800_000),
        ("gemini/veo-3.1-fast-generate-001", "1080x1920", None, 8, 0, "USD", 960_000),
        ("gemini/veo-3.1-fast-generate-001", None, "4K", 8, 0, "USD", 2_400_000),
        ("veo-3.1-fast-generate-001", None, "4k", 8, 0, "USD", 2_400_000),
        ("minimax/MiniMax-H3", None, "768P", 6, 1, "USD", 520_000),
        ("minimax/MiniMax-H3", "2560x1440", None, 6, 2, "USD", 860_000),
        ("volcengine/doubao-seedance-2-0-260128", "1280x720", None, 5, 0, "USD", 709_715),  # 0.709714285
        ("xai/grok-imagine-video-1.5", "1280x720", None, 10, 1, "USD", 1_410_000),
    ],
)
def test_the_real_table(model, size, resolution, seconds, images, currency, micros) -> None:
    price = LITELLM.price(asked(model, seconds, size, resolution=resolution, images=images))
    assert isinstance(price, Price)
    assert (price.currency, price.micros) == (currency, micros)
    assert price.source is not None
    assert price.source.startswith("https://")


def test_litellms_order_of_look_up() -> None:
    entry = {BASE: 1, f"{BASE}_720p": 2, "output_cost_per_video": 5}
    assert micros_of(entry, size="1280x720") == 2 * MICROS
    assert micros_of(entry, size="1920x1080") == 1 * MICROS
    assert micros_of(entry) == 1 * MICROS
    assert micros_of({**entry, "output_cost_per_video_per_second": 4}, size="1280x720") == 4 * MICROS
    assert micros_of({"output_cost_per_video": 5}, seconds=None) == 5 * MICROS
    assert micros_of({"output_cost_per_video": 5}, seconds=9) == 5 * MICROS
    assert micros_of({**entry, f"{BASE}_720p": None}, size="1280x720") == 1 * MICROS


def test_a_price_says_what_it_came_from() -> None:
    entry = {BASE: Decimal("0.10"), "input_cost_per_image": 1, "source": "https://p", "as_of": "2026-11-29"}
    price = price_of(entry, seconds=3, images=2)
    assert isinstance(price, Price)
    document = json.loads(json.dumps(price.document()))
    assert document == {
        "currency": "USD", "micros": 2_300_000, "model": "m", "fields": {BASE: "0.10", "input_cost_per_image": "1"},
        "seconds": 3, "images": 2, "source": "https://p", "as_of": "2026-11-29",
    }  # fmt: skip


TIERS = {"480p": 1, "720p": 2, "768p": 3, "1080p": 4, "2k": 5, "4k": 6}
ALL_TIERS = {f"{BASE}_{tier}": cost for tier, cost in TIERS.items()}


@pytest.mark.parametrize(
    ("edge", "cost"),
    [(64, 1), (480, 1), (481, 2), (720, 2), (721, 3), (768, 3), (769, 4), (1024, 4), (1080, 4), (1081, 5), (1440, 5),
     (1441, 6), (2160, 6), (2161, 6), (99_999, 6)],
)  # fmt: skip
def test_tiers_at_their_edges(edge, cost) -> None:
    assert micros_of(ALL_TIERS, size=f"{edge}x{max(edge, 99_999)}") == cost * MICROS
    assert micros_of(ALL_TIERS, size=f"{max(edge, 99_999)}x{edge}") == cost * MICROS


@pytest.mark.parametrize("written", ["720p", "720P", " 720p ", "720", 720, "1280x720", "1280*720"])
def test_a_resolution_counts_like_a_size(written) -> None:
    assert Asked.of("m", 1, None, {"resolution": written}, 0).resolution == written
    assert micros_of(ALL_TIERS, resolution=written) == 2 * MICROS
    assert micros_of(ALL_TIERS, size="1920x1080", resolution=written) == 4 * MICROS  # the dearer of the two


@pytest.mark.parametrize("written", [True, None, ["720p"], 7.5])
def test_any_other_resolution_is_ignored(written) -> None:
    assert Asked.of("m", 1, None, {"resolution": written}, 0).resolution is None


def test_a_tier_of_its_own_name() -> None:
    entry = {BASE: 1, f"{BASE}_540p": 2, f"{BASE}_8k": 9}
    assert micros_of(entry, resolution="540p") == 2 * MICROS
    assert micros_of(entry, size="7680x4320") == 9 * MICROS
    assert micros_of(entry, resolution="hd") == 1 * MICROS
    assert short_edge("8k") == 4320
    assert short_edge("hd") is None


TABLE = read_table(
    {
        "sora-2": {BASE: 1},
        "azure/sora-2": {BASE: 2},
        "xai/grok": {BASE: 3},
        "a/two": {BASE: 4},
        "b/two": {BASE: 5},
        "a/same": {BASE: 6},
        "b/same": {BASE: 6},
        "fal/lab/long/name": {BASE: 7},
        "*": {BASE: 9},
    }
)


@pytest.mark.parametrize(
    ("model", "units"),
    [("sora-2", 1), ("openai/sora-2", 1), ("azure/sora-2", 2), ("grok", 3), ("same", 6), ("lab/long/name", 7),
     ("me/fal/lab/long/name", 7), ("nobody", 9), (None, 9)],
)  # fmt: skip
def test_a_model_with_and_without_its_provider(model, units) -> None:
    price = TABLE.price(asked(model))
    assert isinstance(price, Price)
    assert price.micros == units * MICROS


@pytest.mark.parametrize(
    ("table", "wanted", "words"),
    [
        ({}, asked(), "SORA_PRICES"),
        ({"m": {BASE: 1}}, asked("other"), "no price for other: add one, or one for any model (*)"),
        ({"m": {BASE: 1}}, asked(None), "names no model: name one, set SORA_MODEL"),
        ({"m": {BASE: 1}}, asked(seconds=None), "no duration: give it one, or set SORA_SECONDS"),
        ({"m": {}}, asked(), f"no price per second or per video in the table of SORA_PRICES: add {BASE}"),
        ({"m": {"input_cost_per_image": 1}}, asked(images=1), "no price per second or per video"),
        ({"m": {f"{BASE}_720p": 1}}, asked(size="640x480"), "prices for 720p only, and none for 640x480"),
        ({"m": {f"{BASE}_720p": 1}}, asked(), "prices for 720p only, and the video has no size"),
        ({"a/m": {BASE: 1}, "b/m": {BASE: 2}}, asked(), "several prices for m (a/m and b/m): name one"),
        ({"m": {BASE: 1_000_000}}, asked(seconds=10**9), "check its price and the duration"),
    ],
)
def test_unknown_is_unknown_and_says_why(table, wanted, words) -> None:
    price = read_table(table).price(wanted)
    assert isinstance(price, UnknownPrice)
    assert words in price.reason


# Decimals as tables have them: up to 12 places, sometimes in scientific notation.
COSTS = st.decimals(min_value=0, max_value=1000, places=12)
SECONDS = st.integers(min_value=1, max_value=1_000_000)


@given(COSTS, SECONDS, COSTS, st.integers(min_value=0, max_value=17))
@example(Decimal("0.1"), 3, Decimal("0.2"), 1)  # 0.1 * 3 + 0.2 is no 0.5 in floats
@example(Decimal("0.000000000001"), 1, Decimal(0), 0)
def test_a_price_is_the_least_whole_number_of_micros_that_covers_it(cost, seconds, image, images) -> None:
    micros = micros_of({BASE: cost, "input_cost_per_image": image}, seconds=seconds, images=images)
    exact = (Fraction(cost) * seconds + Fraction(image) * images) * MICROS
    assert type(micros) is int
    assert exact <= micros < exact + 1


@given(st.lists(st.tuples(COSTS, SECONDS), min_size=1, max_size=20), st.data())
def test_sums_by_any_grouping_equal_the_whole(videos, data) -> None:
    prices = [micros_of({BASE: cost}, seconds=seconds) for cost, seconds in videos]
    groups = data.draw(st.lists(st.integers(0, 3), min_size=len(prices), max_size=len(prices)))
    sums = [sum(price for price, group in zip(prices, groups, strict=True) if group == each) for each in range(4)]
    assert sum(sums) == sum(prices)
    exact = sum(Fraction(cost) * seconds * MICROS for cost, seconds in videos)
    assert exact <= sum(prices) < exact + len(prices)


@given(st.integers(16, 99_999), st.integers(16, 99_999), st.dictionaries(st.sampled_from(sorted(ALL_TIERS)), COSTS))
def test_portrait_costs_what_landscape_costs(width, height, tiers) -> None:
    entry = {BASE: 1, **tiers}
    assert price_of(entry, size=f"{width}x{height}") == price_of(entry, size=f"{height}x{width}")


@given(st.integers(16, 99_998))
def test_where_larger_tiers_cost_more_a_larger_video_never_costs_less(edge) -> None:
    assert micros_of(ALL_TIERS, size=f"{edge}x{edge}") <= micros_of(ALL_TIERS, size=f"{edge + 1}x{edge + 1}")


@given(st.integers(-(10**18), 10**18))
@example(0)
@example(-1)
def test_an_amount_is_written_exactly(micros) -> None:
    assert Decimal(amount(micros)) * MICROS == micros
    assert len(amount(micros).rpartition(".")[2]) >= 2


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ([], "must be an object of prices by model"),
        ("prices", "must be an object of prices by model"),
        ({"m": 1}, "m: must be an object such as"),
        ({"m": {BASE: -0.1}}, f"m.{BASE}: must be a price from 0 to 1000000 (got -0.1)"),
        ({"m": {BASE: float("nan")}}, "(got NaN)"),
        ({"m": {BASE: float("inf")}}, "(got Infinity)"),
        ({"m": {BASE: "0.1"}}, "must be a number such as 0.1, without quotes (got '0.1')"),
        ({"m": {BASE: True}}, "must be a number"),
        ({"m": {BASE: [1]}}, "must be a number"),
        ({"m": {BASE: 1_000_001}}, "must be a price from 0 to 1000000"),
        ({"m": {BASE: Decimal("1e-999999999")}}, "at most 30 decimal places"),
        ({"m": {f"{BASE}_720p": "x"}}, f"m.{BASE}_720p: must be a number"),
        ({"m": {"currency": "usd"}}, "m.currency: must be a code of ISO 4217, such as USD (got 'usd')"),
        ({"m": {"currency": "QQQ"}}, "(got 'QQQ')"),
        ({"m": {"currency": ["USD"]}}, "m.currency"),
        ({"m": {"source": 5}}, "m.source: must be a text in quotes (got 5)"),
    ],
)
def test_what_is_wrong_with_a_table(table, words) -> None:
    with pytest.raises(WrongTable) as error:
        read_table(table)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_other_models_and_fields_are_ignored() -> None:
    table = read_table(
        {
            "sample_spec": {"mode": "one of: chat, embedding", BASE: "what it costs"},
            "gpt": {"mode": "chat", BASE: "0.1"},
            "1024-x-1024/old": {"litellm_provider": "p", "input_cost_per_image": "0.1"},
            "m": {"mode": "video_generation", BASE: 1, "output_cost_per_video_token": "x", "metadata": []},
        }
    )
    assert len(table) == 1


def test_currencies_stand_side_by_side() -> None:
    table = read_table({"m": {BASE: 1, "currency": "CNY"}, "n": {BASE: 1}})
    assert table.currencies == {"CNY", "USD"}
    assert {"USD", "EUR", "CNY", "JPY"} <= CURRENCIES
    assert "XTS" not in CURRENCIES


def table_in(path: Path):
    return price_table(Settings(_env_file=None, sora_prices=str(path)))


@pytest.mark.parametrize(
    "text",
    [
        '{"m": {"output_cost_per_second": 0.1}}',
        "m: {output_cost_per_second: 0.1}\n",
        "\ufeffm:\n  output_cost_per_second: .1\n  as_of: 2026-11-29\n",
    ],
)
def test_a_file_is_json_or_yaml_and_exact(tmp_path, text) -> None:
    path = tmp_path / "prices"
    path.write_text(text)
    price = table_in(path).price(asked(seconds=3))
    assert isinstance(price, Price)
    assert price.micros == 300_000
    assert price.as_of in (None, "2026-11-29")


def test_a_file_is_read_again_once_it_has_changed(tmp_path) -> None:
    path = tmp_path / "prices.json"
    path.write_text('{"m": {"output_cost_per_second": 1}}')
    first = table_in(path)
    assert table_in(path) is first
    path.write_text('{"m": {"output_cost_per_second": 20}}')
    price = table_in(path).price(asked())
    assert isinstance(price, Price)
    assert price.micros == 20 * MICROS


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "not a table of prices: not JSON (line 1, column 2"),
        (b"a: [", "not a table of prices: not YAML"),
        (b"", "must be an object of prices by model"),
        (b"just words", "must be an object of prices by model"),
        (b"\xff", "not UTF-8 (byte 0): save it as UTF-8"),
        (b'{"m": {}, "m": {}}', "duplicate key 'm'"),
        (
            b'{"m": {"output_cost_per_second": NaN}}',
            "m.output_cost_per_second: must be a price from 0 to 1000000 (got NaN)",
        ),
        (b"m: {output_cost_per_second: -.inf}", "(got -Infinity)"),
        (b"m: {output_cost_per_second: 1:30.5}", "can't read a value (1:30.5 is not a number)"),
    ],
)
def test_a_file_that_is_no_table(tmp_path, content, words) -> None:
    path = tmp_path / "prices"
    path.write_bytes(content)
    with pytest.raises(SettingsError) as error:
        table_in(path)
    assert str(error.value).startswith(f"SORA_PRICES='{path}': ")
    assert words in str(error.value)


def test_a_path_that_is_no_file(tmp_path) -> None:
    with pytest.raises(SettingsError, match="there is no such file: create it, or correct the path"):
        table_in(tmp_path / "missing")
    with pytest.raises(SettingsError, match="not a regular file"):
        table_in(tmp_path)
    with pytest.raises(SettingsError, match="not a regular file"):
        table_in(Path("/dev/zero"))


def test_without_a_file_every_price_is_unknown() -> None:
    assert isinstance(price_table(Settings(_env_file=None)).price(asked()), UnknownPrice)
