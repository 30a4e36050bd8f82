"""How a batch that is followed looks: its state as its events describe it, and a line per event.

Needs no database. Duplicate and late events change nothing, whatever their source.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Self, TextIO

from actors.batch.events import Event
from actors.batch.job_views import Job
from actors.batch.views import Batch, Progress
from actors.cli.text import clean, count, reason, shown_place, waiting
from storage.states import FINAL_BATCH, FINAL_JOB, IN_FLIGHT_JOB, BatchStatus

if TYPE_CHECKING:
    from actors.messages import Wait

_ENOUGH_SECONDS = 2.0
_ENOUGH_VIDEOS = 0.25
"""Below either, an estimate would be a guess."""
_SILENT = {"batch.created", "batch.progressed", "job.progressed"}


class BatchView:
    """The state of a batch, updated by `apply`."""

    def __init__(self, batch: Batch, sequence: int = 0) -> None:
        """`sequence`: of the last event that `batch` reflects; earlier ones are dropped."""
        self.id, self.name, self.concurrency = batch.id, batch.name, batch.concurrency
        self.status: BatchStatus = batch.status
        self.progress: Progress = batch.progress
        self.jobs: dict[str, Job] = {job.id: job for job in batch.jobs}
        self.sequence = sequence
        self._done_before = self.done

    def apply(self, event: Event) -> bool:
        """Apply an event; False: it was known already."""
        if int(event.sequence) <= self.sequence:
            return False
        self.sequence = int(event.sequence)
        self.status = BatchStatus(event.data["status"])
        self.progress = Progress.model_validate(event.data["progress"])
        if "job" in event.data:
            self.refresh([Job.model_validate(event.data["job"])])
        return True

    def refresh(self, jobs: Iterable[Job]) -> None:
        """Update jobs: the start of a submission or of a download is no event."""
        for job in jobs:
            known = self.jobs.get(job.id)
            if known is None or known.updated_at <= job.updated_at:
                self.jobs[job.id] = job

    @property
    def finished(self) -> bool:
        """Whether the batch has ended."""
        return self.status in FINAL_BATCH

    @property
    def ended(self) -> int:
        """How many videos have ended, in any state."""
        return self.progress.total - self.progress.pending

    @property
    def in_hand(self) -> list[Job]:
        """The videos in progress, in order."""
        return [job for job in self._ordered() if job.status in IN_FLIGHT_JOB]

    def rows(self, most: int) -> tuple[list[Job], int]:
        """The videos to show, and how many more are waiting: all of a small batch, else those in progress."""
        if len(self.jobs) <= most:
            return self._ordered(), 0
        shown = self.in_hand[:most]
        return shown, self.progress.pending - len(shown)

    @property
    def done(self) -> float:
        """The work done, in videos: those that ended, and fractions of those in progress."""
        return self.ended + sum(job.progress for job in self.jobs.values() if job.status in IN_FLIGHT_JOB) / 100

    def seconds_left(self, elapsed: float) -> float | None:
        """Seconds left at the pace of the `elapsed` seconds so far; None: too early to tell."""
        done = self.done - self._done_before
        if elapsed < _ENOUGH_SECONDS or done < _ENOUGH_VIDEOS or self.finished:
            return None
        return elapsed / done * max(0.0, self.progress.total - self.done)

    def _ordered(self) -> list[Job]:
        return sorted(self.jobs.values(), key=lambda job: job.index)


def ended_by(event: Event) -> Job | None:
    """The job that this event ended, if it did."""
    if "job" not in event.data or event.name not in {"job.completed", "job.failed", "job.cancelled"}:
        return None
    job = Job.model_validate(event.data["job"])
    return job if job.status in FINAL_JOB else None


class Show:
    """Shows batches to a person; this one shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Holds nothing."""

    def tell(self, event: Event, view: BatchView) -> None:
        """Called for an event that was applied to the view."""

    def tick(self, view: BatchView, waits: Mapping[str, Wait]) -> None:
        """Called at short intervals."""


def line(event: Event, view: BatchView) -> str | None:
    """`12:00:05 nature-01 completed videos/nature/nature-01.mp4 (1 of 3)`; None: not worth a line."""
    if event.name in _SILENT:
        return None
    job = event.data.get("job")
    words = [f"{event.time.astimezone():%H:%M:%S}", event.subject, event.name.split(".")[1]]
    if job is None:
        words.append(_batch_words(event, view))
    else:
        words.append(_job_words(job))
        if job["status"] in ("completed", "failed", "cancelled"):
            words.append(f"({view.ended} of {view.progress.total})")
    return clean(" ".join(word for word in words if word))


def _job_words(job: dict[str, object]) -> str:
    error, video = job.get("error"), job.get("video")
    if job["status"] == "completed" and isinstance(video, dict):
        return shown_place(video["path"], video.get("uri"))
    return reason(error["code"], error["message"]) if isinstance(error, dict) else ""


def _batch_words(event: Event, view: BatchView) -> str:
    if event.name == "batch.started":
        at_once = min(view.concurrency, view.progress.total)
        return f"{count(view.progress.total, 'video')}, {at_once} at a time"
    return f"{view.progress.completed} of {count(view.progress.total, 'video')}"


class LineShow(Show):
    """Writes a line per event."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._told: dict[tuple[str, str], float] = {}

    def tell(self, event: Event, view: BatchView) -> None:
        """Write a line, if the event is worth one."""
        text = line(event, view)
        if text:
            self._say(text)

    def tick(self, view: BatchView, waits: Mapping[str, Wait]) -> None:
        """Say why something waits, once per reason until the wait is over."""
        now = time.monotonic()
        for key, wait in waits.items():
            known = self._told.get((key, wait.reason), 0.0)
            self._told[key, wait.reason] = max(known, wait.until)
            if known < now < wait.until:
                stamp = time.strftime("%H:%M:%S")
                self._say(f"{stamp} {clean(key or view.id)} waiting: {waiting(wait, now)}")

    def _say(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()
