"""What is published when: order, confirms, refusals, and what others left lying."""

from __future__ import annotations

import time
from concurrent.futures import Future
from types import SimpleNamespace

import pytest

from actors.rabbitmq import publisher as module
from actors.rabbitmq.connection import State
from actors.rabbitmq.publisher import EventPublisher
from actors.rabbitmq.refusals import ConnectionGone, Nacked
from storage.database import Database
from storage.storage import Storage
from tests.builders import NOON, a_batch, an_event, put


class Line:
    """Stands for a connection: calls wait until a test lets them happen, and messages until it settles them."""

    def __init__(self):
        self.state, self.started = State.CONNECTING, False
        self.on_open, self.on_lost = [], []
        self.calls, self.later, self.sent, self.flying = [], [], [], []

    @property
    def takes_messages(self):
        return self.state in (State.CONNECTING, State.OPEN)

    def start(self):
        self.started = True

    def call(self, function):
        self.calls.append(function)

    def call_later(self, seconds, function):
        self.later.append((seconds, function))

    def send(self, exchange, key, body, properties, settled):
        self.sent.append((properties.message_id, key, exchange))
        self.flying.append(settled)

    def flush(self):
        pass

    # --- what a test does

    def open(self):
        self.state = State.OPEN
        for tell in self.on_open:
            tell()
        self.run()

    def lose(self):
        self.state = State.AWAY
        for tell in self.on_lost:
            tell()
        flying, self.flying = self.flying, []
        for settled in flying:
            settled(ConnectionGone("lost"))

    def run(self):
        while self.calls:
            self.calls.pop(0)()

    def wait(self, longest=0.5):
        """Let time pass: what shall happen within it."""
        due = [function for seconds, function in self.later if seconds <= longest]
        self.later = [each for each in self.later if each[0] > longest]
        for function in due:
            function()
        self.run()

    def confirm(self, count=None, error=None):
        count = len(self.flying) if count is None else count
        settled, self.flying = self.flying[:count], self.flying[count:]
        for each in settled:
            each(error)
        self.wait()


class Recorder:
    """Answers at once, as if it were another thread."""

    def __init__(self, database):
        self._database, self.error = database, None

    def write(self, run):
        return self._answer(run, self._database.begin)

    def read(self, run):
        return self._answer(run, self._database.connection)

    def _answer(self, run, context):
        future = Future()
        try:
            if self.error:
                raise self.error
            with context():
                future.set_result(run())
        except Exception as error:
            future.set_exception(error)
        return future


@pytest.fixture
def office(tmp_path):
    database = Database(f"sqlite:///{tmp_path}/test.db")
    database.open()
    with database.connection():
        line, recorder, storage = Line(), Recorder(database), Storage(database)
        with database.begin():
            storage.publications.begin(backlog=False)
        yield SimpleNamespace(
            line=line, recorder=recorder, storage=storage, publisher=EventPublisher(line, storage, recorder)
        )
    database.close()


def record(office, batch_id, *sequences):
    """Record events of a batch, as its owner does."""
    with office.storage.database.begin():
        if office.storage.batches.get(batch_id) is None:
            put(office.storage, a_batch(batch_id, total=0), [])
        office.storage.batches.update(batch_id, sequence=sequences[-1], updated_at=NOON)
        office.storage.journal.append([an_event(sequence, batch_id) for sequence in sequences])
    office.line.run()


def ids(office):
    return [message_id.removesuffix("").replace(":000000000", ":") for message_id, _, _ in office.line.sent]


def published(office, batch_id):
    return office.storage.publications.next_of({batch_id: -1}, 1)[0].published


def test_the_first_event_connects(office):
    assert not office.line.started
    record(office, "a", 1)
    assert office.line.started
    office.line.open()
    assert ids(office) == ["a:1"]


def test_what_is_recorded_is_published_at_once_and_marked_when_it_is_confirmed(office):
    office.line.open()
    record(office, "a", 1, 2)
    record(office, "a", 3)
    assert ids(office) == ["a:1", "a:2", "a:3"]
    assert office.line.sent[0] == ("a:0000000001", "batch.created.a", "sora.batch.events")
    assert published(office, "a") == 0
    office.line.confirm(2)
    assert published(office, "a") == 2
    office.line.confirm()
    assert published(office, "a") == 3


def test_confirms_in_another_order_mark_only_what_is_whole(office):
    office.line.open()
    record(office, "a", 1, 2, 3)
    first, second, third = office.line.flying
    office.line.flying = []
    third(None)
    second(None)
    office.line.wait()
    assert published(office, "a") == 0
    first(None)
    office.line.wait()
    assert published(office, "a") == 3


def test_a_lost_connection_begins_again_behind_the_watermark(office):
    office.line.open()
    record(office, "a", 1, 2, 3)
    office.line.confirm(1)
    office.line.lose()
    record(office, "a", 4)
    office.line.sent.clear()
    office.line.open()
    assert ids(office) == ["a:2", "a:3", "a:4"]
    office.line.confirm()
    assert published(office, "a") == 4


def test_what_another_process_left_lying_is_published_in_order(office, monkeypatch):
    office.line.open()
    office.storage.journal.listener = None  # recorded elsewhere
    record(office, "a", 1, 2, 3)
    monkeypatch.setattr(office.storage.database, "time", lambda: NOON + 0.5)
    office.line.wait(longest=1.0)
    assert ids(office) == []
    monkeypatch.setattr(office.storage.database, "time", lambda: NOON + 1.5)
    office.line.wait(longest=1.0)
    assert ids(office) == ["a:1", "a:2", "a:3"]
    office.line.wait(longest=1.0)
    assert len(ids(office)) == 3


def test_a_batch_that_others_have_begun_is_gone_on_with_behind_their_watermark(office):
    office.line.open()
    listener, office.storage.journal.listener = office.storage.journal.listener, None
    record(office, "a", 1, 2)
    with office.storage.database.begin():
        office.storage.publications.mark({"a": 1})
    office.storage.journal.listener = listener
    record(office, "a", 3)
    assert ids(office) == ["a:2", "a:3"]


def test_a_batch_that_was_taken_over_meanwhile_is_not_told_twice(office):
    office.line.open()
    record(office, "a", 1)
    office.line.confirm()
    listener, office.storage.journal.listener = office.storage.journal.listener, None
    record(office, "a", 2, 3)
    with office.storage.database.begin():
        office.storage.publications.mark({"a": 3})
    office.storage.journal.listener = listener
    record(office, "a", 4)
    assert ids(office) == ["a:1", "a:4"]


def test_a_refusal_sends_that_batch_alone_back(office):
    office.line.open()
    record(office, "a", 1, 2, 3)
    record(office, "b", 1)
    office.line.confirm(1)
    office.line.sent.clear()
    office.line.confirm(1, Nacked("full"))
    record(office, "a", 4)
    record(office, "b", 2)
    office.line.confirm()
    assert ids(office) == ["b:2"]
    assert (published(office, "a"), published(office, "b")) == (1, 2)
    office.line.wait(longest=1.0)
    assert ids(office) == ["b:2", "a:2", "a:3", "a:4"]
    office.line.confirm()
    assert published(office, "a") == 4


def test_a_queue_that_always_refuses_stops_nobody(office):
    office.line.open()
    record(office, "a", 1, 2)
    for _ in range(module._REFUSALS):
        office.line.confirm(error=Nacked("full"))
        assert published(office, "a") == 0
        office.line.wait(longest=100.0)
    office.line.confirm(error=Nacked("full"))
    assert published(office, "a") == 2
    assert [seconds for seconds, _ in office.line.later if seconds > 1] == []


def test_only_so_many_are_on_their_way_and_the_rest_follow(office, monkeypatch):
    monkeypatch.setattr(module, "UNCONFIRMED", 4)
    office.line.open()
    record(office, "a", *range(1, 8))
    record(office, "b", 1)
    assert ids(office) == ["a:1", "a:2", "a:3", "a:4"]
    office.line.confirm()
    while office.line.flying:
        office.line.confirm()
    assert [each for each in ids(office) if each[0] == "a"] == [f"a:{number}" for number in range(1, 8)]
    assert (published(office, "a"), published(office, "b")) == (7, 1)


def test_a_database_that_fails_is_asked_again(office, caplog):
    caplog.set_level("CRITICAL")
    office.line.open()
    record(office, "a", 1, 2)
    office.recorder.error = RuntimeError("a bug of ours")
    office.line.confirm()
    assert published(office, "a") == 0
    office.recorder.error = None
    office.line.wait(longest=1.0)
    office.line.confirm()
    assert published(office, "a") == 2


def test_events_that_were_pruned_are_no_hindrance(office):
    office.line.open()
    office.storage.journal.listener = None
    record(office, "a", 1, 2, 5)
    with office.storage.database.begin():
        office.storage.database.execute("DELETE FROM journal WHERE sequence < 5")
    office.line.wait(longest=1.0)
    assert ids(office) == ["a:5"]
    office.line.confirm()
    assert published(office, "a") == 5


def test_cursors_that_are_done_are_forgotten(office, monkeypatch):
    monkeypatch.setattr(module, "_REMEMBERED", 2)
    office.line.open()
    for batch_id in "abcd":
        record(office, batch_id, 1)
        office.line.confirm()
    assert list(office.publisher._cursors) == ["c", "d"]
    record(office, "a", 2)
    assert ids(office)[-1] == "a:2"


def seconds_to_close(office, seconds):
    before = time.monotonic()
    office.publisher.close(seconds)
    return time.monotonic() - before


@pytest.mark.parametrize("confirmed", [False, True])
def test_closing_waits_for_what_is_unmarked(office, confirmed):
    office.publisher.start()
    office.line.open()
    record(office, "a", 1)
    office.line.call = lambda function: function()
    if confirmed:
        office.line.confirm()
        assert seconds_to_close(office, 30.0) < 10
    else:
        assert seconds_to_close(office, 0.2) >= 0.2


@pytest.mark.parametrize("used", [False, True])
def test_closing_waits_for_nothing_where_there_is_no_broker(office, used):
    if used:
        record(office, "a", 1)
        office.line.state = State.AWAY
    assert seconds_to_close(office, 30.0) < 10
    assert office.storage.journal.listener is None
