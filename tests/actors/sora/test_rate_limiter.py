"""When requests may leave."""

import asyncio
import time
from types import SimpleNamespace

import pytest

from actors.sora.rate_limiter import RateLimiter


@pytest.fixture
def pauses():
    return []


@pytest.fixture
def rate_limiter(pauses):
    rate_limiter = RateLimiter()
    rate_limiter.on_pause = pauses.append
    return rate_limiter


def test_nothing_waits_without_a_reason(rate_limiter):
    assert rate_limiter.paused == 0
    asyncio.run(asyncio.wait_for(rate_limiter.turn(), 1))


def test_a_hint_of_the_server_is_obeyed(rate_limiter, pauses):
    rate_limiter.rate_limited(7.0)
    assert pauses == [7.0]
    assert 6.5 < rate_limiter.paused <= 7.0
    assert rate_limiter.wait.reason == "rate limited"


def test_a_hint_to_come_back_at_once_is_no_busy_loop(rate_limiter, pauses):
    rate_limiter.rate_limited(0.0)
    assert pauses == [0.05]


def test_without_a_hint_the_pauses_grow_up_to_a_limit(rate_limiter, pauses):
    for _ in range(8):
        rate_limiter.rate_limited(None)
        rate_limiter.wait = None
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]


def test_an_answer_begins_the_pauses_anew(rate_limiter, pauses):
    rate_limiter.rate_limited(None)
    rate_limiter.wait = None
    rate_limiter.rate_limited(None)
    rate_limiter.answered()
    rate_limiter.wait = None
    rate_limiter.rate_limited(None)
    assert pauses == [1, 2, 1]


def test_a_shorter_pause_does_not_end_a_longer_one(rate_limiter, pauses):
    rate_limiter.rate_limited(60.0)
    rate_limiter.rate_limited(1.0)
    assert pauses == [60.0]
    assert rate_limiter.paused > 50


def test_a_server_that_is_away_is_waited_for_and_its_absence_is_measured(rate_limiter, pauses, monkeypatch):
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    assert rate_limiter.unreachable() == 0
    now = 104.0
    assert rate_limiter.unreachable() == 4
    now = 130.0
    assert rate_limiter.unreachable() == 30
    assert pauses == [0.5, 4.0, 8.0]
    rate_limiter.answered()
    assert rate_limiter.unreachable() == 0


def test_a_server_that_never_answered_is_tried_last_when_patience_ends(monkeypatch):
    now, pauses, rate_limiter = 100.0, [], RateLimiter()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    rate_limiter.patience, rate_limiter.on_pause = 10.0, pauses.append
    assert not rate_limiter.given_up(rate_limiter.unreachable())
    now = 104.0
    assert not rate_limiter.given_up(rate_limiter.unreachable())
    now = 108.0
    assert not rate_limiter.given_up(rate_limiter.unreachable())
    assert pauses == [0.5, 4.0, 2.0]
    now = 110.0
    assert rate_limiter.given_up(rate_limiter.unreachable())


def test_a_turn_waits_for_the_end_of_the_pause(rate_limiter):
    rate_limiter.rate_limited(0.05)
    before = time.monotonic()
    asyncio.run(rate_limiter.turn())
    assert time.monotonic() - before >= 0.05


def test_a_booked_turn_is_nobody_elses():
    rate_limiter = RateLimiter(requests_per_second=20)
    first, second = rate_limiter.book(), rate_limiter.book()
    asyncio.run(rate_limiter.turn())
    assert second - first == pytest.approx(0.05)
    assert time.monotonic() - first >= 0.1


def test_requests_leave_no_faster_than_the_limit():
    rate_limiter = RateLimiter(requests_per_second=100)
    left = []

    async def request():
        await rate_limiter.turn()
        left.append(time.monotonic())

    async def requests():
        await asyncio.gather(*(request() for _ in range(6)))

    asyncio.run(requests())
    assert max(left) - min(left) >= 0.05 * 0.95


def test_the_time_in_which_the_server_gives_no_answer_is_counted_once(rate_limiter, monkeypatch):
    now = 100.0
    monkeypatch.setattr("actors.sora.rate_limiter.time", SimpleNamespace(monotonic=lambda: now))
    rate_limiter = RateLimiter()
    rate_limiter.no_answer()
    now = 103.0
    rate_limiter.no_answer()
    rate_limiter.unreachable()
    assert rate_limiter.stood == 3.0
    now = 110.0
    rate_limiter.answered()
    now = 120.0
    assert rate_limiter.stood == 10.0
    rate_limiter.rate_limited(5.0)
    rate_limiter.rate_limited(5.0)
    now = 122.0
    assert rate_limiter.stood == 12.0
    rate_limiter.no_answer()
    now = 123.0
    rate_limiter.answered()
    now = 130.0
    assert rate_limiter.stood == 15.0
    rate_limiter.no_answer()
    now = 131.0
    rate_limiter.rate_limited(2.0)
    now = 140.0
    assert rate_limiter.stood == 18.0
