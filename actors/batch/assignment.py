"""What a BatchRun hands to a worker, and the settings that it decides by."""

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
    """Its POST is yet to be sent."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings that decide."""

    provider: str
    owner_id: str
    paid_attempts: int
    progress_interval: float
    """Seconds."""
