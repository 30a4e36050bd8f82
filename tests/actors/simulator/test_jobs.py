"""The simulator's jobs: states by time, fates by seed and prompt, rates, the ledger."""

from dataclasses import replace
from itertools import pairwise

import pytest

from actors.simulator import SimulatorOptions
from actors.simulator.gate import RateLimit
from actors.simulator.jobs import Failure, Job, Ledger, blocked, draw, state_of


def job(number=1, *, latency=10.0, failure=None, accepted_at=1000.0):
    return Job(
        number=number,
        id=f"video_{number}",
        prompt="a lake",
        model="sora-2",
        seconds=4,
        size="720x1280",
        accepted_at=accepted_at,
        latency=latency,
        failure=failure,
    )


@pytest.mark.parametrize(
    ("now", "status", "progress"),
    [
        (1000.0, "queued", 0),
        (1000.9, "queued", 0),
        (1005.0, "in_progress", 50),
        (1009.9999, "in_progress", 99),
        (1010.0, "completed", 100),
        (9999.0, "completed", 100),
    ],
)
def test_a_job_goes_from_queued_to_completed_as_time_passes(now, status, progress):
    state = state_of(job(), now)
    assert (state.status, state.progress) == (status, progress)
    assert state.ended_at == (1010 if status == "completed" else None)


def test_a_job_that_fails_stays_where_it_got_to():
    failing = job(failure=Failure(code="x", message="y", http_status=500, progress=37))
    assert state_of(failing, 1009.9).progress <= 37
    ended = state_of(failing, 1010.0)
    assert (ended.status, ended.progress, ended.ended) == ("failed", 37, True)


def test_progress_never_goes_back():
    states = [state_of(job(), 1000 + tenth / 10) for tenth in range(120)]
    assert all(before.progress <= after.progress for before, after in pairwise(states))


def test_a_job_without_latency_is_queued_when_accepted_and_completed_at_the_next_look():
    assert state_of(job(latency=0.0), 1000.0).status == "queued"
    assert state_of(job(latency=0.0), 1000.001).status == "completed"


def fate(seed=7, prompt="a lake", attempt=1, failure_rate=0.5):
    return draw(seed=seed, prompt=prompt, attempt=attempt, latency=(2.0, 5.0), failure_rate=failure_rate)


def test_the_same_seed_prompt_and_attempt_have_the_same_fate():
    assert fate() == fate()
    assert fate() != fate(seed=8)
    assert fate() != fate(prompt="a forest")


def test_latencies_lie_within_the_range():
    assert all(2.0 <= fate(attempt=attempt)[0] <= 5.0 for attempt in range(200))


@pytest.mark.parametrize(("rate", "low", "high"), [(0.0, 0, 0), (0.3, 240, 360), (1.0, 1000, 1000)])
def test_the_share_of_failures_is_the_failure_rate(rate, low, high):
    failures = sum(fate(attempt=attempt, failure_rate=rate)[1] is not None for attempt in range(1000))
    assert low <= failures <= high


def test_a_prompt_that_failed_may_succeed_when_it_comes_again():
    assert len({fate(attempt=attempt)[1] is None for attempt in range(1, 20)}) == 2


def test_a_lone_surrogate_in_a_prompt_is_drawn_for_too():
    assert fate(prompt="\ud800") == fate(prompt="\ud800")


@pytest.mark.parametrize(
    "changes", [{}, {"failure": blocked()}, {"told": {"seed": 0, "lora": {"name": "x"}}}, {"replica": 1}]
)
def test_a_job_survives_being_recorded(changes):
    recorded = replace(job(), **changes)
    assert Job.restore(recorded.record()) == recorded


def test_a_plain_job_is_recorded_as_it_was_before_jobs_told_more():
    assert not job().record().keys() & {"told", "replica"}


def test_a_rate_limit_lets_a_second_s_worth_through_and_tells_when_the_next_may_come():
    limit = RateLimit(2.0)
    assert [limit.take(100.0) for _ in range(3)] == [0.0, 0.0, 0.5]
    assert limit.take(100.25) == 0.25
    assert limit.take(100.5) == 0.0


def test_a_rate_limit_below_one_per_second_lets_the_first_through():
    limit = RateLimit(0.1)
    assert [limit.take(100.0), limit.take(100.0)] == [0.0, 10.0]


def test_in_flight_counts_what_has_not_ended():
    ledger = Ledger()
    for number, latency in enumerate((1.0, 5.0, 9.0), start=1):
        ledger.accept(job(number, latency=latency), 1000.0)
    assert [ledger.in_flight(now) for now in (1000.5, 1001.0, 1008.0, 1009.0)] == [3, 2, 1, 0]
    assert (ledger.max_in_flight, ledger.creates) == (3, 3)


@pytest.mark.parametrize(("stop", "left"), [(True, 0), (False, 1)])
def test_a_deleted_job_is_in_flight_unless_its_work_was_stopped(stop, left):
    ledger = Ledger()
    ledger.accept(job(), 1000.0)
    ledger.delete(job(), stop=stop)
    assert ledger.find("video_1") is None
    assert ledger.in_flight(1000.0) == left


@pytest.mark.parametrize(
    "wrong",
    [
        {"latency": (5.0, 2.0)},
        {"latency": (-1.0, 2.0)},
        {"failure_rate": 1.5},
        {"rate_limit": 0.0},
        {"content_bytes": -1},
        {"profile": "azure"},
        {"strict": True, "profile": "sglang"},
        {"replicas": 0},
    ],
)
def test_options_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SimulatorOptions(**wrong)
