"""What a BatchRun hands to a worker, the settings that it uses, and how often something that died is restarted."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from actors.batch.prices import Priced
from storage.records import JobRecord, SubmissionRecord

RESTARTS, RESTART_PERIOD = 3, 60.0


@dataclass(frozen=True, slots=True)
class Assignment:
    """A job for a worker of the pool."""

    worker: int
    run: int
    job: JobRecord
    submission: SubmissionRecord
    fresh: bool
    """Its POST has not been sent yet."""


def _unpriced(_job: JobRecord) -> Priced | None:
    return None


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings of a BatchRun."""

    provider: str
    owner_id: str
    paid_attempts: int
    progress_interval: float
    """Seconds."""
    price: Callable[[JobRecord], Priced | None] = _unpriced
    """What a job's video costs at most; None: that is unknown."""
    charges_failed: bool = True
    """Whether a generation that failed is charged for where the server tells nothing."""
    waits_for_budget: bool = False
    """Whether a batch waits for the next period of a budget that is used up."""


def restart_allowed(past: Iterable[float], now: float) -> bool:
    """Whether something that died may be restarted, after restarts at these times."""
    return sum(now - RESTART_PERIOD < at for at in past) < RESTARTS
