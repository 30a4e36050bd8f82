"""The live view on a terminal: a bar per video in progress, one for the batch, the time, and reasons for waits."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from actors.cli.text import clean, count, shorten, span, title, waiting
from actors.cli.view import BatchView, Show
from storage.states import JobStatus

if TYPE_CHECKING:
    from actors.batch.job_views import Job
    from actors.messages import Wait

ROWS = 12
_BAR, _SHORT_BAR, _NARROW = 20, 10, 80
_PROMPT, _LEAST_PROMPT = 32, 8
_MARKS, _ASCII_MARKS = "━·", "#."
"""Of the full and the empty part of a bar: told apart by shape, since the terminal's colours are unknown."""
_MOVING = 4
_STEPS = 8
"""Of a moving bar, per second."""
_NAME = 20
_OTHER_LINES = 5
"""Those of a batch besides its videos', and those above it."""
STYLES = {
    "completed": "green",
    "partial": "magenta",
    "failed": "red",
    "cancelled": "magenta",
    "pending": "dim",
}


class LiveShow(Show):
    """Redraws itself at each tick; disappears at the end, when the closing table is printed."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._started = time.monotonic()
        self._views: dict[str, tuple[BatchView, Mapping[str, Wait]]] = {}

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def tick(self, view: BatchView, waits: Mapping[str, Wait]) -> None:
        """Called at short intervals."""
        self._views[view.id] = view, waits
        console = self._live.console
        rows = max(1, min(ROWS, console.height - _OTHER_LINES) // len(self._views))
        now = time.monotonic()
        parts = [
            part
            for each, its_waits in self._views.values()
            for part in picture(
                each, its_waits, now=now, elapsed=now - self._started, rows=rows,
                width=console.width, marks=_ASCII_MARKS if console.options.ascii_only else _MARKS,
            )
        ]  # fmt: skip
        self._live.update(Group(*parts), refresh=True)


def picture(
    view: BatchView,
    waits: Mapping[str, Wait],
    *,
    now: float,
    elapsed: float,
    rows: int = ROWS,
    width: int = 120,
    marks: str = _MARKS,
) -> Iterator[Table | Text]:
    """The picture of a batch."""
    jobs, more = view.rows(rows)
    grid = Table.grid(padding=(0, 1))
    for column in range(4):
        grid.add_column(no_wrap=True, overflow="ellipsis", justify="right" if column == 0 else "left")
    bar = _BAR if width >= _NARROW else _SHORT_BAR
    states = [_state(job, waits, now) for job in jobs]
    widest = max((state.cell_len for state in states), default=0)
    number = len(str(jobs[-1].index)) if jobs else 0
    prompt = min(_PROMPT, max(_LEAST_PROMPT, width - number - bar - widest - 4))  # and the gaps between the columns
    for job, state in zip(jobs, states, strict=True):
        grid.add_row(str(job.index), Text(title(job, prompt)), _bar_of(job, now, bar, marks), state)
    yield grid
    if more > 0:
        yield Text(f"{more} more waiting", style="dim")
    yield _whole(view, bar, marks)
    yield Text(_times(view, elapsed, waits.get(""), now))


def _bar_of(job: Job, now: float, width: int, marks: str) -> Text:
    moving = job.status in (JobStatus.SUBMITTING, JobStatus.DOWNLOADING) or (
        job.status is JobStatus.GENERATING and not job.progress
    )
    if not moving:
        return _bar(100 if job.status is JobStatus.COMPLETED else job.progress, 100, width, marks)
    at = int(now * _STEPS) % width
    shape = marks[0] * _MOVING + marks[1] * (width - _MOVING)
    return Text(shape[-at:] + shape[:-at], style="cyan")


def _bar(done: float, total: int, width: int, marks: str) -> Text:
    full = int(width * done / total) if total else 0
    style = "green" if full >= width else "cyan"
    return Text.assemble((marks[0] * full, style), (marks[1] * (width - full), "dim"))


def _state(job: Job, waits: Mapping[str, Wait], now: float) -> Text:
    text = job.status.value
    if job.status is JobStatus.PENDING:
        text = "waiting"
    elif job.status is JobStatus.GENERATING and job.progress:
        text += f" {job.progress} %"
    elif job.status is JobStatus.FAILED and job.error:
        text += f": {clean(job.error.code)}"
    if job.id in waits:
        text += f", {waiting(waits[job.id], now)}"
    return Text(text, style=STYLES.get(job.status.value, ""))


def _whole(view: BatchView, bar: int, marks: str) -> Table:
    progress = view.progress
    ended = f"{view.ended} of {count(progress.total, 'video')}"
    if progress.failed:
        ended += f", {progress.failed} failed"
    grid = Table.grid(padding=(0, 1))
    for _ in range(3):
        grid.add_column(no_wrap=True, overflow="ellipsis")
    name = shorten(view.name, _NAME) if view.name else view.id  # an id is never cut
    grid.add_row(Text(name, style="bold"), _bar(view.done, progress.total, bar, marks), Text(ended))
    return grid


def _times(view: BatchView, elapsed: float, wait: Wait | None, now: float) -> str:
    left = view.seconds_left(elapsed)
    words = [f"{span(elapsed)} elapsed"]
    if left is not None:
        words.append(f"about {span(max(1, left))} left")
    if wait is not None:
        words.append(waiting(wait, now))
    return ", ".join(words)
