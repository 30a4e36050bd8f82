from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from actors.batch.events import Event
from actors.batch.job_views import Job
from actors.batch.views import Batch
from actors.cli.text import waiting
from actors.cli.view import BatchView, LineShow, line
from actors.messages import Wait

Jobs = Callable[..., Job]
Batches = Callable[..., Batch]
Events = Callable[..., Event]


@pytest.fixture
def batch(make_job: Jobs, make_batch: Batches) -> Batch:
    error = {"code": "moderation_blocked", "message": "no\x1b[31m!", "retryable": False}
    video = {"path": str(Path.cwd() / "videos/nature-01.mp4"), "bytes": 1, "sha256": "0", "content_type": "video/mp4"}
    return make_batch(make_job(1, "completed", video=video), make_job(2, "failed", error=error), make_job(3))


def told(event: Event, batch: Batch) -> str | None:
    text = line(event, BatchView(batch))
    return text[9:] if text else None  # the time is the reader's own


def test_an_end_tells_the_file_or_the_reason_and_how_far_it_is(batch: Batch, make_event: Events) -> None:
    completed = make_event(1, "job.completed", batch, batch.jobs[0])
    failed = make_event(2, "job.failed", batch, batch.jobs[1])
    assert told(completed, batch) == "nature-01 completed videos/nature-01.mp4 (2 of 3)"
    assert told(failed, batch) == "nature-02 failed moderation_blocked: no [31m! (2 of 3)"


def test_beginnings_are_told(batch: Batch, make_event: Events) -> None:
    assert told(make_event(1, "batch.started", batch), batch) == "nature started 3 videos, 3 at a time"
    assert told(make_event(1, "job.submitted", batch, batch.jobs[2]), batch) == "nature-03 submitted"
    assert told(make_event(1, "batch.partial", batch), batch) == "nature partial 1 of 3 videos"


@pytest.mark.parametrize("name", ["batch.created", "batch.progressed", "job.progressed"])
def test_what_is_not_worth_a_line_has_none(batch: Batch, make_event: Events, name: str) -> None:
    assert told(make_event(1, name, batch, batch.jobs[0]), batch) is None


def test_a_wait_is_told_in_whole_seconds() -> None:
    assert waiting(Wait("rate limited", 107.5), 101) == "rate limited; next try in 7 s"
    assert waiting(Wait("rate limited", 100), 101) == "rate limited"
    assert waiting(Wait("no place", float("inf")), 101) == "no place"


def test_each_wait_is_told_once(batch: Batch) -> None:
    stream = io.StringIO()
    wait = Wait("rate limited", time.monotonic() + 60)
    with LineShow(stream) as show:
        show.tick(BatchView(batch), {"": wait})
        show.tick(BatchView(batch), {"": wait})
        show.tick(BatchView(batch), {"nature-03": wait})
    lines = stream.getvalue().splitlines()
    assert [text[9:31] for text in lines] == ["nature waiting: rate l", "nature-03 waiting: rat"]
