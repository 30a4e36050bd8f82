"""One command that runs batches: from the checks before anything is created, over their end, to the exit code."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from actors.cli.batch_files import Request, located
from actors.cli.follow import Follower, show_for, viewed
from actors.cli.options import opened, warn
from actors.cli.outputs import OutputFolder
from actors.cli.signals import Interrupted, Interruption
from actors.cli.table import look_for_it, print_batch, print_json, print_paths, unknown_ones
from actors.cli.text import count
from actors.errors import ErrorCode, InvalidRequest, SoraBatchError
from storage.states import BatchStatus

if TYPE_CHECKING:
    from actors.cli.view import BatchView
    from actors.model import Batch, Job
    from actors.service import BatchService
    from actors.waiting import RunningBatch

EXIT_CODES = {
    BatchStatus.COMPLETED: 0,
    BatchStatus.FAILED: 1,
    BatchStatus.PARTIAL: 3,
    BatchStatus.CANCELLED: 4,
}
_LET_GO_AT_ONCE = 8
SIMULATED = (
    "These videos are simulated: no video model made them, and nothing was paid. To have real ones made, set "
    "OPENAI_BASE_URL to a server that speaks the Videos API (and OPENAI_API_KEY to its key), "
    "then: sora-batch run FILE"
)


class Session:
    """How one command shows and delivers what it runs."""

    def __init__(self, output: Path | None, *, simulate: bool, json: bool, quiet: bool, verbose: bool) -> None:
        self._output = OutputFolder(output) if output is not None else None
        self._simulate, self._json, self._quiet, self._verbose = simulate, json, quiet, verbose
        self._interruption = Interruption()

    def run_new(self, request: Request, concurrency: int | None) -> None:
        """Create a batch and run it."""
        with self._service() as service:
            try:
                batch = service.create_batch(request)
            except InvalidRequest as error:
                raise located(error, request) from None
            view = viewed(service, batch.id)
            self._announce(batch)
            running = service.process_batch(batch.id, concurrency)
            view.concurrency = concurrency or view.concurrency
            self._finish(service, [running], [view])

    def resume(self, batch_id: str | None) -> None:
        """Go on with one batch, or with all."""
        with self._service() as service:
            if batch_id is not None:
                view = viewed(service, batch_id)
                self._finish(service, service.resume_batches([batch_id]), [view])
                return
            running = service.resume_batches()
            if not running:
                warn(f"there is nothing to resume in the database {service.database_place}")
            self._finish(service, running, [viewed(service, each.batch_id) for each in running], several=True)

    def retry(
        self,
        batch_id: str,
        jobs: list[str] | None,
        changes: dict[str, dict[str, Any]] | None,
        *,
        pay_again: bool,
        move_server: bool,
    ) -> None:
        """Run a batch's ended videos again."""
        with self._service() as service:
            view = viewed(service, batch_id)
            if view.finished and not (jobs or changes or pay_again):
                self._tell_what_is_unknown(view)
            running = service.retry_batch(batch_id, jobs, changes, pay_again, move_server)
            self._tell_what_is_left_alone([view.jobs[job_id] for job_id in running.left_alone], view.id)
            self._finish(service, [running], [view])

    def _tell_what_is_unknown(self, view: BatchView) -> None:
        for number in unknown_ones(view.jobs.values()):
            way_out = look_for_it(view.id, number, self._options)
            warn(f"video {number} is left alone: whether it was made is unknown{way_out}")

    def _tell_what_is_left_alone(self, jobs: Sequence[Job], batch_id: str) -> None:
        for job in jobs:
            if job.error is not None and job.error.code != ErrorCode.SUBMISSION_UNKNOWN:
                change = f"sora-batch retry {batch_id}{self._options} --job {job.index} --prompt 'ANOTHER PROMPT'"
                warn(f"video {job.index} is left alone: {job.error.code} would come again; change it: {change}")

    @property
    def _options(self) -> str:
        return " --simulate" if self._simulate else ""

    @contextmanager
    def _service(self) -> Iterator[BatchService]:
        """The service, once everything is checked that can be before a batch is created."""
        if self._output is not None:
            self._output.check()
        if self._simulate:
            from actors.sora.simulator.films import require_drawing

            require_drawing()
        plain = not (self._quiet or sys.stderr.isatty())
        level = "info" if plain else "warning"
        with (
            self._interruption,
            opened(verbose=self._verbose, simulate=self._simulate, default_level=level) as service,
        ):
            if not self._verbose:  # what we make ourselves is told as progress
                logging.getLogger("actors.sora.simulator").setLevel(logging.WARNING)
            _ = service.provider  # raises where no server is named
            yield service

    def _finish(
        self, service: BatchService, running: list[RunningBatch], views: list[BatchView], *, several: bool = False
    ) -> None:
        show = show_for(quiet=self._quiet)
        try:
            batches = Follower(service, show, self._output).follow(running, views, self._interruption)
        except Interrupted as interrupted:
            self._let_go(service, [each.batch_id for each in running if not each.done()])
            if self._json:
                ids = [each.batch_id for each in running]
                self._print_documents([service.get_batch_status(each) for each in ids], several=several)
            raise typer.Exit(interrupted.exit_code) from None
        self._conclude(batches, several=several)
        raise typer.Exit(self._exit_code(batches))

    def _let_go(self, service: BatchService, batch_ids: Sequence[str]) -> None:
        if batch_ids:
            warn("letting go, within 5 s (once more to leave at once) ...")
            with ThreadPoolExecutor(_LET_GO_AT_ONCE) as threads:
                list(threads.map(lambda batch_id: self._let_one_go(service, batch_id), batch_ids))

    def _let_one_go(self, service: BatchService, batch_id: str) -> None:
        try:
            service.let_go(batch_id)
            progress = service.get_batch_status(batch_id).progress
        except (SoraBatchError, TimeoutError) as error:
            warn(f"batch {batch_id} could not be let go: {error}; go on with: sora-batch resume {batch_id}")
            return
        simulate = " --simulate" if self._simulate else ""
        server = f", {count(progress.processing, 'video')} with the server" if progress.processing else ""
        warn(
            f"batch {batch_id} is let go, not cancelled: {progress.completed} of {progress.total} done{server}. "
            f"Go on: sora-batch resume {batch_id}{simulate}. Give up: sora-batch cancel {batch_id}"
        )

    def _conclude(self, batches: list[Batch], *, several: bool) -> None:
        if self._json:
            self._print_documents(batches, several=several)
        elif self._quiet:
            for batch in batches:
                print_paths(batch, self._placed)
        else:
            for batch in batches:
                print_batch(batch, self._placed, simulated=self._simulate)
            if batches and self._simulate:
                typer.echo(SIMULATED)
        for problem in self._output.problems.values() if self._output else ():
            warn(problem)

    def _print_documents(self, batches: list[Batch], *, several: bool) -> None:
        documents = [batch.model_dump(mode="json") for batch in batches]
        print_json(documents if several else documents[0])

    def _announce(self, batch: Batch) -> None:
        if not self._quiet:
            name = f" ({batch.name})" if batch.name else ""
            maker = ", simulated: no server is asked" if self._simulate else ""
            warn(f"batch {batch.id}{name}: {count(batch.progress.total, 'video')}{maker}")

    @property
    def _placed(self) -> dict[str, Path]:
        return self._output.placed if self._output is not None else {}

    def _exit_code(self, batches: list[Batch]) -> int:
        codes = {EXIT_CODES[batch.status] for batch in batches} or {0}
        code = codes.pop() if len(codes) == 1 else EXIT_CODES[BatchStatus.PARTIAL]
        undelivered = self._output is not None and self._output.problems
        return 1 if undelivered and code == 0 else code
