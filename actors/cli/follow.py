"""Follows batches that run in this process: shows them, puts their files where they are wanted, waits for their end.

Decides nothing about batches: they go on by themselves, and it looks at what is recorded.
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
    from actors.cli.outputs import OutputFolder
    from actors.cli.signals import Interruption
    from actors.messages import Wait
    from actors.service import BatchService
    from actors.waiting import RunningBatch

TICK = 0.15
_REFRESH = 1.0
_SMALL = 200
"""Up to so many videos, what is no event (a submission that takes long) is looked at each second."""


class Show(Protocol):
    """What shows batches to a person."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...

    def tell(self, event: Event, view: BatchView) -> None:
        """An event came, and is folded into the view."""

    def tick(self, view: BatchView, waits: Mapping[str, Wait]) -> None:
        """Some time passed."""


class Silence:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is held."""

    def tell(self, event: Event, view: BatchView) -> None:
        """Say nothing."""

    def tick(self, view: BatchView, waits: Mapping[str, Wait]) -> None:
        """Say nothing."""


def show_for(*, quiet: bool) -> Show:
    """The live view on a terminal; lines elsewhere."""
    if quiet:
        return Silence()
    if sys.stderr.isatty():  # elsewhere rich is not needed, and the first POST goes out the sooner without it
        from rich.console import Console

        console = Console(stderr=True, highlight=False)
        if console.is_terminal and not console.is_dumb_terminal:
            from actors.cli.live import LiveShow

            return LiveShow(console)
    from actors.cli.text import LineShow

    return LineShow(sys.stderr)


def viewed(service: BatchService, batch_id: str) -> BatchView:
    """A batch as it is, to be moved on by the events that come after this."""
    past = service.history(batch_id)
    return BatchView(service.get_batch_status(batch_id), int(past[-1].sequence) if past else 0)


class Follower:
    """Follows some batches to their end."""

    def __init__(self, service: BatchService, show: Show, output: OutputFolder | None) -> None:
        self._service, self._show, self._output = service, show, output
        self._refreshed = time.monotonic()
        self.failures: dict[str, SoraBatchError] = {}
        """Why batches could not be run to their end here, by their ids."""

    def follow(
        self, running: Sequence[RunningBatch], views: Sequence[BatchView], interruption: Interruption
    ) -> list[Batch]:
        """Wait for the end of all, and give those that were run to it; the others are in `failures`.

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
            events = []  # the database is away: the batch waits it out, and so do we
        except NotFound:
            events = []  # somebody has deleted it: its Future says so, and others may still run
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
        """What had finished before, and what could not be put there at first."""
        if self._output is not None:
            jobs = {job.id: job for job in batch.jobs}
            for job in batch.jobs:
                self._place(job, jobs, batch.progress.total)

    def _place(self, job: Job, jobs: Mapping[str, Job], total: int) -> None:
        assert self._output is not None
        following = jobs.get(job_id(job.id.rpartition("-")[0], job.index + 1))
        of_takes = job.take > 1 or (following is not None and following.take == 2)
        self._output.place(job, total, of_takes=of_takes)
