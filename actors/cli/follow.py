"""Follows batches by the journal of their database to their end: those that run in this process, or one that doesn't.

Decides nothing about batches: they run by themselves; it reads what is recorded.
"""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import wait
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from actors.batch.events import FINAL_EVENTS, Event, EventName
from actors.batch.job_views import job_id
from actors.cli.view import BatchView, LineShow, Show, ended_by
from actors.errors import NotFound, SoraBatchError, StorageError
from storage.states import FINAL_BATCH

if TYPE_CHECKING:
    from actors.batch.job_views import Job
    from actors.batch.views import Batch
    from actors.cli.app import Interruption
    from actors.cli.outputs import OutputFolder
    from actors.service import BatchService
    from actors.service.waiting import RunningBatch

_TICK = 0.15
_REFRESH = 1.0
_SMALL = 200
"""Up to this many videos, changes that are no events (a slow submission) are read every second."""
_POLL = 0.2
"""Seconds between two looks at the journal."""
_PAGE = 1000
_SOURCE = "/sora-batch/database"
_ENDING = frozenset({*FINAL_EVENTS.values(), EventName.BATCH_DELETED})


def show_for(*, quiet: bool) -> Show:
    """The live view on a terminal; lines elsewhere."""
    if quiet:
        return Show()
    if sys.stderr.isatty():  # without rich, which is needed nowhere else, the first POST goes out sooner
        from rich.console import Console

        console = Console(stderr=True, highlight=False)
        if console.is_terminal and not console.is_dumb_terminal:
            from actors.cli.live import LiveShow

            return LiveShow(console)
    return LineShow(sys.stderr)


def viewed(service: BatchService, batch_id: str) -> BatchView:
    """A batch as it is now, to be updated by later events."""
    past = service.history(batch_id)
    return BatchView(service.get_batch_status(batch_id), int(past[-1].sequence) if past else 0)


class Follower:
    """Follows batches that run in this process to their end: shows them, and copies their files to --output."""

    def __init__(self, service: BatchService, show: Show, output: OutputFolder | None) -> None:
        self._service, self._show, self._output = service, show, output
        if output is not None:
            output.stores = service.stores
        self._refreshed = time.monotonic()
        self.failures: dict[str, SoraBatchError] = {}
        """Why batches could not be run to their end here, by their ids."""

    def follow(
        self, running: Sequence[RunningBatch], views: Sequence[BatchView], interruption: Interruption
    ) -> list[Batch]:
        """Wait for all to end, and return those that did; the others are in `failures`.

        Raises:
            Interrupted: a signal came.
        """
        with self._show:
            open_ones = bool(running)
            while open_ones:
                open_ones = bool(wait(running, timeout=_TICK).not_done)
                for view in views:
                    self._look(view)
                if open_ones:
                    interruption.check()
        batches = []
        for future in running:
            try:
                batches.append(future.result())
            except SoraBatchError as error:
                self.failures[future.batch_id] = error
        for batch in batches:
            self._deliver(batch)
        return batches

    def _look(self, view: BatchView) -> None:
        try:
            events = self._service.history(view.id, view.sequence + 1)
            if self._due() and len(view.jobs) <= _SMALL:
                view.refresh(self._service.get_batch_status(view.id).jobs)
        except StorageError:
            events = []  # the database is unavailable: the batch waits, and so do we
        except NotFound:
            events = []  # it was deleted: its Future says so, and others may still run
        for event in events:
            if view.apply(event):
                self._show.tell(event, view)
                job = ended_by(event)
                if job is not None and self._output is not None:
                    self._place(job, view.jobs, view.progress.total)
        self._show.tick(view, {} if view.finished else self._service.waits(view.id))

    def _due(self) -> bool:
        now = time.monotonic()
        if now - self._refreshed < _REFRESH:
            return False
        self._refreshed = now
        return True

    def _deliver(self, batch: Batch) -> None:
        """Copy what had finished before, and what could not be copied at first."""
        if self._output is not None:
            jobs = {job.id: job for job in batch.jobs}
            for job in batch.jobs:
                self._place(job, jobs, batch.progress.total)

    def _place(self, job: Job, jobs: Mapping[str, Job], total: int) -> None:
        assert self._output is not None
        following = jobs.get(job_id(job.id.rpartition("-")[0], job.index + 1))
        of_takes = job.take > 1 or (following is not None and following.take == 2)
        self._output.place(job, total, of_takes=of_takes)


class Journal:
    """The batches of a database, with the methods of a client of RabbitMQ that following one needs."""

    def __init__(self, service: BatchService) -> None:
        self._service = service

    def report(self, batch_id: str) -> Batch:
        """A batch as it is.

        Raises:
            NotFound: there is no such batch.
        """
        return self._service.get_batch_status(batch_id)

    def events(self, batch_id: str, _: None) -> nullcontext[JournalStream]:
        """A batch, and its events from now on.

        Raises:
            NotFound: there is no such batch.
        """
        return nullcontext(JournalStream(self._service, batch_id))


class JournalStream:
    """The events of one batch until it ends, in order and each once."""

    def __init__(self, service: BatchService, batch_id: str) -> None:
        self._service = service
        self.batch, self.sequence = service.versioned(batch_id)
        """The batch as it was at the beginning, and the number of the last event that it includes."""
        self.ended = self.batch.status in FINAL_BATCH
        """Whether all events up to the batch's end were yielded."""
        self._read, self._waiting = self.sequence, deque[Event]()

    @property
    def report(self) -> dict[str, Any]:
        """The batch at the beginning, as `batch.reported` has it."""
        from actors.rabbitmq.answers import reported

        at = self._service.now()
        document = reported(self.batch, self.sequence, correlation=self.batch.id, source=_SOURCE, at=at)
        return dict(json.loads(document))

    def next(self, _: float) -> Event | None:
        """The next event; None: there was none yet, after a short wait.

        Raises:
            NotFound: the batch was deleted, and its history removed.
        """
        if not self._waiting:
            self._look()
        if not self._waiting:
            time.sleep(_POLL)
            return None
        event = self._waiting.popleft()
        self.ended = event.name in _ENDING
        return event

    def _look(self) -> None:
        try:
            exists = self._exists()  # before the journal: what was recorded until then is in it
            records = self._service.recorded(self.batch.id, self._read + 1, _PAGE)
            if not records and not exists:
                self._service.sequence(self.batch.id)
        except StorageError:
            return  # the database is away for a while, and whoever runs the batch waits too
        self._waiting.extend(map(Event.parse, records))
        self._read = records[-1].sequence if records else self._read

    def _exists(self) -> bool:
        try:
            self._service.sequence(self.batch.id)
        except NotFound:
            return False
        return True
