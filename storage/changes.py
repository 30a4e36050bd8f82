"""An update of a batch: what is recorded completely or not at all, and only for its owner."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from storage.charges import BatchCosts, ToldPrice
from storage.records import BatchRecord, Document, EventRecord, JobRecord, SubmissionRecord
from storage.states import SubmissionState

Closing = Callable[[BatchRecord, Iterable[JobRecord], BatchCosts], EventRecord]


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmissionOutcome:
    """The outcome of a submission, or of its video."""

    submission_id: str
    state: SubmissionState
    note: str | None = None
    charged: bool = True
    """Whether a generation that failed is charged for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What to write: records as they will be; `epoch` and `sequence` that the batch must have now."""

    batch: BatchRecord
    epoch: int
    sequence: int
    jobs: tuple[JobRecord, ...] = ()
    intents: tuple[SubmissionRecord, ...] = ()
    outcomes: tuple[SubmissionOutcome, ...] = ()
    told: tuple[tuple[str, Document, ToldPrice | None], ...] = ()
    """What servers said about the prices of submissions, by submission id; and the price that this comes to."""
    anyway: bool = False
    """The intents may have been paid for: they are recorded beyond any budget."""
    events: tuple[EventRecord, ...] = ()
    closing: Closing | None = None
    """Builds the last event from the batch, all of its jobs and what they cost, as they are after the change."""
