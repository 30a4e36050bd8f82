"""When requests may leave."""

import asyncio
import time
from types import SimpleNamespace

import pytest

from actors.sora.pace import Pace


@pytest.fixture
def pauses():
    return []


@pytest.fixture
def pace(pauses):
    pace = Pace()
    pace.on_pause = pauses.append
    return pace


def test_nothing_waits_without_a_reason(pace):
    assert pace.paused == 0
    asyncio.run(asyncio.wait_for(pace.turn(), 1))


def test_a_hint_of_the_server_is_obeyed(pace, pauses):
    pace.rate_limited(7.0)
    assert pauses == [7.0]
    assert 6.5 < pace.paused <= 7.0
    assert pace.wait.reason == "rate limited"


def test_a_hint_to_come_back_at_once_is_no_busy_loop(pace, pauses):
    pace.rate_limited(0.0)
    assert pauses == [0.05]


def test_without_a_hint_the_pauses_grow_up_to_a_limit(pace, pauses):
    for _ in range(8):
        pace.rate_limited(None)
        pace.wait = None
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]


def test_an_answer_begins_the_pauses_anew(pace, pauses):
    pace.rate_limited(None)
    pace.wait = None
    pace.rate_limited(None)
    pace.answered()
    pace.wait = None
    pace.rate_limited(None)
    assert pauses == [1, 2, 1]


def test_a_shorter_pause_does_not_end_a_longer_one(pace, pauses):
    pace.rate_limited(60.0)
    pace.rate_limited(1.0)
    assert pauses == [60.0]
    assert pace.paused > 50


def test_a_server_that_is_away_is_waited_for_and_its_absence_is_measured(pace, pauses, monkeypatch):
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    assert pace.unreachable() == 0
    now = 104.0
    assert pace.unreachable() == 4
    now = 130.0
    assert pace.unreachable() == 30
    assert pauses == [0.5, 4.0, 8.0]
    pace.answered()
    assert pace.unreachable() == 0


def test_a_server_that_never_answered_is_tried_last_when_patience_ends(monkeypatch):
    now, pauses, pace = 100.0, [], Pace()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    pace.patience, pace.on_pause = 10.0, pauses.append
    assert not pace.given_up(pace.unreachable())
    now = 104.0
    assert not pace.given_up(pace.unreachable())
    now = 108.0
    assert not pace.given_up(pace.unreachable())
    assert pauses == [0.5, 4.0, 2.0]
    now = 110.0
    assert pace.given_up(pace.unreachable())


def test_a_turn_waits_for_the_end_of_the_pause(pace):
    pace.rate_limited(0.05)
    before = time.monotonic()
    asyncio.run(pace.turn())
    assert time.monotonic() - before >= 0.05


def test_a_booked_turn_is_nobody_elses():
    pace = Pace(requests_per_second=20)
    first, second = pace.book(), pace.book()
    asyncio.run(pace.turn())
    assert second - first == pytest.approx(0.05)
    assert time.monotonic() - first >= 0.1


def test_requests_leave_no_faster_than_the_limit():
    pace = Pace(requests_per_second=100)
    left = []

    async def request():
        await pace.turn()
        left.append(time.monotonic())

    async def requests():
        await asyncio.gather(*(request() for _ in range(6)))

    asyncio.run(requests())
    assert max(left) - min(left) >= 0.05 * 0.95


def test_the_time_in_which_the_server_gives_no_answer_is_counted_once(pace, monkeypatch):
    now = 100.0
    monkeypatch.setattr("actors.sora.pace.time", SimpleNamespace(monotonic=lambda: now))
    pace = Pace()
    pace.no_answer()
    now = 103.0
    pace.no_answer()
    pace.unreachable()
    assert pace.stood == 3.0
    now = 110.0
    pace.answered()
    now = 120.0
    assert pace.stood == 10.0
    pace.rate_limited(5.0)
    pace.rate_limited(5.0)
    now = 122.0
    assert pace.stood == 12.0
    pace.no_answer()
    now = 123.0
    pace.answered()
    now = 130.0
    assert pace.stood == 15.0
    pace.no_answer()
    now = 131.0
    pace.rate_limited(2.0)
    now = 140.0
    assert pace.stood == 18.0
