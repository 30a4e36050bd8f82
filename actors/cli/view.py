"""A batch as its events tell it: folded, so that what shows it needs no database.

Pure. Duplicates and late events change nothing, wherever the events come from.
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
    """A batch at a moment, moved on by `apply`."""

    def __init__(self, batch: Batch, sequence: int = 0) -> None:
        """`sequence`: of the last event that `batch` already shows; earlier ones are dropped."""
        self.id, self.name, self.concurrency = batch.id, batch.name, batch.concurrency
        self.status: BatchStatus = batch.status
        self.progress: Progress = batch.progress
        self.jobs: dict[str, Job] = {job.id: job for job in batch.jobs}
        self.sequence = sequence
        self._done_before = self.done

    def apply(self, event: Event) -> bool:
        """Fold an event; False: it was known already."""
        if int(event.sequence) <= self.sequence:
            return False
        self.sequence = int(event.sequence)
        self.status = BatchStatus(event.data["status"])
        self.progress = Progress.model_validate(event.data["progress"])
        if "job" in event.data:
            self.refresh([Job.model_validate(event.data["job"])])
        return True

    def refresh(self, jobs: Iterable[Job]) -> None:
        """Take over what is told of jobs: a submission or a download that begins is no event."""
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
        """How many of its videos have ended, in whatever way."""
        return self.progress.total - self.progress.pending

    @property
    def in_hand(self) -> list[Job]:
        """The videos that are being made, in their order."""
        return [job for job in self._ordered() if job.status in IN_FLIGHT_JOB]

    def rows(self, most: int) -> tuple[list[Job], int]:
        """The videos to show, and how many more are waiting: all of a small batch, of another those in hand."""
        if len(self.jobs) <= most:
            return self._ordered(), 0
        shown = self.in_hand[:most]
        return shown, self.progress.pending - len(shown)

    @property
    def done(self) -> float:
        """The work that is done, in videos: those that ended, and parts of those in hand."""
        return self.ended + sum(job.progress for job in self.jobs.values() if job.status in IN_FLIGHT_JOB) / 100

    def seconds_left(self, elapsed: float) -> float | None:
        """How long the rest takes if it goes on as in the `elapsed` seconds so far; None: too early to tell."""
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
