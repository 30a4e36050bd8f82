"""Deletes: what is owed is sent by one at a time, stays owed until something ends it, and is taken back by a retry."""

import pytest

from storage.states import DeleteState, JobStatus, SubmissionState
from tests.builders import a_batch, a_job, an_intent, put

SERVER = "http://server/v1"


@pytest.fixture
def deletes(storage):
    return storage.deletes


@pytest.fixture
def do(storage):
    def run(method, *given, **named):
        with storage.database.begin():
            return method(*given, **named)

    return run


@pytest.fixture
def owed(storage, do, deletes):
    """The DELETE of a cancelled job's video."""
    put(storage, a_batch(status="cancelled"), [a_job(status=JobStatus.CANCELLED)])
    do(storage.submissions.intend, [an_intent()])
    do(storage.submissions.bind, "intent-1", "video_1")
    do(deletes.owe, storage.submissions.of_batch("nature"))
    return "intent-1"


def state(storage):
    ((delete, _),) = storage.deletes.of_batch("nature")
    return delete.state, delete.tries, delete.own_key


def test_what_is_owed_is_found_at_its_server(owed, deletes):
    ((delete, submission),) = deletes.open(SERVER)
    assert (delete.submission_id, submission.id, submission.remote_id) == (owed, owed, "video_1")
    assert (submission.server, submission.key_fingerprint) == (SERVER, "key")
    assert deletes.open("http://elsewhere/v1") == []


def test_it_is_claimed_once_until_its_sender_counts_as_dead(owed, deletes, do, storage):
    before = do(deletes.claim, owed, own_key=True, seconds=60.0)
    assert (before.state, before.tries) == (DeleteState.OWED, 0)
    assert state(storage) == (DeleteState.OUT, 1, True)
    assert do(deletes.claim, owed, own_key=True, seconds=60.0) is None
    do(storage.database.execute, "UPDATE deletes SET due_at=0")
    assert do(deletes.claim, owed, own_key=False, seconds=60.0).own_key is True
    assert state(storage) == (DeleteState.OUT, 2, True)


def test_one_that_was_not_sent_is_as_it_was(owed, deletes, do, storage):
    before = do(deletes.claim, owed, own_key=True, seconds=60.0)
    do(deletes.not_sent, before, 1.0, "not sent yet: refused")
    assert state(storage) == (DeleteState.OWED, 0, False)


def test_a_postponed_one_is_not_due_before_its_time(owed, deletes, do, storage):
    do(deletes.claim, owed, own_key=True, seconds=60.0)
    do(deletes.postpone, owed, 1, 60.0, "HTTP 503")
    assert state(storage) == (DeleteState.OWED, 1, True)
    assert do(deletes.claim, owed, own_key=True, seconds=60.0) is None
    ((delete, _),) = deletes.outstanding()
    assert delete.answer == "HTTP 503"


def test_what_another_sender_has_taken_over_is_not_postponed(owed, deletes, do, storage):
    do(deletes.claim, owed, own_key=True, seconds=0.0)
    do(deletes.claim, owed, own_key=True, seconds=60.0)
    do(deletes.postpone, owed, 1, 0.0, "late")
    assert state(storage) == (DeleteState.OUT, 2, True)


def test_a_day_after_its_first_try_it_is_given_up(owed, deletes, do, storage):
    do(deletes.claim, owed, own_key=True, seconds=60.0)
    do(storage.database.execute, "UPDATE deletes SET tried_at=tried_at-86401")
    do(deletes.postpone, owed, 1, 0.0, "HTTP 503")
    assert state(storage)[0] == DeleteState.GIVEN_UP
    assert deletes.open(SERVER) == []
    assert len(deletes.outstanding()) == 1
    do(deletes.owe, storage.submissions.of_batch("nature"))
    assert state(storage)[0] == DeleteState.OWED


def test_what_has_ended_is_not_owed_again(owed, deletes, do, storage):
    do(deletes.end, owed, DeleteState.DONE, "HTTP 405")
    do(deletes.owe, storage.submissions.of_batch("nature"))
    assert state(storage)[0] == DeleteState.DONE
    assert deletes.outstanding() == []


def test_a_retry_takes_back_what_is_owed_and_waits_for_what_is_out(owed, deletes, do, storage):
    do(deletes.claim, owed, own_key=True, seconds=60.0)
    assert 50 < do(deletes.withdraw, [owed]) <= 60
    do(deletes.postpone, owed, 1, 0.0, "HTTP 503")
    assert do(deletes.withdraw, [owed]) == 0.0
    assert state(storage)[0] == DeleteState.WITHDRAWN
    assert do(deletes.claim, owed, own_key=True, seconds=60.0) is None


def test_a_dead_sender_is_not_waited_for(owed, deletes, do, storage):
    do(deletes.claim, owed, own_key=True, seconds=-1.0)
    assert do(deletes.withdraw, [owed]) == 0.0
    assert state(storage)[0] == DeleteState.WITHDRAWN


@pytest.mark.parametrize(
    "change",
    ["UPDATE jobs SET status='generating'", "UPDATE submissions SET remote_id=NULL"],
    ids=["retried by a version before", "its id belongs to another video"],
)
def test_what_is_wanted_again_is_not_sent(change, owed, deletes, do, storage):
    do(storage.database.execute, change)
    assert do(deletes.claim, owed, own_key=True, seconds=60.0) is None
    assert state(storage)[0] == DeleteState.WITHDRAWN


def test_a_forgotten_batch_still_owes(owed, deletes, do, storage):
    do(storage.submissions.abandon, "nature", ["nature-01"])
    do(storage.batches.remove, "nature")
    assert do(deletes.claim, owed, own_key=True, seconds=60.0) is not None


def test_nothing_more_is_owed_to_a_server_that_removes_only_records(owed, deletes, do, storage):
    do(storage.servers.note_deletes_only_records, SERVER)
    do(deletes.end_all, SERVER, "not sent")
    assert state(storage)[0] == DeleteState.DONE
    put(storage, a_batch("other", status="cancelled"), [a_job(1, "other", status=JobStatus.CANCELLED)])
    do(storage.submissions.intend, [an_intent("intent-2", a_job(1, "other"))])
    do(storage.submissions.bind, "intent-2", "video_2")
    do(deletes.owe, storage.submissions.of_batch("other"))
    assert deletes.of_batch("other") == []


def test_the_jobs_whose_record_alone_went_are_known_until_they_are_paid_again(owed, deletes, do, storage):
    do(deletes.end, owed, DeleteState.RECORD_ONLY, "HTTP 200")
    assert deletes.record_gone("nature") == {"nature-01"}
    do(storage.submissions.abandon, "nature", ["nature-01"])
    assert storage.submissions.get(owed).state is SubmissionState.ABANDONED
    assert deletes.record_gone("nature") == set()


def test_whether_one_went_out_with_its_key_is_known(owed, deletes, do):
    do(deletes.claim, owed, own_key=False, seconds=0.0)
    assert not deletes.was_sent(owed)
    do(deletes.claim, owed, own_key=True, seconds=0.0)
    assert deletes.was_sent(owed)
