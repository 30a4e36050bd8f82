"""A batch as the page shows it: what is read of the database, each in one look, and what the templates get."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from actors.batch.loading import unknown_batch
from actors.messages import Wait
from actors.settings.server import SIMULATOR
from actors.web.page import words
from storage.records import BatchRecord, Document, EventRecord, JobRecord
from storage.states import FINAL_BATCH, BatchStatus, JobStatus
from storage.storage import Storage

if TYPE_CHECKING:
    from actors.service import BatchService

LISTED, RUNNING = 50, 12
"""Batches a page, and at most so many of those that are made now, above them."""
PAGE = 60
"""Videos a page."""
EVENTS_LOOKED_AT, EVENTS = 120, 200
"""Of the newest events so many are looked at for a batch's page; a page of the time line has so many."""
SHOWN_MOMENTS = 12
"""Lines of the time line on a batch's own page."""
FILTERS: dict[str, tuple[str, tuple[JobStatus, ...]]] = {
    "completed": ("Completed", (JobStatus.COMPLETED,)),
    "failed": ("Failed", (JobStatus.FAILED,)),
    "cancelled": ("Cancelled", (JobStatus.CANCELLED,)),
    "processing": ("In progress", (JobStatus.SUBMITTING, JobStatus.GENERATING, JobStatus.DOWNLOADING)),
    "pending": ("Waiting", (JobStatus.PENDING,)),
}
"""The filters of a batch's videos: words, and the states."""


class BatchView:
    """A batch, without its videos."""

    def __init__(self, record: BatchRecord, cost: Sequence[Mapping[str, Any]] = ()) -> None:
        """`cost`: what it costs, with one entry per currency."""
        self.id, self.name, self.title = record.id, record.name, record.name or record.id
        queued = record.status is BatchStatus.PENDING and record.wanted
        self.status = record.status.value
        self.state = words.QUEUED if queued else words.BATCH_STATES[record.status]
        self.ended = record.status in FINAL_BATCH
        self.total, self.processing = record.total, record.processing
        self.completed, self.failed, self.cancelled = record.completed, record.failed, record.cancelled
        finished = record.completed + record.failed + record.cancelled
        self.pending = record.total - finished - record.processing
        self.percentage = finished * 100 // record.total
        self.error = words.error(record.error)
        self.budget = ", ".join(f"{each['amount']} {each['unit']}" for each in record.budget or ())
        """As it is written: `20 USD, 30 seconds`; empty where there is none."""
        self.simulated = record.provider == SIMULATOR
        self.cost = words.cost(() if self.simulated else cost)
        """The sum, and what it is made of; both empty where nothing is known of it."""
        self.metadata = words.pairs(record.metadata)
        self.created_at, self.completed_at, self.updated_at = record.created_at, record.completed_at, record.updated_at
        self.worked = words.span(record.spent)
        self.startable = not (self.ended or record.wanted or record.status is BatchStatus.PROCESSING)
        """Nobody has asked for it to be made yet."""
        self.retryable = record.failed + record.cancelled if self.ended else 0
        """How many of its videos can be retried now."""

    @property
    def numbers(self) -> dict[str, int]:
        """What changes while it is made."""
        return {name: getattr(self, name) for name in (*FILTERS, "percentage")}

    @property
    def filters(self) -> list[tuple[str, str, int]]:
        """The filters of its videos: value, words, and how many there are."""
        return [(name, text, getattr(self, name)) for name, (text, _) in FILTERS.items()]


@dataclass(frozen=True, slots=True)
class Paging:
    """Which page of how many."""

    number: int
    last: int

    @classmethod
    def of(cls, number: int, entries: int) -> Paging:
        """The page that is asked for, or the nearest that there is."""
        last = max(1, -(-entries // PAGE))
        return cls(min(max(1, number), last), last)

    @property
    def skip(self) -> int:
        """The entries before it."""
        return (self.number - 1) * PAGE


def waits_of(service: BatchService, batch_id: str) -> dict[str, str]:
    """Why videos of a batch wait, as far as this process makes them."""
    return waiting(service.waits(batch_id), time.monotonic())


def waiting(waits: Mapping[str, Wait], now: float) -> dict[str, str]:
    """`rate limited; next try in 7 s`, by job id; "" is the whole batch."""
    return {key: _waiting(wait, now) for key, wait in waits.items()}


def _waiting(wait: Wait, now: float) -> str:
    left = wait.until - now
    return f"{wait.reason}; next try in {math.ceil(left)} s" if 0 < left < math.inf else wait.reason


def read_list(
    storage: Storage, status: BatchStatus | None, metadata: Mapping[str, str], after: str | None
) -> tuple[list[BatchRecord], list[BatchRecord], bool]:
    """What is made now, a page of the list, and whether there are more.

    Raises:
        NotFound: there is no batch `after`.
    """
    if after is not None and storage.batches.get(after) is None:
        raise unknown_batch(storage, after)
    found = storage.batches.find(status=status, spelled=metadata, limit=LISTED + 1, after=after)
    return storage.batches.running(RUNNING), found[:LISTED], len(found) > LISTED


class BatchRead(NamedTuple):
    """A batch with a page of its videos, and its newest events, oldest first."""

    batch: BatchRecord
    pages: Paging
    jobs: list[JobRecord]
    events: list[EventRecord]
    cost: list[Document]


def cost_of(storage: Storage, batch: BatchRecord) -> list[Document]:
    """What a batch costs, with one entry per currency."""
    found = storage.costs.of_batches([batch]).get(batch.id)
    return [] if found is None else found.whole


def batch_of(storage: Storage, batch_id: str) -> BatchRecord:
    """A batch.

    Raises:
        NotFound: there is none.
    """
    batch = storage.batches.get(batch_id)
    if batch is None:
        raise unknown_batch(storage, batch_id)
    return batch


def read_batch(storage: Storage, batch_id: str, shown: str | None, page: int) -> BatchRead:
    """A page of a batch.

    Raises:
        NotFound: there is no such batch.
    """
    batch = batch_of(storage, batch_id)
    pages = Paging.of(page, batch.total if shown is None else BatchView(batch).numbers[shown])
    statuses = None if shown is None else FILTERS[shown][1]
    jobs = storage.jobs.page(batch_id, limit=PAGE, skip=pages.skip, statuses=statuses)
    first = max(1, batch.sequence - EVENTS_LOOKED_AT + 1)
    events = storage.journal.read(batch_id, first)
    return BatchRead(batch, pages, jobs, events, cost_of(storage, batch))


def read_history(storage: Storage, batch_id: str, before: int | None) -> tuple[BatchRecord, int, list[EventRecord]]:
    """A batch and some of its events, oldest first: the number of the first, and those up to `before`.

    Raises:
        NotFound: there is no such batch.
    """
    batch = batch_of(storage, batch_id)
    last = batch.sequence + 1 if before is None else min(before, batch.sequence + 1)
    first = max(1, last - EVENTS)
    return batch, first, [each for each in storage.journal.read(batch_id, first, EVENTS) if each.sequence < last]
