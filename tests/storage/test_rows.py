"""Rows become the records that they were, one at a time and many at once; and what is looked for is found by an index."""

import pytest

from storage.records import JobRecord
from storage.rows import Insert, Rows
from storage.states import JobStatus, SubmissionState
from tests.builders import NOON, a_batch, a_job, an_intent, put, some_jobs

TEXTS = ["a lake", "\"quoted\" 'twice' \\ and %s ? {} :x", "ü \U0001f600\n\t", "null", "[1]", ""]


@pytest.mark.parametrize("count", [1, 2, 501, 1201])
def test_as_many_as_there_are_come_back_as_they_were_stored(storage, count):
    jobs = [
        job._replace(
            prompt=TEXTS[job.position % len(TEXTS)], metadata={"text": TEXTS[job.position % len(TEXTS)], "n": 2**60},
            created_at=NOON + 0.1 + job.position / 3, error={"code": "x", "detail": None}, started_at=None,
        )
        for job in some_jobs(count)
    ]  # fmt: skip
    put(storage, a_batch(total=count), jobs)
    assert storage.jobs.of_batch("nature") == jobs
    changed = [job._replace(status=JobStatus.FAILED, error=None, progress=7) for job in jobs]
    storage.jobs.save(changed)
    assert storage.jobs.of_batch("nature") == changed


def test_nothing_is_inserted_by_nothing(storage):
    storage.jobs.add([])
    storage.submissions.intend([])
    assert storage.jobs.of_batch("nature") == []


def test_a_flag_is_read_as_one(storage):
    put(storage, a_batch(wanted=True))
    assert storage.batches.get("nature").wanted is True


def test_many_intents_get_the_databases_time_and_are_open(storage):
    intents = [an_intent(f"try-{job.position}", job, state=SubmissionState.BOUND) for job in some_jobs(3)]
    with storage.database.begin():
        storage.submissions.intend(intents)
    stored = storage.submissions.of_batch("nature")
    assert {entry.state for entry in stored} == {SubmissionState.INTENDED}
    assert all(abs(entry.intended_at - storage.database.now()) < 5 for entry in stored)


def test_the_first_of_no_rows_is_none(storage):
    assert Rows(storage.database, "jobs", JobRecord).first("WHERE id=?", ("unknown",)) is None


def test_a_row_that_is_there_is_left_alone_where_that_is_asked_for(storage):
    put(storage, a_batch())
    insert = Insert(storage.database, "jobs", JobRecord, "ON CONFLICT (id) DO NOTHING RETURNING id")
    assert insert.one(a_job(prompt="another")) == []
    assert storage.jobs.of_batch("nature") == [a_job()]


@pytest.mark.parametrize(
    ("read", "index"),
    [
        (lambda storage: storage.submissions.unresolved("http://server/v1", 0.0, ["x"]), "submissions_open"),
        (lambda storage: storage.submissions.fill_in(), "submissions_server"),
        (lambda storage: storage.submissions.made_any("http://server/v1"), "submissions_server"),
        (lambda storage: storage.submissions.holders("http://server/v1", ["v"]), "submissions_server"),
        (lambda storage: storage.submissions.holder("http://server/v1", "v"), "submissions_server"),
        (lambda storage: storage.submissions.live_of_batch("nature"), "submissions_batch"),
        (lambda storage: storage.batches.find(status=JobStatus.FAILED), "batches_status"),
        (lambda storage: storage.batches.standings(["nature"]), "autoindex_batches"),
        (lambda storage: storage.jobs.of_batch("nature", open_only=True), "jobs_position"),
    ],
    ids=["open tries", "older ones", "ever made", "held", "holder", "live", "by status", "standings", "jobs"],
)
def test_sqlite_finds_by_an_index_what_is_often_looked_for(storage, monkeypatch, read, index):
    """PostgreSQL decides by what is in its tables: `tests.benchmarks.status` shows what it does with a million."""
    if storage.database.postgresql:
        return
    asked = []
    execute = storage.database.peewee.execute_sql
    noted = lambda sql, parameters=None: (asked.append((sql, parameters)), execute(sql, parameters))[1]  # noqa: E731
    monkeypatch.setattr(storage.database.peewee, "execute_sql", noted)
    read(storage)
    sql, parameters = asked[-1]
    assert index in " ".join(row[3] for row in execute(f"EXPLAIN QUERY PLAN {sql}", parameters).fetchall())
