"""What a BatchRun hands to a worker, and the settings that it uses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from actors.batch.prices import Priced
from storage.records import JobRecord, SubmissionRecord


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
