"""What a batch decides when a budget refuses one of its payments."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from actors.batch.limits import amount_text, next_period
from actors.batch.prices import Priced
from actors.batch.scheduling import Rules
from actors.errors import ErrorCode
from storage.budgets import Refusal
from storage.charges import BatchCosts, amounts_of
from storage.records import BudgetRecord
from storage.states import BatchStatus, SubmissionState
from tests.actors.batch.test_run import Ride
from tests.builders import NOON, PROVIDER, a_job, some_jobs

PRICE = 400_000


class Limited(Ride):
    """A Ride whose budget has room for so many videos."""

    def __init__(self, room, total=3, jobs=None, *, unit="USD", **columns):
        columns.setdefault("concurrency", total)
        super().__init__(total, jobs, budget=[{"amount": "1", "unit": unit}], **columns)
        rules = Rules(
            provider=PROVIDER, owner_id="us", paid_attempts=1, progress_interval=0.0,
            price=lambda job: None if job.model == "free" else Priced("USD", PRICE, {}),
        )  # fmt: skip
        self.run._rules = rules
        self.room, self.unit, self.refusals = room, unit, []

    def step(self, act=lambda: None, *, start=True):
        """As its supervisor drives it: nothing is recorded of a step that is refused, and then it decides again."""
        act()
        self._step(start=start)
        while start and not self.run.over and self.run.wants_to_start:
            self._step(start=start)
        return self

    def _step(self, *, start):
        while True:
            given = []
            if start and not self.run.over:
                given += self.run.attach()
                while self.run.wants_to_start:
                    given.append(self.run.start_next())
            changes = self.run.take_changes(spent=0.0, claims=0)
            refusal = self.refusal(changes.intents)
            if refusal is None:
                break
            self.refusals.append(refusal.index)
            self.run.refused(refusal, given, self.now)
        self.room -= len(changes.intents)
        self.given += given
        self.jobs |= {job.id: job for job in changes.jobs}
        self.events += changes.events
        if changes.closing:
            self.events.append(changes.closing(changes.batch, list(self.jobs.values()), BatchCosts()))
        self.intents += changes.intents
        self.outcomes += [(each.submission_id, each.state) for each in changes.outcomes]
        self.batch = changes.batch

    def refusal(self, intents):
        budget = BudgetRecord("batch", "nature", self.unit, 10**6, 10**6 - 100_000)
        for index, intent in enumerate(intents):
            amount = amounts_of(intent).get(self.unit)
            if amount is None or index >= self.room:
                return Refusal(index, budget, amount, frozenset({self.unit}))
        return None


def codes(ride):
    return [job.error and job.error["code"] for job in ride.jobs.values()]


@pytest.mark.parametrize("room", [0, 1, 2])
def test_what_fits_is_sent_and_the_rest_fails_unsent(room):
    ride = Limited(room).begin()
    assert ride.statuses == ["submitting"] * room + ["failed"] * (3 - room)
    assert codes(ride) == [None] * room + ["budget_exceeded"] * (3 - room)
    assert len(ride.intents) == room
    assert ride.told[:2] == ["batch.budget_reached", "job.failed"]
    assert ride.batch.sequence == 1 + len(ride.events)


def test_the_batch_goes_on_to_its_end_with_what_was_sent():
    ride = Limited(1).begin().submitted(0).completed(0)
    assert ride.statuses == ["completed", "failed", "failed"]
    assert ride.run.batch.status is BatchStatus.PARTIAL
    assert ride.told.count("batch.budget_reached") == 1


def test_what_comes_back_unsent_fails_too():
    ride = Limited(2).begin().withdrawn(1, SubmissionState.REFUSED)
    assert codes(ride) == [None, "budget_exceeded", "budget_exceeded"]


def test_a_video_without_a_price_fails_alone():
    jobs = [a_job(1, model="free"), a_job(2), a_job(3, model="free")]
    ride = Limited(9, jobs=jobs).begin()
    assert codes(ride) == ["price_unknown", None, "price_unknown"]
    assert ride.jobs["nature-01"].error["message"] == (
        "not submitted: the batch's budget of 1 USD needs a price in USD, and the price of the model free is unknown; "
        "add it to the file of SORA_PRICES, or give a budget in seconds or videos"
    )
    assert "batch.budget_reached" not in ride.told


def test_a_video_without_a_duration_fails_alone_under_a_budget_in_seconds():
    jobs = [a_job(1, duration=4), a_job(2), a_job(3, duration=4)]
    ride = Limited(9, jobs=jobs, unit="seconds").begin()
    assert codes(ride) == [None, "price_unknown", None]
    assert "has none; set its duration, or SORA_SECONDS" in ride.jobs["nature-02"].error["message"]


def test_what_a_step_gives_back_counts_for_its_next_video():
    ride = Limited(1, total=2, concurrency=1).begin().submitted(0)
    settled = []

    def refusal(intents):
        if intents and not settled:
            settled.append(len(ride.outcomes))
            return Limited.refusal(ride, intents)
        return None

    ride.refusal = refusal
    ride.failed(0, ErrorCode.GENERATION_FAILED, SubmissionState.FAILED)
    assert (ride.statuses, settled) == (["failed", "submitting"], [0])


def test_reports_that_came_while_a_step_was_refused_are_kept():
    ride = Limited(9, jobs=some_jobs(2), total=2, concurrency=1).begin().submitted(0)
    assignment = ride.given[0]
    ride.room = 0
    ride.completed(0)  # the next one is refused in the same step
    assert ride.statuses == ["completed", "failed"]
    assert ride.told[-1] == "batch.partial"
    assert assignment.job.id not in ride.run.jobs


@pytest.mark.parametrize(
    ("micros", "unit", "text"),
    [
        (19_200_000, "USD", "19.20 USD"), (123_456, "USD", "0.123456 USD"), (0, "EUR", "0.00 EUR"),
        (1_000_000, "videos", "1 video"), (2_500_000, "seconds", "2.5 seconds"), (100_000_000, "videos", "100 videos"),
    ],
)  # fmt: skip
def test_an_amount_is_written_for_a_person(micros, unit, text):
    assert amount_text(micros, unit) == text


# --- waiting for the next period


def a_budget(scope, period):
    return BudgetRecord(scope, period, "USD", 10**6, 900_000)


@pytest.mark.parametrize(
    ("scope", "period", "then"),
    [("day", "2026-11-30", "2026-12-01"), ("day", "2026-12-31", "2027-01-01"), ("month", "2026-11", "2026-12-01"),
     ("month", "2026-12", "2027-01-01"), ("month", "2027-02", "2027-03-01")],
)  # fmt: skip
def test_the_next_period_begins_at_midnight_utc(scope, period, then):
    assert next_period(a_budget(scope, period)) == datetime.fromisoformat(then).replace(tzinfo=UTC).timestamp()


def test_serve_waits_for_the_next_period_and_its_time_stands_still():
    ride = Limited(1, total=2, concurrency=2)
    ride.run._rules = replace(ride.run._rules, waits_for_budget=True)
    day = datetime.fromtimestamp(NOON, UTC).date().isoformat()
    full = Refusal(0, a_budget("day", day), PRICE, frozenset({"USD"}))
    ride.refusal = lambda intents: full if intents and ride.room < len(intents) else None
    ride.begin()
    assert ride.statuses == ["pending", "pending"]
    assert ride.told == ["batch.budget_reached"]
    assert "with 0.10 USD left" in ride.run.waits[""].reason
    ride.run.happens_at(NOON + 59)
    ride.tick(0.0)
    assert (ride.statuses, ride.run.pause.stood(NOON + 59)) == (["pending", "pending"], 59)
    ride.run.happens_at(NOON + 60)  # it tries again, in vain, and tells nothing new
    ride.tick(0.0)
    assert (ride.statuses, ride.told) == (["pending", "pending"], ["batch.budget_reached"])
    ride.room = 2
    ride.run.happens_at(NOON + 121)
    ride.tick(0.0)
    assert (ride.statuses, ride.run.waits) == (["submitting", "submitting"], {})
    assert ride.run.pause.stood(NOON + 500) == pytest.approx(121)
