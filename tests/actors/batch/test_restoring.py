"""What becomes of a batch that a restored backup has as unfinished, on both databases."""

import pytest

from actors.batch.restoring import doubt_unfinished
from actors.errors import SettingsError
from actors.settings.server import NO_SERVER
from storage.states import BatchStatus, JobStatus, SubmissionState
from storage.submissions import RESTORED
from tests.builders import NOON, PROVIDER, a_batch, a_job, an_intent, put, some_jobs

J, S = JobStatus, SubmissionState
BACKUP = NOON + 100


@pytest.fixture
def doubt(storage):
    def doubt(provider=lambda: PROVIDER, paid_attempts=1):
        with storage.database.begin():
            return doubt_unfinished(storage, provider, paid_attempts=paid_attempts)

    return doubt


@pytest.fixture
def stored(storage):
    """Stores a batch of one job in a state, with a submission in a state."""

    def stored(status, state=None, **columns):
        job = a_job(status=status, attempts=0 if state is None else 1, remote_id="v1" if state is S.BOUND else None)
        at_work = status not in (J.PENDING, J.COMPLETED, J.FAILED, J.CANCELLED)
        batch = a_batch(
            status=BatchStatus.PROCESSING, provider=PROVIDER, updated_at=BACKUP, epoch=7, owner="dead",
            processing=int(at_work), **columns,
        )  # fmt: skip
        put(storage, batch, [job])
        if state is not None:
            storage.submissions.intend([an_intent(job=job)])
            if state is S.BOUND:
                storage.submissions.bind("intent-1", "v1")
            elif state is not S.INTENDED:
                storage.submissions.settle("intent-1", state)
        storage.database.execute("UPDATE submissions SET intended_at=?", (NOON,))

    return stored


def outcome(storage):
    """The job, and its submissions."""
    return storage.jobs.of_batch("nature")[0], storage.submissions.of_batch("nature")


@pytest.mark.parametrize("state", [None, S.NOT_SENT, S.ABSENT, S.FAILED])
def test_a_pending_job_may_have_been_submitted_since_the_backup(storage, stored, doubt, state):
    stored(J.PENDING, state)
    assert doubt().unknown == 1
    job, submissions = outcome(storage)
    assert job.status is J.SUBMITTING
    made = next(each for each in submissions if each.state is S.UNKNOWN)
    assert (made.intended_at, made.timed_out, made.note) == (BACKUP, True, RESTORED)
    assert made.closed_at is not None
    assert (made.server, made.key_fingerprint) == ("http://server/v1", "key")
    assert storage.batches.get("nature").processing == 1


@pytest.mark.parametrize("state", [S.INTENDED, S.UNKNOWN, S.CLASHED])
def test_an_open_outcome_stays_open_and_no_listing_closes_it(storage, stored, doubt, state):
    stored(J.SUBMITTING, state)
    assert doubt().unknown == 1
    job, (submission,) = outcome(storage)
    assert job.status is J.SUBMITTING
    assert (submission.state, submission.timed_out, submission.note) == (S.UNKNOWN, True, RESTORED)
    assert submission.intended_at == NOON  # what it made then is its own, too


@pytest.mark.parametrize(("status", "state"), [(J.SUBMITTING, S.REFUSED), (J.GENERATING, S.DELETED)])
def test_a_job_at_work_without_a_live_submission_may_have_been_submitted_again(storage, stored, doubt, status, state):
    stored(status, state)
    assert doubt().unknown == 1
    job, submissions = outcome(storage)
    assert (job.status, job.remote_id) == (J.SUBMITTING, None)
    assert sorted(each.state for each in submissions) == sorted([state, S.UNKNOWN])
    assert storage.batches.get("nature").processing == 1


@pytest.mark.parametrize("status", [J.GENERATING, J.DOWNLOADING])
def test_a_video_whose_id_is_known_is_attached_to_and_not_paid_for_again_by_itself(storage, stored, doubt, status):
    stored(status, S.BOUND)
    restored = doubt(paid_attempts=3)
    assert (restored.batches, restored.unknown, restored.attached) == (1, 0, 1)
    job, (submission,) = outcome(storage)
    assert (job.status, job.remote_id, job.attempts) == (status, "v1", 3)
    assert submission.state is S.BOUND


def test_whoever_had_the_batch_after_the_backup_is_fenced(storage, stored, doubt):
    stored(J.PENDING)
    doubt()
    batch = storage.batches.get("nature")
    assert batch.epoch > 7 + 100
    assert batch.owner is None


def test_a_batch_that_had_not_been_started_may_have_been_started_at_the_server_of_the_settings(storage, doubt):
    put(storage, a_batch(updated_at=BACKUP))
    assert doubt().unknown == 1
    batch = storage.batches.get("nature")
    assert (batch.status, batch.provider, batch.processing) == (BatchStatus.PENDING, PROVIDER, 1)
    assert storage.submissions.of_batch("nature")[0].provider == PROVIDER


def test_without_a_server_nothing_is_changed(storage, doubt):
    def no_server():
        raise SettingsError(NO_SERVER)

    put(storage, a_batch("begun", provider=PROVIDER, created_at=NOON - 1))
    put(storage, a_batch())
    with pytest.raises(SettingsError):
        doubt(no_server)
    assert storage.batches.get("begun").epoch == 0
    assert storage.submissions.of_batch("begun") == []


def test_what_has_ended_stays_as_it_is(storage, stored, doubt):
    put(storage, a_batch("done", status=BatchStatus.PARTIAL, total=2), some_jobs(2, "done", status=J.FAILED))
    before = storage.batches.get("done"), storage.jobs.of_batch("done")
    restored = doubt()
    assert (restored.batches, restored.unknown, restored.attached) == (0, 0, 0)
    assert (storage.batches.get("done"), storage.jobs.of_batch("done")) == before


def test_doing_it_again_changes_no_outcome(storage, stored, doubt):
    stored(J.PENDING)
    doubt()
    before = outcome(storage)
    assert doubt().unknown == 1
    assert outcome(storage) == before
