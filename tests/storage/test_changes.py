"""A step is written whole, once, and only for the one who owns the batch."""

import peewee
import pytest

from storage.changes import Changes, SubmissionOutcome
from storage.states import BatchStatus, JobStatus, SubmissionState
from tests.builders import NOON, a_batch, a_job, an_event, an_intent, put


@pytest.fixture
def apply(storage):
    def apply(changes):
        with storage.database.begin():
            return storage.apply(changes)

    return apply


def a_step(*, epoch=1, sequence=1, events=1, **columns):
    batch = a_batch(epoch=1, status=BatchStatus.PROCESSING, sequence=sequence + events)
    told = tuple(an_event(sequence + number) for number in range(1, events + 1))
    return Changes(**{"batch": batch, "epoch": epoch, "sequence": sequence, "events": told} | columns)


def an_intending_step(**columns):
    return a_step(jobs=(a_job(status=JobStatus.SUBMITTING),), intents=(an_intent(),), **columns)


def test_a_step_is_written_whole(storage, apply):
    put(storage, a_batch(epoch=1, total=2))
    storage.submissions.intend([an_intent("before", a_job(2))])
    outcome = SubmissionOutcome(submission_id="before", state=SubmissionState.REFUSED, note="no")
    assert apply(an_intending_step(outcomes=(outcome,)))
    assert storage.batches.get("nature").status is BatchStatus.PROCESSING
    assert storage.jobs.of_batch("nature")[0].status is JobStatus.SUBMITTING
    assert storage.submissions.get("before").state is SubmissionState.REFUSED
    assert storage.submissions.get("intent-1").state is SubmissionState.INTENDED
    assert [event.sequence for event in storage.journal.read("nature")] == [2]


@pytest.mark.parametrize(
    ("epoch", "sequence"), [(2, 1), (0, 1), (1, 5)], ids=["taken over", "of a former life", "moved on"]
)
def test_a_refused_step_writes_nothing(storage, apply, epoch, sequence):
    put(storage, a_batch(epoch=epoch, sequence=sequence))
    assert not apply(an_intending_step())
    assert storage.batches.get("nature") == a_batch(epoch=epoch, sequence=sequence)
    assert storage.jobs.of_batch("nature") == [a_job()]
    assert storage.submissions.of_batch("nature") == []
    assert storage.journal.read("nature") == []


def test_a_step_of_a_batch_that_is_no_more_is_refused(storage, apply):
    assert not apply(an_intending_step())
    assert storage.submissions.of_batch("nature") == []


def test_an_outcome_and_the_next_intent_of_a_job_share_a_step(storage, apply):
    put(storage, a_batch(epoch=1))
    storage.submissions.intend([an_intent("first")])
    outcome = SubmissionOutcome(submission_id="first", state=SubmissionState.ABSENT)
    assert apply(an_intending_step(outcomes=(outcome,)))
    assert storage.submissions.live_of_batch("nature")["nature-01"].id == "intent-1"


def test_a_step_that_would_pay_twice_leaves_nothing_behind(storage, apply):
    put(storage, a_batch(epoch=1))
    storage.submissions.intend([an_intent("first")])
    with pytest.raises(peewee.IntegrityError):
        apply(an_intending_step())
    assert storage.batches.get("nature").status is BatchStatus.PENDING
    assert storage.journal.read("nature") == []


def test_the_last_event_is_made_of_the_batch_and_all_jobs_as_they_are_then(storage, apply):
    put(storage, a_batch(epoch=1, total=2, metadata={"by": "somebody else, meanwhile"}))

    def closing(batch, jobs, costs):
        return an_event(3, body=",".join([batch.metadata["by"], *(f"{job.position}:{job.status}" for job in jobs)]))

    done = a_job(2)._replace(status=JobStatus.COMPLETED)
    batch = a_batch(epoch=1, total=2, sequence=3)
    assert apply(a_step(jobs=(done,), closing=closing, batch=batch))
    assert storage.journal.read("nature")[-1].body == "somebody else, meanwhile,1:pending,2:completed"


@pytest.mark.parametrize("events", [0, 1, 3], ids=lambda events: f"{events} events")
def test_a_step_whose_commit_was_not_answered_is_written_once(storage, apply, events):
    put(storage, a_batch(epoch=1))
    step = an_intending_step(events=events)
    assert apply(step)
    assert apply(step)
    assert len(storage.submissions.of_batch("nature")) == 1
    assert len(storage.journal.read("nature")) == events
    assert storage.batches.get("nature") == step.batch


def test_a_repeated_intent_opens_its_send_window_anew(storage, apply):
    put(storage, a_batch(epoch=1))
    apply(an_intending_step())
    storage.database.execute("UPDATE submissions SET intended_at=?", (NOON - 100,))
    apply(an_intending_step())
    assert abs(storage.submissions.get("intent-1").intended_at - storage.database.now()) < 5


def test_a_repeated_intent_does_not_open_what_is_settled(storage, apply):
    put(storage, a_batch(epoch=1))
    apply(an_intending_step())
    storage.submissions.settle("intent-1", SubmissionState.NOT_SENT)
    before = storage.submissions.get("intent-1")
    apply(an_intending_step())
    assert storage.submissions.get("intent-1") == before


@pytest.mark.parametrize("events", [0, 1], ids=lambda events: f"{events} events")
def test_a_step_whose_intent_was_resolved_before_it_was_repeated_is_refused(storage, apply, events):
    put(storage, a_batch(epoch=1, total=2))
    intents = (an_intent(), an_intent("intent-2", a_job(2)))
    step = a_step(events=events, jobs=(a_job(status=JobStatus.SUBMITTING),), intents=intents)
    assert apply(step)
    storage.submissions.bind("intent-1", "video_1", adopted=True)  # somebody looked for what became of it
    storage.jobs.save([a_job(status=JobStatus.GENERATING)])
    assert not apply(step)  # else its POST would be sent now
    assert storage.jobs.of_batch("nature")[0].status is JobStatus.GENERATING
    assert len(storage.journal.read("nature")) == events


def test_a_step_after_which_somebody_took_the_batch_is_no_repetition(storage, apply):
    put(storage, a_batch(epoch=1))
    step = an_intending_step()
    apply(step)
    storage.batches.advance(step.batch._replace(epoch=2, sequence=3), epoch=1, sequence=2)
    assert not apply(step)
