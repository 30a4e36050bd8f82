"""Inbox: a command is entered once, with its answer, and forgotten after a time."""

import threading

import pytest

from storage.database import Database
from storage.storage import Storage
from tests.builders import NOON


@pytest.fixture
def inbox(storage: Storage):
    return storage.inbox


def test_a_command_is_taken_once(storage, inbox):
    with storage.database.begin():
        assert inbox.take("/shop", "1", "digest", NOON) is None
        inbox.answer("/shop", "1", "accepted")
    with storage.database.begin():
        before = inbox.take("/shop", "1", "other", NOON + 1)
    assert before is not None
    assert (before.digest, before.answer, before.received_at) == ("digest", "accepted", NOON)


def test_the_same_id_of_another_source_is_another_command(storage, inbox):
    with storage.database.begin():
        assert inbox.take("/shop", "1", "digest", NOON) is None
        assert inbox.take("/news", "1", "digest", NOON) is None
        assert inbox.take("/shop", "2", "digest", NOON) is None


def test_a_command_whose_transaction_failed_was_not_taken(storage, inbox):
    def take() -> object:
        return inbox.take("/shop", "1", "digest", NOON)

    def take_and_fail() -> None:
        with storage.database.begin():
            assert take() is None
            raise LookupError

    with pytest.raises(LookupError):
        take_and_fail()
    with storage.database.begin():
        assert take() is None


def test_who_takes_the_same_command_waits_for_its_answer(database: Database):
    storage, answers, entered = Storage(database), [], threading.Event()

    def take_too() -> None:
        with database.connection():
            entered.set()
            with database.begin():
                answers.append(storage.inbox.take("/shop", "1", "digest", NOON))

    other = threading.Thread(target=take_too)
    with database.connection(), database.begin():
        assert storage.inbox.take("/shop", "1", "digest", NOON) is None
        other.start()
        entered.wait(10)
        storage.inbox.answer("/shop", "1", "accepted")
    other.join(10)
    assert [record.answer for record in answers] == ["accepted"]


def test_old_commands_are_forgotten(storage, inbox):
    with storage.database.begin():
        for number in range(4):
            inbox.take("/shop", str(number), "digest", NOON + number)
        assert [inbox.prune(NOON + 3, 2), inbox.prune(NOON + 3, 2)] == [2, 1]
        assert inbox.take("/shop", "0", "another", NOON + 9) is None
        assert inbox.take("/shop", "3", "another", NOON + 9) is not None
