"""Rows that can't be read: they are noticed, and become readable. On SQLite, which keeps anything in any column."""

import pytest

from storage.database import Database
from storage.rows import Unreadable, check, mend
from storage.states import SubmissionState
from storage.storage import Storage
from tests.builders import a_batch, an_intent, some_jobs


@pytest.fixture
def storage(tmp_path):
    database = Database(f"sqlite:///{tmp_path}/b.db")
    database.open()
    storage = Storage(database)
    with database.connection(), database.begin():
        storage.batches.add(a_batch(total=2))
        storage.jobs.add(some_jobs(2))
        storage.submissions.intend([an_intent(timed_out=True)])
    yield storage
    database.close()


def test_what_can_be_read_is_left_alone(storage):
    with storage.database.connection(), storage.database.begin():
        before = storage.batches.get("nature"), storage.jobs.of_batch("nature")
        assert mend(storage.database, "nature") == []
        assert (storage.batches.get("nature"), storage.jobs.of_batch("nature")) == before
        for record in (before[0], *before[1], *storage.submissions.of_batch("nature")):
            check(record)


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("UPDATE batches SET metadata='{\"a'", "batches.metadata of nature: '{\"a'"),
        ("UPDATE batches SET metadata='[1]'", "batches.metadata of nature: '[1]'"),
        ("UPDATE batches SET total='two'", "batches.total of nature: 'two'"),
        ("UPDATE batches SET timeout='long'", "batches.timeout of nature: 'long'"),
        ("UPDATE batches SET status='dancing'", "batches.status of nature: 'dancing'"),
        ("UPDATE jobs SET prompt=x'00ff' WHERE position=2", r"jobs.prompt of nature-02: b'\x00\xff'"),
        ("UPDATE jobs SET video='{' WHERE position=1", "jobs.video of nature-01: '{'"),
        ("UPDATE submissions SET state='dancing'", "submissions.state of intent-1: 'dancing'"),
    ],
)
def test_what_can_not_be_read_is_replaced_and_told(storage, sql, told):
    with storage.database.connection(), storage.database.begin():
        storage.database.execute(sql)
        assert mend(storage.database, "nature") == [told]
        assert mend(storage.database, "nature") == []
        for record in (storage.batches.get("nature"), *storage.jobs.of_batch("nature")):
            check(record)
        assert all(entry.state in set(SubmissionState) for entry in storage.submissions.of_batch("nature"))


def test_a_record_of_other_types_is_noticed():
    with pytest.raises(Unreadable, match="concurrency is 'few'"):
        check(a_batch(concurrency="few"))
