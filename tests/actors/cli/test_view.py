from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from actors.batch.events import Event
from actors.batch.job_views import Job
from actors.batch.views import Batch
from actors.cli.view import BatchView, ended_by

Jobs = Callable[..., Job]
Batches = Callable[..., Batch]
Events = Callable[..., Event]


@pytest.fixture
def view(make_job: Jobs, make_batch: Batches) -> BatchView:
    return BatchView(make_batch(make_job(1), make_job(2), make_job(3)), sequence=2)


def test_an_event_moves_the_batch_and_its_job(
    view: BatchView, make_job: Jobs, make_batch: Batches, make_event: Events
) -> None:
    after = make_batch(make_job(1, "completed"), make_job(2, "generating"), make_job(3))
    assert view.apply(make_event(3, "job.completed", after, after.jobs[0]))
    assert view.jobs["nature-01"].status == "completed"
    assert (view.ended, view.progress.pending, view.sequence) == (1, 2, 3)


def test_duplicates_and_late_events_change_nothing(
    view: BatchView, make_job: Jobs, make_batch: Batches, make_event: Events
) -> None:
    after = make_batch(make_job(1, "failed"), make_job(2), make_job(3))
    event = make_event(3, "job.failed", after, after.jobs[0])
    assert [view.apply(event), view.apply(event), view.apply(make_event(2, "batch.started", after))] == [
        True, False, False,
    ]  # fmt: skip
    assert view.progress.failed == 1


def test_a_refreshed_job_is_not_put_back_by_an_older_event(
    view: BatchView, make_job: Jobs, make_batch: Batches, make_event: Events
) -> None:
    done = make_job(1, "completed")
    older = make_job(1, "generating", updated_at=done.updated_at - timedelta(seconds=1))
    view.refresh([done])
    view.apply(make_event(3, "job.progressed", make_batch(older, make_job(2), make_job(3)), older))
    assert view.jobs["nature-01"].status == "completed"


def test_the_last_event_finishes_it(view: BatchView, make_job: Jobs, make_batch: Batches, make_event: Events) -> None:
    assert not view.finished
    after = make_batch(*(make_job(number, "completed") for number in (1, 2, 3)), status="completed")
    view.apply(make_event(3, "batch.completed", after))
    assert view.finished
    assert view.seconds_left(60) is None


def test_a_small_batch_shows_all_its_videos(view: BatchView) -> None:
    jobs, more = view.rows(12)
    assert [job.index for job in jobs] == [1, 2, 3]
    assert more == 0


def test_a_large_batch_shows_those_in_hand(make_job: Jobs, make_batch: Batches) -> None:
    done = [make_job(number, "completed") for number in range(1, 5)]
    waiting = [make_job(number) for number in range(7, 21)]
    view = BatchView(make_batch(*done, make_job(6, "submitting"), make_job(5, "generating"), *waiting))
    jobs, more = view.rows(12)
    assert [job.index for job in jobs] == [5, 6]
    assert more == 14


def test_parts_of_videos_count_for_the_estimate(make_job: Jobs, make_batch: Batches, make_event: Events) -> None:
    before = make_batch(make_job(1, "completed"), make_job(2), make_job(3))
    view = BatchView(before)
    assert view.seconds_left(60) is None, "what was done before says nothing of how quick it is now"
    half = make_job(2, "generating", progress=50)
    view.apply(make_event(1, "job.progressed", make_batch(before.jobs[0], half, before.jobs[2]), half))
    assert view.seconds_left(1) is None, "too early to tell"
    assert view.seconds_left(10) == pytest.approx(30)


def test_only_an_end_is_an_end(make_job: Jobs, make_batch: Batches, make_event: Events) -> None:
    batch = make_batch(make_job(1, "completed"), make_job(2, "generating"))
    assert ended_by(make_event(1, "job.completed", batch, batch.jobs[0])) == batch.jobs[0]
    assert ended_by(make_event(1, "job.progressed", batch, batch.jobs[1])) is None
    assert ended_by(make_event(1, "batch.progressed", batch)) is None
