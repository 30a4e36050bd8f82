"""What a BatchRun hands to a worker, and the settings that it uses."""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings of a BatchRun."""

    provider: str
    owner_id: str
    paid_attempts: int
    progress_interval: float
    """Seconds."""
