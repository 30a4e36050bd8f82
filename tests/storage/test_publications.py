"""How far journals have been published, for all processes of a database."""

from contextlib import suppress

import pytest

from storage.states import BatchStatus
from storage.storage import Storage
from tests.builders import NOON, a_batch, an_event, put

LATER = NOON + 100


def record(storage, batch_id, count, **columns):
    put(storage, a_batch(batch_id, sequence=count, total=0, **columns), [])
    storage.journal.append([an_event(sequence, batch_id) for sequence in range(1, count + 1)])


def behind(storage, *, recorded_before=LATER, ended_after=0.0):
    return storage.publications.behind(recorded_before=recorded_before, ended_after=ended_after)


@pytest.fixture
def storage(storage):
    """Writes and reads in one transaction of the test's own."""
    with storage.database.begin():
        yield storage


def test_what_was_recorded_before_the_first_publication_is_history(storage):
    record(storage, "old", 3)
    assert not storage.publications.begun()
    storage.publications.begin(backlog=False)
    assert storage.publications.begun()
    record(storage, "new", 2)
    assert behind(storage) == {"new": 2}
    storage.publications.begin(backlog=False)
    assert behind(storage) == {"new": 2}


def test_the_history_is_published_where_that_is_asked_for(storage):
    record(storage, "old", 3)
    storage.publications.begin(backlog=True)
    assert behind(storage) == {"old": 3}


def test_the_history_can_be_asked_for_later(storage):
    record(storage, "old", 3)
    storage.publications.begin(backlog=False)
    record(storage, "new", 2)
    storage.publications.mark({"new": 2})
    storage.publications.begin(backlog=True)
    assert behind(storage) == {"old": 3}


def test_a_batch_whose_journal_was_pruned_before_is_not_behind(storage):
    put(storage, a_batch("pruned", sequence=9, total=0), [])
    storage.publications.begin(backlog=False)
    assert behind(storage) == {}


def test_a_watermark_never_falls(storage):
    record(storage, "a", 5)
    storage.publications.mark({"a": 4})
    storage.publications.mark({"a": 2})
    assert storage.publications.next_of({"a": -1}, 10)[0].published == 4
    assert behind(storage) == {"a": 5}
    storage.publications.mark({"a": 5})
    assert behind(storage) == {}


def test_many_watermarks_are_marked_at_once(storage):
    storage.publications.mark({f"b{number}": number for number in range(1, 1203)})
    (found,) = storage.publications.next_of({"b1202": -1}, 1)
    assert found.published == 1202


def test_events_that_were_recorded_just_now_are_their_owners_matter(storage):
    record(storage, "a", 2, updated_at=NOON)
    assert behind(storage, recorded_before=NOON) == {}
    assert behind(storage, recorded_before=NOON + 1) == {"a": 2}


def test_of_the_ended_only_those_that_did_so_lately_are_looked_at(storage):
    record(storage, "a", 2, status=BatchStatus.COMPLETED, completed_at=NOON)
    assert behind(storage, ended_after=NOON + 1) == {}
    assert behind(storage, ended_after=NOON) == {"a": 2}


def test_a_deleted_batch_is_published_to_its_end(storage):
    record(storage, "a", 2, status=BatchStatus.COMPLETED, completed_at=NOON)
    storage.journal.append([an_event(3, "a")])
    storage.publications.delete({"a": 3})
    storage.batches.remove("a")
    assert behind(storage) == {"a": 3}
    storage.publications.mark({"a": 3})
    assert behind(storage) == {}


def test_the_next_events_come_in_pages_from_behind_what_was_sent(storage):
    record(storage, "a", 5)
    record(storage, "b", 1)
    storage.publications.mark({"a": 1})
    first, second = storage.publications.next_of({"a": -1, "b": 1}, 2)
    assert [event.sequence for event in first.events] == [2, 3]
    assert first.more
    assert (second.events, second.more) == ([], False)
    (rest,) = storage.publications.next_of({"a": 3}, 2)
    assert [event.sequence for event in rest.events] == [4, 5]
    assert not rest.more


def test_the_watermark_of_what_is_no_more_is_forgotten_with_its_journal(storage):
    storage.publications.begin(backlog=False)
    record(storage, "kept", 1)
    storage.publications.mark({"kept": 1, "gone": 7})
    assert storage.publications.orphans("", 9) == ["gone"]
    assert storage.publications.prune(["gone", "kept"]) == 1
    assert storage.publications.next_of({"gone": -1}, 1)[0].published == 0
    assert storage.publications.begun()


def test_a_listener_that_fails_undoes_nothing(database, caplog):
    caplog.set_level("CRITICAL")
    own = Storage(database)

    def fail(_):
        raise ZeroDivisionError

    own.journal.listener = fail
    with database.connection():
        with database.begin():
            own.journal.append([an_event(1, "a")])
        assert own.journal.last_sequence("a") == 1


def test_what_is_recorded_is_told_after_its_commit_and_only_then(database):
    own, told = Storage(database), []
    own.journal.listener = told.append
    with database.connection():
        with database.begin():
            own.journal.append([an_event(1, "a")])
            own.journal.append([an_event(1, "b")])
            assert told == []
        assert [event.batch_id for events in told for event in events] == ["a", "b"]
        told.clear()
        with suppress(ZeroDivisionError), database.begin():
            own.journal.append([an_event(2, "a")])
            raise ZeroDivisionError
        with database.begin():
            own.journal.append([])
        assert told == []
