"""Admission: how many videos a process has in flight, and whose turn is next."""

import time
from functools import partial
from types import SimpleNamespace

import pytest

from actors.messages import PlaceFree
from actors.sora.rate_limiter import RateLimiter
from actors.video.admission import STARTS, Admission, Beginnings


class Loop:
    """Remembers what shall be called, and calls it when a test says so."""

    def __init__(self):
        self.soon, self.later = [], []

    def call_soon(self, function):
        self.soon.append(function)

    def call_later(self, seconds, function):
        self.later.append((seconds, function))

    def run(self):
        calls, self.soon = self.soon, []
        for call in calls:
            call()


class Supervisor:
    """Takes a place when it is told of one, as long as it wants more."""

    def __init__(self, office, batch_id, wants):
        self.office, self.batch_id, self.wants, self.told, self.has = office, batch_id, wants, [], 0

    def tell(self, message):
        self.told.append(message)

    def start(self):
        while self.wants and self.office.admission.may_start(self.batch_id, self):
            self.wants -= 1
            self.has += 1
            self.office.admission.taken(self.batch_id, self.has)
        if not self.wants:
            self.office.admission.has_enough(self.batch_id)

    def end(self):
        self.has -= 1
        self.office.admission.taken(self.batch_id, self.has)


class Office:
    def __init__(self, limit, requests_per_second=None):
        self.loop, self.rate_limiter = Loop(), RateLimiter(requests_per_second)
        self.admission = Admission(limit, self.rate_limiter, self.loop)
        self.batches = {}

    def batch(self, batch_id, wants):
        self.batches[batch_id] = batch = Supervisor(self, batch_id, wants)
        batch.start()
        return batch

    def settle(self):
        """Let everything that follows happen."""
        while self.loop.soon or any(batch.told for batch in self.batches.values()):
            self.loop.run()
            for batch in self.batches.values():
                if batch.told:
                    batch.told.clear()
                    batch.start()

    @property
    def has(self):
        return {batch_id: batch.has for batch_id, batch in self.batches.items()}


@pytest.fixture
def office():
    return Office(4)


def test_without_a_limit_everybody_starts():
    office = Office(None)
    office.batch("a", 100)
    office.batch("b", 100)
    assert office.has == {"a": 100, "b": 100}


def test_a_batch_alone_may_take_every_place(office):
    office.batch("a", 9)
    assert office.has == {"a": 4}


def test_a_free_place_goes_to_the_batch_that_has_the_fewest(office):
    first, second = office.batch("a", 9), office.batch("b", 9)
    first.end()
    office.settle()
    assert office.has == {"a": 3, "b": 1}
    first.end()
    office.settle()
    assert office.has == {"a": 2, "b": 2}
    assert second.wants == 7


def test_places_even_out_among_any_number_of_batches(office):
    for batch_id in "abcd":
        office.batch(batch_id, 50)
    for _ in range(40):
        busiest = max(office.batches.values(), key=lambda batch: batch.has)
        busiest.end()
        office.settle()
        assert sum(office.has.values()) == 4
    assert office.has == dict.fromkeys("abcd", 1)


def test_who_has_more_waits_while_somebody_with_fewer_does(office):
    first, _ = office.batch("a", 9), office.batch("b", 9)
    first.end()
    assert not office.admission.may_start("a", first)


def test_nobody_starts_while_the_server_said_to_wait(office):
    office.rate_limiter.rate_limited(30.0)
    assert office.batch("a", 1).has == 0
    ((seconds, _),) = office.loop.later
    assert seconds == 30.0


def test_when_the_pause_ends_the_waiting_are_told():
    office = Office(None)
    office.rate_limiter.rate_limited(30.0)
    batches = [office.batch(batch_id, 2) for batch_id in "ab"]
    office.rate_limiter.wait = None
    office.loop.later[0][1]()
    assert [batch.told for batch in batches] == [[PlaceFree()], [PlaceFree()]]
    office.settle()
    assert office.has == {"a": 2, "b": 2}


def test_a_pause_that_was_prolonged_ends_later(office):
    office.rate_limiter.rate_limited(1.0)
    batch = office.batch("a", 1)
    office.rate_limiter.rate_limited(60.0)
    office.loop.later[0][1]()
    assert batch.told == []
    assert [seconds for seconds, _ in office.loop.later] == [1.0, 60.0]
    assert office.rate_limiter.wait.until > time.monotonic()


def test_a_batch_that_leaves_gives_its_places_back(office):
    office.batch("a", 4)
    waiting = office.batch("b", 4)
    office.admission.leave("a")
    del office.batches["a"]
    office.settle()
    assert waiting.has == 4


def test_a_batch_that_left_is_told_nothing(office):
    first, second = office.batch("a", 9), office.batch("b", 9)
    office.admission.leave("b")
    first.end()
    office.loop.run()
    assert second.told == []


def test_a_place_that_is_not_wanted_any_more_goes_to_another(office):
    first, second, third = (office.batch(batch_id, 4) for batch_id in "abc")
    second.wants = 0
    first.end()
    office.settle()
    assert (second.has, third.has) == (0, 1)


def test_creates_keep_to_the_limit_of_requests_a_second(monkeypatch):
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    office = Office(None, requests_per_second=2)
    batch = office.batch("a", 3)
    office.settle()
    assert batch.has == 1
    ((seconds, offer),) = office.loop.later
    assert seconds == 0.5
    office.rate_limiter.book()  # somebody looks at a video in between
    now += seconds
    offer()
    office.settle()
    assert batch.has == 2
    assert office.loop.later[-1][0] == 1.0


# --- intents on their way


def begin(office, batch_id, count):
    """Ask for places as a supervisor does, and record an intent for each that is given."""
    begun = []
    while len(begun) < count and office.admission.may_start(batch_id, office.batches.get(batch_id) or Supervisor(office, batch_id, 0)):  # fmt: skip
        begun.append(f"{batch_id}-{len(begun)}")
        office.admission.starting(batch_id, begun[-1])
    return begun


def test_no_more_intents_are_on_their_way_than_can_leave_in_time():
    office = Office(None)
    begun = begin(office, "a", 1000)
    assert len(begun) == STARTS
    for intent in begun[:3] * 2:  # to be told twice does no harm
        office.admission.left("a", intent)
    assert len(begin(office, "a", 1000)) == 3


def test_while_a_server_is_away_more_intents_than_one_give_no_room():
    """They were on their way when that was noticed."""
    office = Office(None)
    for number in range(3):
        office.admission.starting("a", str(number))
    office.admission._rate_limiter._unreachable_since = 1.0
    assert not office.admission.may_start("b", Supervisor(office, "b", 1))


def test_a_batch_that_ends_gives_back_what_was_on_its_way():
    office = Office(None)
    begin(office, "a", 1000)
    assert not begin(office, "b", 1)
    office.admission.leave("a")
    assert len(begin(office, "b", 1000)) == STARTS


def test_who_waits_for_others_to_leave_is_told_when_they_have():
    office = Office(None)
    begun = begin(office, "a", 1000)
    waiting = office.batch("b", wants=1)
    assert waiting.has == 0
    office.admission.left("a", begun[0])
    office.admission.left("a", begun[1])
    office.settle()
    assert waiting.has == 1


def test_a_small_batch_does_not_wait_behind_the_intents_of_a_large_one():
    office = Office(None)
    office.admission.taken("large", 500)
    begun = begin(office, "large", 1000)
    small = office.batch("small", wants=2)
    office.admission.left("large", begun[0])
    assert not begin(office, "large", 1)
    office.settle()
    assert small.has == 2


# --- beginnings


class Batches:
    """Supervisors that begin as soon as they may."""

    def __init__(self):
        self.beginnings, self.begun = Beginnings(), []

    def ask(self, batch_id, *, alone=False):
        ask = partial(self.ask, batch_id, alone=alone)
        supervisor = SimpleNamespace(tell=lambda message: ask())
        if self.beginnings.may_begin(batch_id, supervisor, alone=alone):
            self.beginnings.begins(batch_id, alone=alone)
            self.begun.append(batch_id)


def test_a_batch_without_deaths_waits_for_no_other():
    batches = Batches()
    batches.ask("a")
    batches.ask("b")
    assert batches.begun == ["a", "b"]


def test_a_batch_with_deaths_is_begun_when_all_others_have_recorded_something():
    batches = Batches()
    for batch_id in ("a", "b"):
        batches.ask(batch_id)
    batches.ask("suspect", alone=True)
    batches.beginnings.over("a")
    assert batches.begun == ["a", "b"]
    batches.beginnings.over("b")
    assert batches.begun == ["a", "b", "suspect"]


def test_nothing_else_is_begun_beside_it():
    batches = Batches()
    for batch_id in ("first suspect", "second suspect"):
        batches.ask(batch_id, alone=True)
    batches.ask("a")
    assert batches.begun == ["first suspect"]
    batches.beginnings.over("first suspect")
    assert batches.begun == ["first suspect", "second suspect"]
    batches.beginnings.over("second suspect")
    assert batches.begun == ["first suspect", "second suspect", "a"]


def test_batches_that_keep_coming_do_not_put_it_off():
    batches = Batches()
    batches.ask("a")
    batches.ask("suspect", alone=True)
    batches.ask("b")
    batches.beginnings.over("a")
    assert batches.begun == ["a", "suspect"]


def test_a_batch_that_is_left_keeps_nobody_waiting():
    office = Office(limit=None)
    batches = Batches()
    batches.beginnings = office.admission.beginnings
    batches.ask("suspect", alone=True)
    batches.ask("a")
    office.admission.leave("suspect")
    assert batches.begun == ["suspect", "a"]
    office.admission.leave("a")
    assert not office.admission.beginnings._waiting
