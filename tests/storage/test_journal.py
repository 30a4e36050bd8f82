"""The journal: events in a sequence, the bytes as they were."""

from contextlib import closing

import peewee
import pytest

from storage.database import Database
from storage.states import BatchStatus
from storage.storage import Storage
from tests.builders import NOON, a_batch, an_event


def test_events_come_back_in_order_from_a_number_on(storage):
    storage.journal.append([an_event(2), an_event(1), an_event(10), an_event(1, "other")])
    assert [event.sequence for event in storage.journal.read("nature")] == [1, 2, 10]
    assert [event.sequence for event in storage.journal.read("nature", 2)] == [2, 10]
    assert [event.sequence for event in storage.journal.read("nature", limit=1)] == [1]


def test_an_event_comes_back_byte_for_byte(storage):
    event = an_event(body='{"ü":1,  "b" :2}', created_at=NOON + 0.25)
    storage.journal.append([event])
    assert storage.journal.read("nature") == [event]


def test_a_number_is_taken_once(storage):
    storage.journal.append([an_event(1)])
    with pytest.raises(peewee.IntegrityError):
        storage.journal.append([an_event(1)])


def test_the_last_number_is_zero_before_the_first(storage):
    assert storage.journal.last_sequence("nature") == 0
    storage.journal.append([an_event(1), an_event(2), an_event(9, "other")])
    assert storage.journal.last_sequence("nature") == 2


def test_pruning_removes_what_ended_long_ago_and_what_was_deleted(storage):
    storage.batches.add(a_batch("old", status=BatchStatus.FAILED, completed_at=NOON + 1))
    storage.batches.add(a_batch("young", status=BatchStatus.FAILED, completed_at=NOON + 9))
    storage.batches.add(a_batch("open"))
    storage.journal.append([an_event(1, batch_id) for batch_id in ("old", "young", "open", "deleted")])
    storage.journal.append([an_event(2, "deleted", created_at=NOON + 9)])
    old = storage.journal.old(NOON + 5, ("", 0), 9)
    assert old == [("deleted", 1), ("old", 1)]
    assert storage.journal.old(NOON + 5, ("deleted", 1), 9) == storage.journal.old(NOON + 5, ("e", 0), 1) == old[1:]
    assert storage.journal.prune([*old, ("young", 1), ("open", 1)], NOON + 5) == 2
    left = {batch_id: len(storage.journal.read(batch_id)) for batch_id in ("old", "young", "open", "deleted")}
    assert left == {"old": 0, "young": 1, "open": 1, "deleted": 1}


def test_the_first_number_is_none_where_all_was_pruned(storage):
    assert storage.journal.first_sequence("nature") is None
    storage.journal.append([an_event(3), an_event(4)])
    assert storage.journal.first_sequence("nature") == 3


def test_what_is_recorded_after_an_end_is_found_from_a_position_on(storage):
    late = storage.journal.late
    storage.journal.append([an_event(3, type="batch.updated"), an_event(4, type="job.settled")])
    storage.journal.append([an_event(7, "other", type="batch.deleted"), an_event(1, "new", type="batch.created")])
    assert late.since(0) == {"nature": (3, 4), "other": (7, 7)}
    position = late.position()
    storage.journal.append([an_event(5, type="batch.retried")])
    assert late.since(position)["nature"][1] == 5
    storage.journal.append([an_event(6, type="batch.updated", created_at=NOON + 3601)])
    assert late.since(0) == {"nature": (6, 6)}


def test_what_commits_after_what_began_later_is_found_too(database_url):
    with closing(Database(database_url)) as first, closing(Database(database_url)) as second:
        first.open()
        second.open()
        if not first.postgresql:
            return  # one transaction writes at a time
        with first.connection(), second.connection():
            one, other = Storage(first).journal, Storage(second).journal
            with first.begin():
                one.append([an_event(2, "early", type="batch.updated")])
                with second.begin():
                    other.append([an_event(2, "late", type="batch.updated")])
                position = other.late.position()
                assert other.late.since(0) == {"late": (2, 2)}
            assert "early" in other.late.since(position)
