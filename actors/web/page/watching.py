"""Watching: what has changed in a batch, or in the list of batches, since the last look."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actors.web.page import batches, videos, words
from actors.web.page.batches import BatchView
from actors.web.page.rendering import Renderer
from storage.records import BatchRecord, Document, EventRecord, JobRecord
from storage.states import FINAL_BATCH, FINAL_JOB
from storage.storage import Storage

if TYPE_CHECKING:
    from actors.web.handlers import Site

RELOAD = {"reload": True}
"""More has changed than is told one by one: the browser asks for the whole page."""
_OVERLAP = 5.0
"""Seconds: the clock of a batch's next owner may be so much behind."""
_MOST = 150
"""Videos in a message."""


class BatchWatch:
    """Finds what has changed in a batch since the last look.

    Args:
        site: where.
        renderer: makes the cards.
        batch_id: the batch.
        seen: what changed before is known, in seconds since 1970.
    """

    def __init__(self, site: Site, renderer: Renderer, batch_id: str, seen: float) -> None:
        self._site, self._renderer, self._batch_id = site, renderer, batch_id
        self._seen, self._sequence = seen, 0
        self._cost: list[Document] = []
        self._jobs: dict[int, tuple[str, int, float]] = {}
        self._status: tuple[str, bool] | None = None
        self._edited: tuple[Document, list[Document] | None] | None = None
        """What can be edited, as it was."""
        self._waits: dict[str, str] = {}

    def look(self) -> dict[str, Any] | None:
        """What has changed, or None. Blocks: to be called beside the loop.

        Raises:
            NotFound: the batch is gone.
            StorageError: the database is away.
        """
        batch, jobs, events, cost = self._site.service.look(self._read)
        waits = batches.waits_of(self._site.service, self._batch_id) if batch.status not in FINAL_BATCH else {}
        self._cost = cost
        message = self._message(batch, BatchView(batch, cost), jobs, waits)
        if message and message is not RELOAD and events:
            moments = words.time_line(events)[: batches.SHOWN_MOMENTS]
            if moments:
                message["moments"] = self._renderer.part("moments", self._batch_id, moments)
        self._seen, self._sequence = batch.updated_at, batch.sequence
        return message

    def _read(self, storage: Storage) -> tuple[BatchRecord, list[JobRecord], list[EventRecord], list[Document]]:
        batch, told = batches.batch_of(storage, self._batch_id), self._sequence
        if self._status is not None and (batch.updated_at, batch.sequence) == (self._seen, told):
            return batch, [], [], self._cost  # each change of a job moves its batch's time
        jobs = storage.jobs.changed_since(self._batch_id, self._seen - _OVERLAP, _MOST + 1)
        first = max(told, batch.sequence - batches.EVENTS_LOOKED_AT) + 1
        events = storage.journal.read(self._batch_id, first) if batch.sequence > told else []
        return batch, jobs, events, batches.cost_of(storage, batch)

    def _message(
        self, batch: BatchRecord, view: BatchView, jobs: list[JobRecord], waits: dict[str, str]
    ) -> dict[str, Any] | None:
        status = batch.status.value, batch.wanted
        changed = [job for job in jobs if self._jobs.get(job.position) != _state(job)]
        before, self._edited = self._edited, (batch.metadata, batch.budget)
        if len(jobs) > _MOST or self._edited != (before or self._edited):
            self._jobs = {}
            return RELOAD
        if not changed and status == self._status and waits == self._waits:
            return None
        message: dict[str, Any] = {
            "at": batch.updated_at, "n": view.numbers, "total": view.total, "ended": view.ended, "cost": view.cost,
        }  # fmt: skip
        if status != self._status:
            message |= {"state": f"{view.status} {view.state}", "head": self._part("head", view, waits.get("", ""))}
        bars, cards = {}, {}
        for job in changed:
            if self._is_new(job):
                cards[job.position] = self._part("card", videos.Card(job, waits.get(job.id, "")))
            else:
                bars[job.position] = job.progress
            self._jobs[job.position] = _state(job)
        if waits or self._waits:
            message["waits"] = _by_position(waits, self._batch_id)
        recent = {job.position for job in jobs}
        over = [each for each, state in self._jobs.items() if state[0] in FINAL_JOB and each not in recent]
        for position in over:
            del self._jobs[position]
        self._status, self._waits = status, waits
        return {**message, "bars": bars, "cards": cards}

    def _is_new(self, job: JobRecord) -> bool:
        known = self._jobs.get(job.position)
        return known is None or known[0] != job.status.value or known[2] != _started(job)

    def _part(self, macro: str, *arguments: Any) -> str:
        return self._renderer.part(macro, *arguments, self._site.access.read_only)


def _state(job: JobRecord) -> tuple[str, int, float]:
    return job.status.value, job.progress, _started(job)


def _started(job: JobRecord) -> float:
    return job.started_at or 0.0


def _by_position(waits: dict[str, str], batch_id: str) -> dict[str, str]:
    return {key.removeprefix(f"{batch_id}-").lstrip("0"): text for key, text in waits.items()}


class ListWatch:
    """Finds what has changed in the list of batches since the last look."""

    def __init__(self, site: Site, renderer: Renderer) -> None:
        self._site, self._renderer = site, renderer
        self._running: dict[str, BatchRecord] | None = None
        self._newest: set[str] = set()

    def look(self) -> dict[str, Any] | None:
        """What has changed, or None. Blocks: to be called beside the loop.

        Raises:
            StorageError: the database is away.
        """
        known = self._running

        def read(storage: Storage) -> tuple[dict[str, BatchRecord], list[BatchRecord], list[BatchRecord]]:
            running = {each.id: each for each in storage.batches.running(batches.RUNNING)}
            gone = [storage.batches.get(batch_id) for batch_id in (known or {}) if batch_id not in running]
            return running, [each for each in gone if each is not None], storage.batches.find(limit=batches.RUNNING)

        running, ended, newest = self._site.service.look(read)
        message: dict[str, Any] = {}
        if known is None or running.keys() != known.keys():
            views = [BatchView(each) for each in running.values()]
            message["running"] = self._renderer.page("running", {"running": views})
        before = known or {}
        moved = [each for each in running.values() if _moves(before.get(each.id)) != _moves(each)]
        message |= {"b": {each.id: BatchView(each).numbers for each in moved}} if moved else {}
        changed = [each for each in running.values() if known is not None and _changed(before.get(each.id), each)]
        if changed or ended:
            message["rows"] = {each.id: self._row(each) for each in (*changed, *ended)}
        new = [each for each in newest if each.id not in self._newest]
        if new and known is not None:
            message["new"] = [[each.id, self._row(each)] for each in reversed(new)]
        self._running, self._newest = running, {each.id for each in newest}
        return message or None

    def _row(self, record: BatchRecord) -> str:
        return self._renderer.part("row", BatchView(record))


def _changed(before: BatchRecord | None, record: BatchRecord) -> bool:
    return before is None or before.status != record.status


def _moves(record: BatchRecord | None) -> tuple[int, ...] | None:
    if record is None:
        return None
    return record.completed, record.failed, record.cancelled, record.processing
