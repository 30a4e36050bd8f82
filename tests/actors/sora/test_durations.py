"""How soon videos of a kind are expected, from what was seen of others."""

import random

import pytest

from actors.sora.durations import Durations


def test_nothing_is_expected_of_a_kind_that_was_never_ready() -> None:
    durations = Durations()
    durations.unready("a", 3.0)
    assert durations.expected("a") is None


def test_one_that_was_ready_tells_of_the_next() -> None:
    durations = Durations()
    durations.ready("a", 4.0)
    assert durations.expected("a") == 2.0  # nobody looked before
    durations.unready("a", 3.9)
    assert durations.expected("a") == 4.0
    assert durations.expected("b") is None


@pytest.mark.parametrize("truth", [0.001, 0.2, 2.0, 100.0])
def test_what_takes_equally_long_is_found_out_by_looking_earlier_now_and_then(truth: float) -> None:
    durations = Durations()
    for _ in range(4):
        durations.ready("a", 100 * truth)
    for _ in range(200):
        age = durations.expected("a")
        assert age is not None
        (durations.ready if age >= truth else durations.unready)("a", age)
    assert truth <= min(durations.expected("a") or 0 for _ in range(4)) <= 1.2 * truth


def test_what_takes_longer_of_late_is_expected_later() -> None:
    durations = Durations()
    for _ in range(20):
        durations.ready("a", 1.0)
    for _ in range(20):
        durations.unready("a", 1.0)
        durations.ready("a", 2.0)
    durations.unready("a", 1.9)
    assert durations.expected("a") == 2.0


def test_where_videos_differ_the_quicker_ones_are_expected() -> None:
    durations, chance = Durations(), random.Random(1)  # noqa: S311  (to be repeatable)
    for _ in range(100):
        truth = chance.uniform(1, 3)
        durations.unready("a", truth * 0.99)
        durations.ready("a", truth)
    assert 1.0 < (durations.expected("a") or 0) < 2.0


def test_kinds_that_were_not_seen_for_long_are_forgotten() -> None:
    durations = Durations()
    for number in range(1000):
        durations.ready(number, 1.0)
    assert durations.expected(0) is None
    assert durations.expected(999) is not None
