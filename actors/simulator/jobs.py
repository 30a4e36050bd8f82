"""A simulated video as a record, and its state: a function of the record and of the time, of nothing else.

What will become of a job is drawn when it is accepted. So a restarted simulator needs no more than its
records to go on, and asking changes nothing.
"""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from typing import Any, Literal

Status = Literal["queued", "in_progress", "completed", "failed"]
QUEUED_SHARE = 0.1
"""The part of its latency that a job waits before it is begun."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """How a generation ends that does not end well."""

    code: str
    message: str
    http_status: int
    """What vLLM-Omni answers a GET of the job with, and tells as its code."""
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

    @property
    def ends_at(self) -> float:
        """When it is completed or failed, in seconds since 1970."""
        return self.accepted_at + self.latency

    def record(self) -> dict[str, Any]:
        """Give the job as JSON."""
        return asdict(self)

    @classmethod
    def restore(cls, record: dict[str, Any]) -> Job:
        """Give back the job that record() gave."""
        failure = record["failure"]
        return cls(**{**record, "failure": failure and Failure(**failure)})


@dataclass(frozen=True, kw_only=True)
class State:
    """What a job is like at a moment."""

    status: Status
    progress: int
    ended_at: int | None
    """Seconds since 1970, completed and failed jobs only."""

    @property
    def ended(self) -> bool:
        """Whether nothing will change any more."""
        return self.ended_at is not None


def state_of(job: Job, now: float) -> State:
    """Tell the state of a job.

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
    return seconds, _failure(progress) if fails else None


def _failure(progress: int) -> Failure:
    message = "The simulator made this generation fail, as its failure rate asks for."
    return Failure(code="video_generation_failed", message=message, http_status=500, progress=progress)


def blocked() -> Failure:
    """Give the failure of a prompt that moderation does not let through."""
    message = "Your request was blocked by our moderation system."
    return Failure(code="moderation_blocked", message=message, http_status=400, progress=0)
