"""What a page reads of the database, each in one look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from actors.batch.cancellation import may_be_charged
from actors.batch.loading import unknown_batch
from actors.batch.views import Charge
from actors.errors import NotFound
from actors.web.page.models import FILTERS, PAGE, RETRIED, Pages
from storage.records import BatchRecord, Document, EventRecord, JobRecord
from storage.states import BatchStatus
from storage.storage import Storage

LISTED, RUNNING = 50, 12
"""Batches a page, and at most so many of those that are made now, above them."""
EVENTS_LOOKED_AT, EVENTS = 120, 200
"""Of the newest events so many are looked at for a batch's page; a page of the time line has so many."""
SHOWN_MOMENTS = 12
"""Lines of the time line on a batch's own page."""
OFFERED = 100
"""Videos on the form of a retry."""


@dataclass(frozen=True, slots=True)
class ListRead:
    """The list of batches."""

    running: list[BatchRecord]
    batches: list[BatchRecord]
    more: bool


def read_list(storage: Storage, status: BatchStatus | None, metadata: Mapping[str, str], after: str | None) -> ListRead:
    """A page of the list, and what is made now.

    Raises:
        NotFound: there is no batch `after`.
    """
    if after is not None and storage.batches.get(after) is None:
        raise unknown_batch(storage, after)
    found = storage.batches.find(status=status, spelled=metadata, limit=LISTED + 1, after=after)
    return ListRead(storage.batches.running(RUNNING), found[:LISTED], len(found) > LISTED)


@dataclass(frozen=True, slots=True)
class BatchRead:
    """A batch with a page of its videos, and its newest events, oldest first."""

    batch: BatchRecord
    pages: Pages
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
    entries = batch.total if shown is None else _count(batch, shown)
    pages = Pages.of(page, entries)
    statuses = None if shown is None else FILTERS[shown]
    jobs = storage.jobs.page(batch_id, limit=PAGE, skip=pages.skip, statuses=statuses)
    first = max(1, batch.sequence - EVENTS_LOOKED_AT + 1)
    events = storage.journal.read(batch_id, first)
    return BatchRead(batch, pages, jobs, events, cost_of(storage, batch))


def _count(batch: BatchRecord, shown: str) -> int:
    pending = batch.total - batch.completed - batch.failed - batch.cancelled - batch.processing
    return {"pending": pending}.get(shown) or int(getattr(batch, shown, 0))


def read_job(storage: Storage, batch_id: str, index: int) -> tuple[BatchRecord, JobRecord]:
    """A video and its batch.

    Raises:
        NotFound: there is no such batch or video.
    """
    batch, job = batch_of(storage, batch_id), storage.jobs.at(batch_id, index)
    if job is None:
        raise NotFound(f"batch {batch_id} has no video {index}: its videos are 1 to {batch.total}")
    return batch, job


def read_details(storage: Storage, batch_id: str, index: int) -> tuple[BatchRecord, JobRecord, list[Document]]:
    """A video, its batch, and what the video costs.

    Raises:
        NotFound: there is no such batch or video.
    """
    batch, job = read_job(storage, batch_id, index)
    return batch, job, storage.costs.of_batch(batch, [job.id]).of_job(job.id)


def read_retryable(
    storage: Storage, batch_id: str, chosen: int | None, *, limit: int = OFFERED
) -> tuple[BatchRecord, list[JobRecord]]:
    """A batch and those of its videos that can be retried, or the one that is chosen.

    Raises:
        NotFound: there is no such batch or video.
    """
    if chosen is not None:
        batch, job = read_job(storage, batch_id, chosen)
        return batch, [job]
    batch = batch_of(storage, batch_id)
    return batch, storage.jobs.page(batch_id, limit=limit, statuses=RETRIED)


def read_charges(storage: Storage, batch_id: str) -> tuple[BatchRecord, list[Charge]]:
    """A batch, and what may still be charged if it is cancelled, or since it was.

    Raises:
        NotFound: there is no such batch.
    """
    return batch_of(storage, batch_id), may_be_charged(storage, batch_id)


def read_history(storage: Storage, batch_id: str, before: int | None) -> tuple[BatchRecord, int, list[EventRecord]]:
    """A batch and some of its events, oldest first: the number of the first, and those up to `before`.

    Raises:
        NotFound: there is no such batch.
    """
    batch = batch_of(storage, batch_id)
    last = batch.sequence + 1 if before is None else min(before, batch.sequence + 1)
    first = max(1, last - EVENTS)
    return batch, first, [each for each in storage.journal.read(batch_id, first, EVENTS) if each.sequence < last]
