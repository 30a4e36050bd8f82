"""A Dispatcher's agenda and its callbacks. They outlive a Dispatcher that dies."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from actors.messages import DispatcherMessage, Earlier, Loaded, Wait
from storage.records import SubmissionRecord
from storage.rows import check
from storage.storage import Storage


@dataclass(frozen=True, slots=True)
class DispatcherCallbacks:
    """How the actors report to the world outside."""

    ended: Callable[[str], None]
    """Called on the loop with the id of a batch that has ended."""
    released: Callable[[str, str | None], None]
    """Called on the loop with the id of a released batch, and the error, if any."""
    closed: Future[None]
    """Done when every batch has been released after `Close`."""
    died: Callable[[Agenda, str], None]
    """Called on the loop when a bug has ended the Dispatcher, with its agenda and the error."""
    waits: dict[str, dict[str, Wait]]
    """Why videos are waiting: by batch id, then job id."""


@dataclass(frozen=True, slots=True)
class ReleaseOrder:
    """How to release a batch."""

    wanted: bool
    """Whether another process is to continue it."""
    error: str | None = None


@dataclass(slots=True)
class Agenda:
    """What a Dispatcher has to do, and leaves to the next one if it dies."""

    asked: set[str] = field(default_factory=set)
    """The batches in its care: requested here, or claimed."""
    own: set[str] = field(default_factory=set)
    """Those requested here: they also fail here if the key is refused."""
    releasing: dict[str, ReleaseOrder] = field(default_factory=dict)
    dropped: set[str] = field(default_factory=set)
    """Released here: not claimed again until requested here."""
    deaths: dict[str, list[float]] = field(default_factory=dict)
    """When supervisors died, by their batches."""
    everything: bool = False
    """Whether to claim batches that were not requested here too."""
    unread: list[DispatcherMessage] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """The input of a look at the database: the Dispatcher's state, for another thread."""

    asked: frozenset[str]
    running: frozenset[str]
    epochs: dict[str, int]
    releasing: dict[str, bool]
    """Batches without a supervisor to release, and whether they stay wanted."""
    room: int
    others: bool
    """Whether to claim batches that were not requested here too."""
    spared: frozenset[str]
    """Batches not to claim: their supervisors died too often recently, or they were released."""


def moved_on(standing: tuple[Any, int, str | None] | None, epoch: int) -> bool:
    """Whether a batch of ours was cancelled, taken over or deleted."""
    return standing is None or standing[1] != epoch


def load(storage: Storage, batch_id: str) -> Loaded:
    """A batch that was just claimed, as it is recorded.

    Raises:
        ValueError, LookupError, TypeError, RecursionError: it can't be read.
    """
    batch = storage.batches.get(batch_id)
    assert batch is not None
    open_jobs = storage.jobs.of_batch(batch_id, open_only=True)
    live = storage.submissions.live_of_batch(batch_id)
    submissions: tuple[SubmissionRecord, ...] = ()
    if batch.epoch > 1:  # somebody else may have submitted some of it
        known, mine = {each.id for each in live.values()}, {job.id for job in open_jobs}
        tries = storage.submissions.of_this_batch(batch)
        submissions = tuple(each for each in tries if each.job_id in mine and each.id not in known)
    failed = storage.jobs.last_failed(batch_id) if batch.failed else None
    loaded = Loaded(batch, open_jobs, live, earlier=Earlier(submissions, failed.error if failed else None))
    for record in (loaded.batch, *loaded.open_jobs, *loaded.live.values()):
        check(record)
    return loaded
