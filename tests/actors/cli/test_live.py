from __future__ import annotations

import io
import time
from collections.abc import Callable

import pytest
from rich.console import Console

from actors.batch.events import Event
from actors.batch.job_views import Job
from actors.batch.views import Batch
from actors.cli.live import LiveShow, picture
from actors.cli.text import cells
from actors.cli.view import BatchView
from actors.messages import Wait

Jobs = Callable[..., Job]
Batches = Callable[..., Batch]


def seen(view: BatchView, waits: dict[str, Wait] | None = None, elapsed: float = 10, rows: int = 12) -> str:
    console = Console(file=io.StringIO(), width=120, color_system=None)
    for part in picture(view, waits or {}, now=100, elapsed=elapsed, rows=rows):
        console.print(part)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.fixture
def batch(make_job: Jobs, make_batch: Batches) -> Batch:
    return make_batch(
        make_job(1, "completed"), make_job(2, "failed"), make_job(3, "generating", progress=45),
        make_job(4, "submitting"), make_job(5),
    )  # fmt: skip


def test_each_video_shows_its_state(batch: Batch) -> None:
    text = seen(BatchView(batch))
    for part in ("completed", "failed: server_error", "generating 45 %", "submitting", "waiting"):
        assert part in text


def test_the_batch_shows_how_far_it_is(batch: Batch) -> None:
    assert "Nature scenes" in seen(BatchView(batch))
    assert "2 of 5 videos, 1 failed\n0:10 elapsed\n" in seen(BatchView(batch))


def test_an_estimate_is_shown_once_there_is_one(batch: Batch, make_event: Callable[..., Event]) -> None:
    view = BatchView(batch)
    progress = batch.progress.model_copy(update={"completed": 2, "pending": 2})
    view.apply(make_event(1, "batch.progressed", batch.model_copy(update={"progress": progress})))
    assert "left" in seen(view)


def test_why_something_waits_is_shown_where_it_waits(batch: Batch) -> None:
    text = seen(BatchView(batch), {"nature-04": Wait("looking for it", 103), "": Wait("rate limited", 107)})
    assert "submitting, looking for it; next try in 3 s" in text
    assert "elapsed, rate limited; next try in 7 s" in text


def test_of_many_videos_those_in_hand_are_shown(batch: Batch) -> None:
    text = seen(BatchView(batch), rows=2)
    assert "Prompt 3" in text
    assert "Prompt 5" not in text
    assert "1 more waiting" in text


@pytest.mark.parametrize("columns", [60, 80])
def test_a_narrow_terminal_shows_each_video_on_one_line(make_job: Jobs, make_batch: Batches, columns: int) -> None:
    jobs = [
        make_job(1, "generating", progress=45, prompt="富士山の上に昇る朝日と桜の花びらが風に舞う"),
        make_job(2, "completed"),
    ]
    console = Console(file=io.StringIO(), width=columns, color_system=None)
    view = BatchView(make_batch(*jobs, id="batch-651a31340edf", name=None))
    for part in picture(view, {}, now=100, elapsed=10, width=columns):
        console.print(part)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert max(map(cells, lines)) <= columns
    assert "generating 45 %" in lines[0]
    assert lines[2].startswith("batch-651a31340edf ")


def test_an_empty_bar_looks_empty_without_any_colour(make_job: Jobs, make_batch: Batches) -> None:
    lines = seen(BatchView(make_batch(make_job(1), make_job(2, "completed")))).splitlines()
    assert "·" * 20 in lines[0]
    assert "━" not in lines[0]
    assert "━" * 20 in lines[1]
    assert "━" * 10 + "·" * 10 in lines[2]


def test_a_prompt_is_no_markup_and_steers_nothing(make_job: Jobs, make_batch: Batches) -> None:
    text = seen(BatchView(make_batch(make_job(1, prompt="[bold]x[/bold] \x1b[31m"))))
    assert "[bold]x[/bold]  [31m" in text
    assert "\x1b" not in text


def test_the_view_draws_itself_and_leaves_nothing_behind(batch: Batch) -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=120, force_terminal=True, color_system=None, legacy_windows=False)
    with LiveShow(console) as show:
        show.tick(BatchView(batch), {"": Wait("rate limited", time.monotonic() + 60)})
    assert "Prompt 3" in stream.getvalue()
    assert stream.getvalue().endswith("\x1b[?25h\r\x1b[1A\x1b[2K" + "\x1b[1A\x1b[2K" * 6)
