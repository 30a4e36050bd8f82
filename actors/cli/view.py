"""A batch as its events describe it, so that showing it needs no database.

Pure. Duplicate and late events change nothing, whatever their source.
"""

from __future__ import annotations

from collections.abc import Iterable

from actors.batch.events import Event
from actors.batch.views import Batch, Job, Progress
from storage.states import FINAL_BATCH, FINAL_JOB, IN_FLIGHT_JOB, BatchStatus

_ENOUGH_SECONDS = 2.0
_ENOUGH_VIDEOS = 0.25
"""Below either, an estimate would be a guess."""


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
