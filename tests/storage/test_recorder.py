"""The recorder: commits in groups, spoils no neighbour, and waits out a database that is away."""

import sqlite3
import threading

import peewee
import pytest

from storage import database as database_module
from storage.database import Database
from storage.failures import DatabaseError
from storage.recorder import Recorder
from tests.builders import an_event
from tests.servers.postgresql import PostgreSQL

PATIENCE = 20


@pytest.fixture
def recorder(database):
    recorder = Recorder(database)
    yield recorder
    recorder.close()


@pytest.fixture
def add(storage):
    """A write that stores an event, or fails where it is there already."""
    return lambda batch_id: lambda: storage.journal.append([an_event(1, batch_id)])


@pytest.fixture
def stored(database):
    """Whose events a second connection sees."""

    def stored():
        with database.connection():
            return {row[0] for row in database.execute("SELECT batch_id FROM journal").fetchall()}

    return stored


@pytest.fixture
def commits(database, mocker):
    """How many transactions have ended well."""
    ended = []
    begin = database.begin

    def counted(**how):
        ended.append(1)
        return begin(**how)

    mocker.patch.object(database, "begin", counted)
    return ended


class Gate:
    """Holds the recorder inside its transaction until it is opened."""

    def __init__(self, recorder):
        self._open, reached = threading.Event(), threading.Event()
        self._held = recorder.read(lambda: (reached.set(), self._open.wait(PATIENCE)))
        assert reached.wait(PATIENCE)

    def open(self):
        self._open.set()
        self._held.result(PATIENCE)


def test_a_write_is_answered_when_it_can_be_seen(recorder, add, stored):
    assert recorder.write(lambda: add("a")() or 7).result(PATIENCE) == 7
    assert stored() == {"a"}


def test_what_arrives_together_is_committed_together(recorder, add, stored, commits):
    gate = Gate(recorder)
    answers = [recorder.write(add(f"b{number}")) for number in range(200)]
    gate.open()
    for answer in answers:
        answer.result(PATIENCE)
    assert len(stored()) == 200
    assert len(commits) == 1


def test_a_write_that_fails_spoils_no_neighbour(recorder, add, stored):
    gate = Gate(recorder)
    answers = [recorder.write(add(batch_id)) for batch_id in ("a", "b", "a", "c")]
    gate.open()
    assert [type(answer.exception(PATIENCE)) for answer in answers] == [
        type(None), type(None), peewee.IntegrityError, type(None),
    ]  # fmt: skip
    assert stored() == {"a", "b", "c"}


def test_a_bug_in_a_write_is_answered_and_leaves_nothing(recorder, add, stored):
    def buggy():
        add("half")()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        recorder.write(buggy).result(PATIENCE)
    assert recorder.write(add("next")).exception(PATIENCE) is None
    assert stored() == {"next"}


def test_a_read_sees_what_was_handed_over_before(recorder, add, storage):
    gate = Gate(recorder)
    recorder.write(add("a"))
    found = recorder.read(lambda: storage.journal.last_sequence("a"))
    gate.open()
    assert found.result(PATIENCE) == 1


def test_a_read_that_fails_is_answered(recorder):
    with pytest.raises(ZeroDivisionError):
        recorder.read(lambda: 1 // 0).result(PATIENCE)


def test_an_answer_that_nobody_waits_for_any_more_is_not_written(recorder, add, stored):
    gate = Gate(recorder)
    forgotten, wanted = recorder.write(add("forgotten")), recorder.write(add("wanted"))
    assert forgotten.cancel()
    gate.open()
    wanted.result(PATIENCE)
    assert stored() == {"wanted"}


def test_a_group_of_cancelled_answers_is_no_end(recorder, add, stored):
    gate = Gate(recorder)
    assert recorder.write(add("forgotten")).cancel()
    gate.open()
    recorder.write(add("next")).result(PATIENCE)
    assert stored() == {"next"}


def test_closing_works_off_what_was_handed_over(database, add, stored):
    recorder = Recorder(database)
    gate = Gate(recorder)
    answers = [recorder.write(add(f"b{number}")) for number in range(600)]
    gate.open()
    recorder.close()
    assert all(answer.exception(0) is None for answer in answers)
    assert len(stored()) == 600


def test_a_closed_recorder_says_so(recorder):
    recorder.close()
    recorder.close()
    with pytest.raises(DatabaseError, match="is closed"):
        recorder.write(lambda: None).result(PATIENCE)


# --- a database that is away


@pytest.fixture
def locked(tmp_path, monkeypatch):
    """A recorder on SQLite that is held by somebody else: (recorder, the other's connection, its retries)."""
    monkeypatch.setattr(database_module, "BUSY_SECONDS", 0.02)
    database = Database(f"sqlite:///{tmp_path}/test.db")
    database.open()
    recorder = Recorder(database)
    other = sqlite3.connect(tmp_path / "test.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    yield recorder, other, database
    other.close()
    recorder.close()
    database.close()


@pytest.fixture
def retried(mocker):
    """Set when the recorder has found the database away."""
    event = threading.Event()
    mocker.patch("storage.recorder.logger.warning", side_effect=lambda *_, **__: event.set())
    return event


def insert(database, key="a"):
    return lambda: database.execute("INSERT INTO input_references VALUES (?, 'n', 't', 'x')", (key,)).rowcount


def test_a_write_waits_while_another_program_holds_the_lock(locked, retried):
    recorder, other, database = locked
    answer = recorder.write(insert(database))
    assert retried.wait(PATIENCE)
    assert not answer.done()
    other.execute("ROLLBACK")
    assert answer.result(PATIENCE) == 1


def test_what_arrives_meanwhile_is_written_too(locked, retried):
    recorder, other, database = locked
    first = recorder.write(insert(database, "a"))
    assert retried.wait(PATIENCE)
    second, third = recorder.write(insert(database, "b")), recorder.write(insert(database, "a"))
    other.execute("ROLLBACK")
    assert (first.result(PATIENCE), second.result(PATIENCE)) == (1, 1)
    assert isinstance(third.exception(PATIENCE), peewee.IntegrityError)


def test_a_write_is_given_up_when_nobody_waits_for_it_any_more(locked, retried):
    recorder, other, database = locked
    impatient = recorder.write(insert(database, "a"), patience=0.0)
    patient = recorder.write(insert(database, "b"))
    with pytest.raises(TimeoutError):
        impatient.result(PATIENCE)
    other.execute("ROLLBACK")
    assert patient.result(PATIENCE) == 1
    assert other.execute("SELECT digest FROM input_references").fetchall() == [("b",)]


def test_while_it_is_away_the_recorder_says_why(locked, retried):
    recorder, other, database = locked
    answer = recorder.write(insert(database))
    assert retried.wait(PATIENCE)
    assert recorder.away.reason == (
        f"the database {database.place} can't be used: database is locked; "
        "another program has locked it; wait, or stop that program"
    )
    other.execute("ROLLBACK")
    assert answer.result(PATIENCE) == 1
    assert recorder.away is None


def test_a_write_waits_while_sqlite_is_full(tmp_path, retried):
    """SQLite rolls back by itself then, and what is held is the reason, not that there was nothing to roll back."""
    database = Database(f"sqlite:///{tmp_path}/test.db")
    database.open()
    recorder = Recorder(database)
    # Of this connection alone: the next try is made on another one.
    recorder.read(lambda: database.execute("PRAGMA max_page_count = 1")).result(PATIENCE)
    large = "INSERT INTO input_references VALUES ('a', 'n', 't', zeroblob(100000))"
    assert recorder.write(lambda: database.execute(large).rowcount).result(PATIENCE) == 1
    assert retried.is_set()
    recorder.close()
    database.close()


def test_closing_does_not_wait_for_a_database_that_stays_away(locked, retried):
    recorder, _, database = locked
    answer = recorder.write(insert(database))
    assert retried.wait(PATIENCE)
    recorder.close(timeout=0.2)
    assert isinstance(answer.exception(PATIENCE), peewee.OperationalError)


@pytest.mark.integration
def test_a_server_that_was_killed_and_started_again_gets_what_was_held(retried):
    with PostgreSQL() as server:
        database = Database(server.url(server.create_database()))
        database.open()
        recorder = Recorder(database)
        recorder.write(insert(database, "before")).result(PATIENCE)
        server.kill()
        answer = recorder.write(insert(database, "during"))
        assert retried.wait(PATIENCE)
        server.restart()
        assert answer.result(PATIENCE) == 1
        found = recorder.read(lambda: database.execute("SELECT count(*) FROM input_references").fetchone()[0])
        assert found.result(PATIENCE) == 2
        recorder.close()
        database.close()
