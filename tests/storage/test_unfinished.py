"""What has not ended, counted: by status, with ages, and among everything that has."""

import pytest

from storage.states import BatchStatus, JobStatus, SubmissionState
from storage.unfinished import count_unfinished
from tests.builders import a_batch, a_job, an_event, an_intent, put


@pytest.fixture
def now(storage):
    return storage.database.now()


@pytest.fixture
def do(storage):
    def run(method, *given, **named):
        with storage.database.begin():
            return method(*given, **named)

    return run


def test_nothing_is_all_zero(storage):
    found = count_unfinished(storage.database)
    assert found.jobs == {"pending": 0, "submitting": 0, "generating": 0, "downloading": 0}
    assert found.batches == {"pending": 0, "processing": 0}
    assert (found.oldest_pending, found.unknown_submissions, found.owed_deletes) == (0.0, 0, 0)
    assert (found.outbox_events, found.outbox_lag) == (0, 0.0)


def test_jobs_and_batches_are_counted_until_they_end(storage, now):
    put(storage, a_batch("waits", total=2, created_at=now), [a_job(n, "waits", created_at=now - 100) for n in (1, 2)])
    jobs = [
        a_job(1, "runs", status=JobStatus.GENERATING),
        a_job(2, "runs", status=JobStatus.COMPLETED),
        a_job(3, "runs", status=JobStatus.PENDING, created_at=now - 50),
    ]
    put(storage, a_batch("runs", status=BatchStatus.PROCESSING, total=3), jobs)
    put(storage, a_batch("ended", status=BatchStatus.FAILED), [a_job(1, "ended", status=JobStatus.FAILED)])
    found = count_unfinished(storage.database)
    assert found.jobs == {"pending": 3, "submitting": 0, "generating": 1, "downloading": 0}
    assert found.batches == {"pending": 1, "processing": 1}
    assert 100 <= found.oldest_pending < 130


def test_an_outcome_is_unknown_until_it_is_resolved(storage, do):
    do(storage.submissions.intend, [an_intent("a", a_job(1)), an_intent("b", a_job(2)), an_intent("c", a_job(3))])
    do(storage.submissions.unanswered, "a", "no answer", timed_out=True)
    do(storage.submissions.unanswered, "b", "no answer", timed_out=False)
    assert count_unfinished(storage.database).unknown_submissions == 2
    do(storage.submissions.bind, "a", "video_1", adopted=True)
    do(storage.submissions.settle, "b", SubmissionState.ABSENT)
    assert count_unfinished(storage.database).unknown_submissions == 0


def test_deletes_are_owed_until_they_are_done(storage, do):
    put(storage, a_batch(status="cancelled"), [a_job(status=JobStatus.CANCELLED)])
    do(storage.submissions.intend, [an_intent()])
    do(storage.submissions.bind, "intent-1", "video_1")
    do(storage.deletes.owe, storage.submissions.of_batch("nature"))
    assert count_unfinished(storage.database).owed_deletes == 1
    do(storage.deletes.withdraw, ["intent-1"])
    assert count_unfinished(storage.database).owed_deletes == 0


def test_the_outbox_holds_what_is_not_confirmed(storage, do, now):
    def has(batch_id, events, **columns):
        put(storage, a_batch(batch_id, sequence=events, **columns))
        do(storage.journal.append, [an_event(n, batch_id, created_at=now - 10 * n) for n in range(1, events + 1)])

    has("open", 3)
    assert count_unfinished(storage.database).outbox_events == 0  # nothing was ever published from here
    do(storage.publications.begin, backlog=True)
    has("ended", 4, status=BatchStatus.COMPLETED, completed_at=now - 9999)
    found = count_unfinished(storage.database)
    assert found.outbox_events == 3 + 4
    assert 9 < found.outbox_lag < 40
    do(storage.publications.mark, {"open": 3, "ended": 2})
    found = count_unfinished(storage.database)
    assert found.outbox_events == 2
    assert 29 < found.outbox_lag < 60
    do(storage.publications.mark, {"ended": 4})
    assert count_unfinished(storage.database).outbox_events == 0


def test_what_a_deleted_batch_has_left_to_publish_counts(storage, do, now):
    do(storage.publications.begin, backlog=False)
    do(storage.journal.append, [an_event(n, "gone", created_at=now - 5) for n in (1, 2)])
    do(storage.publications.delete, {"gone": 2})
    assert count_unfinished(storage.database).outbox_events == 2


def test_batches_that_ended_long_ago_are_found_behind_a_page_of_others(storage, do, now):
    do(storage.publications.begin, backlog=False)
    for number in range(250):
        name = f"batch-{number:03d}"
        put(storage, a_batch(name, status=BatchStatus.COMPLETED, completed_at=now - number, sequence=1))
        do(storage.journal.append, [an_event(1, name, created_at=now - number)])
    assert count_unfinished(storage.database).outbox_events == 250
    do(storage.publications.mark, {f"batch-{number:03d}": 1 for number in range(50)})
    assert count_unfinished(storage.database).outbox_events == 200


@pytest.mark.parametrize(("read", "index"), [("_JOBS", "jobs_unended"), ("_UNKNOWN", "submissions_open")])
def test_what_has_not_ended_is_counted_by_its_index(storage, read, index):
    """Among a million that have ended, reading each would take seconds."""
    from storage import unfinished

    explain = "EXPLAIN" if storage.database.postgresql else "EXPLAIN QUERY PLAN"
    if storage.database.postgresql:
        storage.database.execute("SET enable_seqscan=off")  # an empty table is read whole
    plan = " ".join(str(row) for row in storage.database.execute(f"{explain} {getattr(unfinished, read)}").fetchall())
    assert index in plan
