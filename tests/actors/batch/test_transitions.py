"""The tables of moves, what a BatchUpdate makes of them, and that folded counts are the counted ones."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.batch.batch_update import BatchUpdate
from actors.batch.events import Event, EventName
from actors.batch.transitions import (
    BATCH_MOVES,
    JOB_MOVES,
    BatchMove,
    JobMove,
    RefusedMove,
    derived_counts,
    ended,
    ending,
    next_batch_status,
    next_job_status,
    recount,
)
from actors.batch.views import progress_of
from actors.errors import ErrorCode, Failure
from storage.charges import BatchCosts
from storage.states import FINAL_BATCH, FINAL_JOB, BatchStatus, JobStatus, SubmissionState
from tests.builders import NOON, a_batch, a_job, an_intent, some_jobs

REFUSED_JOB_MOVES = [pair for pair in product(JobStatus, JobMove) if pair not in JOB_MOVES]
REFUSED_BATCH_MOVES = [pair for pair in product(BatchStatus, BatchMove) if pair not in BATCH_MOVES]
WAYS_BACK = {JobMove.RETRY, JobMove.RECHECK, JobMove.REATTACH}


def a_step(**columns):
    return BatchUpdate(a_batch(**columns), NOON + 1)


def test_a_final_job_is_left_only_by_a_persons_wish():
    left = {pair for pair, after in JOB_MOVES.items() if pair[0] in FINAL_JOB and after is not pair[0]}
    assert {move for _, move in left} == WAYS_BACK
    assert {status for status, _ in left} == {JobStatus.FAILED, JobStatus.CANCELLED}


def test_a_final_batch_is_left_only_by_a_retry():
    left = {pair for pair, after in BATCH_MOVES.items() if pair[0] in FINAL_BATCH and after is not pair[0]}
    assert left == {(status, BatchMove.RETRY) for status in FINAL_BATCH - {BatchStatus.COMPLETED}}


def test_a_job_is_intended_from_pending_alone():
    assert [status for status in JobStatus if (status, JobMove.INTEND) in JOB_MOVES] == [JobStatus.PENDING]


def test_a_job_is_completed_only_after_its_file_was_fetched():
    ways = [status for status in JobStatus if (status, JobMove.COMPLETE) in JOB_MOVES]
    assert ways == [JobStatus.DOWNLOADING, JobStatus.COMPLETED]


def test_every_state_that_is_not_final_can_be_cancelled_and_failed():
    for status in set(JobStatus) - FINAL_JOB:
        assert next_job_status(status, JobMove.CANCEL) is JobStatus.CANCELLED
        assert next_job_status(status, JobMove.FAIL) is JobStatus.FAILED


@pytest.mark.parametrize(("status", "move"), REFUSED_JOB_MOVES)
def test_a_refused_move_of_a_job_changes_nothing(status, move):
    step = a_step()
    with pytest.raises(RefusedMove, match=f"a job that is {status} can't {move}"):
        step.move(a_job(status=status), move, EventName.JOB_FAILED)
    assert not step.changed
    assert step.changes().batch == a_batch()


@pytest.mark.parametrize(("status", "move"), REFUSED_BATCH_MOVES)
def test_a_refused_move_of_a_batch_changes_nothing(status, move):
    step = a_step(status=status)
    with pytest.raises(RefusedMove, match=f"a batch that is {status} can't {move}"):
        step.move_batch(move, owner="us")
    assert (step.batch.status, step.batch.owner, step.changed) == (status, None, False)


def test_a_refused_end_tells_nothing():
    step = a_step(status=BatchStatus.COMPLETED)
    with pytest.raises(RefusedMove):
        step.close(BatchMove.CANCEL)
    assert step.batch.sequence == 1


@pytest.mark.parametrize(("pair", "after"), JOB_MOVES.items())
def test_an_allowed_move_leads_where_the_table_says(pair, after):
    moved = a_step().move(a_job(status=pair[0]), pair[1])
    assert moved.status is after
    assert moved.updated_at == NOON + 1
    assert moved.completed_at == (NOON + 1 if after in FINAL_JOB else None)


@pytest.mark.parametrize(("pair", "after"), BATCH_MOVES.items())
def test_an_allowed_move_of_a_batch_leads_where_the_table_says(pair, after):
    assert next_batch_status(*pair) is after


def test_the_events_of_a_step_go_on_counting_without_a_gap():
    step = a_step(total=3, sequence=7, status=BatchStatus.PROCESSING)
    for job in some_jobs(3):
        step.fail(job, Failure(ErrorCode.NETWORK, "gone"))
    step.tell(EventName.BATCH_PROGRESSED)
    changes = step.changes()
    assert [event.sequence for event in changes.events] == [8, 9, 10, 11]
    assert (changes.sequence, changes.batch.sequence) == (7, 11)


def test_a_move_that_is_not_told_takes_no_number():
    step = a_step()
    step.intend(a_job(), an_intent())
    assert step.changed
    assert step.changes().batch.sequence == step.changes().sequence == 1


def test_an_event_shows_the_batch_as_it_stands_after_it():
    step = a_step(total=2, status=BatchStatus.PROCESSING)
    first, second = (step.fail(job, Failure(ErrorCode.NETWORK, "gone")) for job in some_jobs(2))
    counted = [Event.parse(event).data["progress"]["failed"] for event in step.changes().events]
    assert (first.id, second.id, counted) == ("nature-01", "nature-02", [1, 2])


def test_the_last_event_takes_the_last_number_and_ends_the_ownership():
    step = a_step(status=BatchStatus.PROCESSING, owner="us", wanted=True, claims=2, sequence=4)
    job = step.fail(a_job(), Failure(ErrorCode.NETWORK, "gone"))
    step.close(BatchMove.FAIL, error=Failure(ErrorCode.NETWORK, "all gone"))
    changes = step.changes()
    batch = changes.batch
    assert (batch.owner, batch.wanted, batch.claims, batch.completed_at) == (None, False, 0, NOON + 1)
    assert batch.error == {"code": "network", "message": "all gone", "retryable": True, "detail": None}
    last = changes.closing(batch, [job], BatchCosts())
    assert (last.sequence, last.type, batch.sequence) == (6, "batch.failed", 6)


def test_a_job_that_moves_twice_is_recorded_once_as_it_is_in_the_end():
    step = a_step()
    job = step.move(a_job(status=JobStatus.GENERATING), JobMove.FETCH)
    step.move(job, JobMove.COMPLETE, EventName.JOB_COMPLETED, progress=100)
    (saved,) = step.changes().jobs
    assert (saved.status, saved.progress) == (JobStatus.COMPLETED, 100)


def test_a_step_carries_what_became_of_submissions():
    step = a_step()
    assert not step.changed
    step.resolve("intent-1", SubmissionState.REFUSED, "no")
    assert step.changed
    assert [(o.submission_id, o.state, o.note) for o in step.changes().outcomes] == [("intent-1", "refused", "no")]


def test_a_step_names_the_epoch_that_it_began_with():
    step = a_step(epoch=4)
    step.batch = step.batch._replace(epoch=5)
    assert (step.changes().epoch, step.changes().batch.epoch) == (4, 5)


@pytest.mark.parametrize(
    ("completed", "failed", "end"),
    [(5, 0, BatchMove.COMPLETE), (3, 2, BatchMove.PART), (0, 5, BatchMove.FAIL)],
)
def test_a_batch_comes_to_the_end_that_its_jobs_came_to(completed, failed, end):
    batch = a_batch(total=5, completed=completed, failed=failed)
    assert ended(batch)
    assert ending(batch) is end


@given(
    total=st.integers(1, 6),
    moves=st.lists(st.tuples(st.integers(0, 5), st.sampled_from(JobMove)), max_size=60),
)
def test_folded_counts_are_the_counted_ones_after_any_legal_moves(total, moves):
    jobs, batch = some_jobs(total), a_batch(total=total)
    for index, move in moves:
        job = jobs[index % total]
        after = JOB_MOVES.get((job.status, move))
        if after is None:
            continue
        jobs[index % total] = job._replace(status=after)
        batch = recount(batch, job.status, after)
        counts = derived_counts(jobs)
        assert {name: getattr(batch, name) for name in counts} == counts
        progress = progress_of(batch)
        assert progress.completed + progress.failed + progress.cancelled + progress.pending == total
        assert 0 <= progress.processing <= progress.pending
        assert ended(batch) == (progress.percentage == 100) == all(job.status in FINAL_JOB for job in jobs)


@given(moves=st.lists(st.sampled_from(JobMove), max_size=40))
def test_one_step_folds_what_many_steps_fold(moves):
    together, apart = a_step(), a_batch()
    job = a_job()
    for move in moves:
        if (job.status, move) not in JOB_MOVES:
            continue
        alone = BatchUpdate(apart, NOON + 1)
        alone.move(job, move, EventName.JOB_PROGRESSED)
        job, apart = together.move(job, move, EventName.JOB_PROGRESSED), alone.batch
    assert together.batch == apart
