"""Follows batches that run in this process: shows them, copies their files to --output, waits for their end.

Decides nothing about batches: they run by themselves; it reads what is recorded.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import wait
from typing import TYPE_CHECKING, Protocol, Self

from actors.batch.requests import job_id
from actors.cli.view import BatchView, ended_by
from actors.errors import NotFound, SoraBatchError, StorageError

if TYPE_CHECKING:
    from actors.batch.events import Event
    from actors.batch.views import Batch, Job
    from actors.cli.app import Interruption
    from actors.cli.outputs import OutputFolder
    from actors.messages import Wait
    from actors.service import BatchService
    from actors.service.waiting import RunningBatch

TICK = 0.15
_REFRESH = 1.0
_SMALL = 200
"""Up to this many videos, changes that are no events (a slow submission) are read every second."""


class Show(Protocol):
    """Shows batches to a person."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...

    def tell(self, event: Event, view: BatchView) -> None:
        """Called for an event that was applied to the view."""

    def tick(self, view: BatchView, waits: Mapping[str, Wait]) -> None:
        """Called at short intervals."""


class Silence:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Holds nothing."""

    def tell(self, event: Event, view: BatchView) -> None:
        """Say nothing."""

    def tick(self, view: BatchView, waits: Mapping[str, Wait]) -> None:
        """Say nothing."""


def show_for(*, quiet: bool) -> Show:
    """The live view on a terminal; lines elsewhere."""
    if quiet:
        return Silence()
    if sys.stderr.isatty():  # without rich, which is needed nowhere else, the first POST goes out sooner
        from rich.console import Console

        console = Console(stderr=True, highlight=False)
        if console.is_terminal and not console.is_dumb_terminal:
            from actors.cli.live import LiveShow

            return LiveShow(console)
    from actors.cli.text import LineShow

    return LineShow(sys.stderr)


def viewed(service: BatchService, batch_id: str) -> BatchView:
    """A batch as it is now, to be updated by later events."""
    past = service.history(batch_id)
    return BatchView(service.get_batch_status(batch_id), int(past[-1].sequence) if past else 0)


class Follower:
    """Follows batches to their end."""

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
                open_ones = bool(wait(running, timeout=TICK).not_done)
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
