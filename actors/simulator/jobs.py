"""The accepted jobs: each as a record with a state that follows from it and the time, and the ledger that keeps them.

What will become of a job is drawn when it is accepted. So a restarted simulator needs no more than its records to go
on, and asking changes nothing. Nothing here reads a clock: whoever calls says what time it is.

The ledger's file has one JSON document a line: `{"job": ...}` or `{"deleted": id}`. A line is handed to the operating
system before the request is answered, which a kill -9 cannot undo (a power cut could).
"""

from __future__ import annotations

import heapq
import json
import random
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import IO, TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from pathlib import Path

    from actors.simulator.fields import Page

Status = Literal["queued", "in_progress", "completed", "failed"]
QUEUED_SHARE = 0.1
"""The part of its latency that a job waits before it is begun."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """How a generation fails."""

    code: str
    message: str
    http_status: int
    """vLLM-Omni's status for a GET of the job, and its error code."""
    progress: int
    """How far it gets, in percent."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A video that was accepted, with what will become of it."""

    number: int
    """In order of acceptance, from 1."""
    id: str
    prompt: str
    model: str
    seconds: int
    size: str | None
    """As asked; None is told where a server tells no default."""
    accepted_at: float
    """Seconds since 1970."""
    latency: float
    """Seconds from acceptance to the end."""
    failure: Failure | None = None
    remixed_from: str | None = None
    told: dict[str, Any] = field(default_factory=dict)
    """What its video object tells beside all this, by name."""
    replica: int = 0
    """Whose store it is in, from 0."""

    @property
    def ends_at(self) -> float:
        """When it is completed or failed, in seconds since 1970."""
        return self.accepted_at + self.latency

    def record(self) -> dict[str, Any]:
        """Return the job as JSON, in the form that an older simulator reads too where it has all that the job is."""
        return {name: value for name, value in asdict(self).items() if value or name not in ("told", "replica")}

    @classmethod
    def restore(cls, record: dict[str, Any]) -> Job:
        """Restore the job from its record()."""
        failure = record["failure"]
        return cls(**{**record, "failure": failure and Failure(**failure)})


@dataclass(frozen=True, kw_only=True)
class State:
    """The state of a job at a time."""

    status: Status
    progress: int
    ended_at: int | None
    """Seconds since 1970, completed and failed jobs only."""

    @property
    def ended(self) -> bool:
        """Whether the job has ended."""
        return self.ended_at is not None


def state_of(job: Job, now: float) -> State:
    """Return the state of a job.

    A job is queued at the very moment of its acceptance even if it takes no time at all: every server answers
    a create with `queued`.
    """
    elapsed = now - job.accepted_at
    if elapsed <= job.latency * QUEUED_SHARE:
        return State(status="queued", progress=0, ended_at=None)
    peak = job.failure.progress if job.failure else 100
    if elapsed < job.latency:
        return State(status="in_progress", progress=min(99, int(peak * elapsed / job.latency)), ended_at=None)
    return State(status="failed" if job.failure else "completed", progress=peak, ended_at=int(job.ends_at))


def draw(
    *, seed: int, prompt: str, attempt: int, latency: tuple[float, float], failure_rate: float
) -> tuple[float, Failure | None]:
    """Draw how long a generation takes and whether it fails.

    Args:
        seed: the simulator's.
        prompt: the same prompts fare alike in every run, in whatever order they arrive.
        attempt: how often this prompt has come, from 1: another try may fare better.
        latency: seconds, from and to.
        failure_rate: 0 to 1.
    """
    dice = random.Random(f"{seed}/{attempt}/{prompt}".encode("utf-8", "surrogatepass"))  # noqa: S311  (a dice, no secret)
    seconds = dice.uniform(*latency)
    fails = dice.random() < failure_rate
    progress = dice.randrange(1, 100)
    message = "The simulator failed this generation on purpose (failure rate)."
    failure = Failure(code="video_generation_failed", message=message, http_status=500, progress=progress)
    return seconds, failure if fails else None


def blocked() -> Failure:
    """Return the failure of a prompt that moderation does not let through."""
    message = "Your request was blocked by our moderation system."
    return Failure(code="moderation_blocked", message=message, http_status=400, progress=0)


class Ledger:
    """All jobs that were accepted and not deleted."""

    def __init__(self, replicas: int = 1) -> None:
        """Begin with nothing, in memory only; each replica sees its own jobs alone."""
        self._replicas = replicas
        self.creates = 0
        """Accepted since the start; what a file brought back is not counted again."""
        self.max_in_flight = 0
        """The most jobs that were unfinished at one moment."""
        self._jobs: dict[str, Job] = {}
        self._prompts: Counter[str] = Counter()
        self._number = 0
        self._ends: list[float] = []
        """A heap of the times at which the unfinished jobs end."""
        self._file: IO[str] | None = None

    def open(self, path: Path) -> None:
        """Read what the file remembers, and remember in it from now on."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+", encoding="ascii")
        self._file.seek(0)
        text = self._file.read()
        whole = text.rfind("\n") + 1
        if whole < len(text):  # killed while it wrote: the request of that line was never answered
            self._file.truncate(whole)
        for line in text[:whole].splitlines():
            self._restore(json.loads(line))

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _restore(self, entry: dict[str, Any]) -> None:
        if "deleted" in entry:
            self._jobs.pop(entry["deleted"], None)
        else:
            self._take(Job.restore(entry["job"]))

    def _take(self, job: Job) -> None:
        self._jobs[job.id] = job
        self._number = job.number
        self._prompts[job.prompt] += 1
        heapq.heappush(self._ends, job.ends_at)

    def _remember(self, entry: dict[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(entry) + "\n")
            self._file.flush()

    def next_number(self) -> int:
        """Return the number of the next job."""
        return self._number + 1

    def next_attempt(self, prompt: str) -> int:
        """Return the number of the prompt's next occurrence."""
        return self._prompts[prompt] + 1

    def accept(self, job: Job, now: float) -> None:
        """Add a job."""
        self._remember({"job": job.record()})
        self._take(job)
        self.creates += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight(now))

    def in_flight(self, now: float) -> int:
        """Count the unfinished jobs."""
        while self._ends and self._ends[0] <= now:
            heapq.heappop(self._ends)
        return len(self._ends)

    def find(self, video_id: str, replica: int = 0) -> Job | None:
        """Return a replica's job by its id."""
        job = self._jobs.get(video_id)
        # A state file may be of a time with more replicas.
        return job if job is not None and job.replica % self._replicas == replica else None

    def delete(self, job: Job, *, stop: bool) -> None:
        """Remove a job; unless its work is stopped, it stays in flight to its end."""
        self._remember({"deleted": job.id})
        del self._jobs[job.id]
        if stop and job.ends_at in self._ends:
            self._ends.remove(job.ends_at)
            heapq.heapify(self._ends)

    def page(self, page: Page, replica: int = 0, *, by_second: bool = False) -> tuple[list[Job], bool]:
        """Return the jobs of a replica's page, and whether there are more behind them.

        Args:
            page: what is asked for.
            replica: whose.
            by_second: sort by whole seconds of acceptance only, so that those of one second stay oldest first.

        Raises:
            KeyError: there is no job with the id `after`.
        """
        jobs = list(self._jobs.values())
        if self._replicas > 1:
            jobs = [job for job in jobs if job.replica % self._replicas == replica]
        if by_second:
            jobs.sort(key=lambda job: int(job.accepted_at), reverse=page.newest_first)
        elif page.newest_first:
            jobs.reverse()
        if page.after is not None:
            ids = [job.id for job in jobs]
            if page.after not in ids:
                raise KeyError(page.after)
            jobs = jobs[ids.index(page.after) + 1 :]
        limit = len(jobs) if page.limit is None else page.limit
        return jobs[:limit], len(jobs) > limit
