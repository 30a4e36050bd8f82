"""A command that runs batches: from the checks before anything is created to the exit code."""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from actors.cli.app import Interrupted, Interruption
from actors.cli.authoring import metadata_keys
from actors.cli.batch_files import located
from actors.cli.filenames import FileNamePattern
from actors.cli.follow import Follower, show_for, viewed
from actors.cli.opening import USAGE, exit_code, opened, prepare, warn
from actors.cli.outputs import OutputFolder
from actors.cli.table import look_for_it, print_batch, print_json, print_paths, say, unknown_ones
from actors.cli.text import count
from actors.cli.web import answering, listening_at, open_browser, wait_for
from actors.errors import Conflict, ErrorCode, InvalidRequest, SoraBatchError, StorageError
from storage.states import BatchStatus

if TYPE_CHECKING:
    from actors.batch.quotes import Quote
    from actors.batch.views import Batch, Job
    from actors.cli.view import BatchView
    from actors.formats.reading import Request
    from actors.service import BatchService
    from actors.service.waiting import RunningBatch
    from actors.settings import Settings

EXIT_CODES = {
    BatchStatus.COMPLETED: 0,
    BatchStatus.FAILED: 1,
    BatchStatus.PARTIAL: 3,
    BatchStatus.CANCELLED: 4,
}
_WORST_FIRST = (1, USAGE, 3, 4)
_MANY = 100_000
_LET_GO_AT_ONCE = 8
SIMULATED = (
    "These videos are simulated: no video model made them, and they cost nothing. For real ones, set "
    "OPENAI_BASE_URL to a server that speaks the Videos API (and OPENAI_API_KEY to its key), "
    "then run: sora-batch run FILE"
)


class Session:
    """How one command shows its batches and delivers their files."""

    def __init__(
        self,
        output: Path | None,
        filename: str | None,
        *,
        simulate: bool,
        json: bool,
        quiet: bool,
        verbose: bool,
        web: str | None = None,
    ) -> None:
        """Say how; `web`: where a browser is shown the batch, too.

        Raises:
            InvalidRequest: `filename` is not a pattern, or given without a folder.
        """
        pattern = FileNamePattern(filename) if filename is not None else None
        if pattern is not None and output is None:
            raise InvalidRequest("--filename needs a folder: give one with --output DIR")
        self._output = OutputFolder(output, pattern) if output is not None else None
        self._simulate, self._json, self._quiet, self._verbose = simulate, json, quiet, verbose
        self._web, self._url = web, ""
        self._interruption = Interruption()

    def run_new(self, request: Request, concurrency: int | None) -> None:
        """Create a batch and run it."""
        self._check_names(metadata_keys(request))
        with self._service() as service, self._answering(service):
            try:
                quoted = service.quote(request) if service.settings.sora_prices else None
                batch = service.create_batch(request)
            except InvalidRequest as error:
                raise located(error, request) from None
            view = viewed(service, batch.id)
            self._announce(batch)
            self._tell_price(quoted)
            self._open_page(batch.id)
            running = service.process_batch(batch.id, concurrency)
            view.concurrency = concurrency or view.concurrency
            self._finish(service, [running], [view])

    def resume(self, batch_id: str | None) -> None:
        """Resume one batch, or all."""
        if batch_id is not None:
            with self._service(batch_id) as service:
                view = viewed(service, batch_id)
                self._check_names(key for job in view.jobs.values() for key in job.metadata)
                self._finish(service, service.resume_batches([batch_id]), [view])
        with self._service() as service:
            running = service.resume_batches()
            if not running:
                self._tell_what_is_unfinished(service)
            self._finish(service, running, [viewed(service, each.batch_id) for each in running], several=True)

    def _check_names(self, metadata: Iterable[str]) -> None:
        """Check that all files can be named; `metadata`: the keys in all videos."""
        if self._output is not None and self._output.pattern is not None:
            self._output.pattern.check_metadata(metadata)

    def _tell_what_is_unfinished(self, service: BatchService) -> None:
        """Nothing to resume here: say what is unfinished on other servers or the simulator."""
        batches = service.list_batches(BatchStatus.PROCESSING, limit=_MANY)
        simulated = sum(service.is_simulated(batch.id) for batch in batches)
        others = len(batches) - simulated
        if simulated and not self._simulate:
            unfinished = f"{count(simulated, 'simulated batch')} {_are(simulated)} unfinished"
            warn(f"{unfinished}; resume with: sora-batch resume --simulate")
        elif others and self._simulate:
            warn(f"{count(others, 'batch')} of a server {_are(others)} unfinished; resume with: sora-batch resume")
        elif others:
            here = service.provider.partition("#")[0]
            warn(
                f"{count(others, 'batch')} of another server {_are(others)} unfinished, none of {here}; "
                "list them with: sora-batch list --status processing"
            )
        else:
            warn(f"nothing to resume in the database {service.database_place}")

    def retry(
        self,
        batch_ids: Sequence[str],
        jobs: list[str] | None,
        changes: dict[str, dict[str, Any]] | None,
        *,
        pay_again: bool,
        move_server: bool,
        budget: list[dict[str, str]] | None = None,
        missing: bool = False,
    ) -> None:
        """Retry videos of ended batches; with `missing`, those whose file is missing and those that are named."""
        several = len(batch_ids) > 1
        running, views, failures = [], [], {}
        with self._service(*batch_ids) as service:
            with service.retrying():
                for batch_id in batch_ids:
                    try:
                        view = viewed(service, batch_id)
                        self._check_names(key for job in view.jobs.values() for key in job.metadata)
                        if view.finished and not (jobs or changes or pay_again or missing):
                            self._tell_what_is_unknown(view, " --move-server" if move_server else "")
                        named = [*(jobs or []), *_missing(service, batch_id)] if missing else jobs
                        retried = service.retry_batch(batch_id, named, changes, pay_again, move_server, budget)
                    except SoraBatchError as error:
                        if not several:
                            raise
                        failures[batch_id] = error
                    else:
                        self._tell_what_is_left_alone([view.jobs[job_id] for job_id in retried.left_alone], view.id)
                        running.append(retried)
                        views.append(view)
            self._finish(service, running, views, several=several, failures=failures)

    def _tell_what_is_unknown(self, view: BatchView, moved: str) -> None:
        for number in unknown_ones(view.jobs.values()):
            way_out = look_for_it(view.id, number, self._options + moved)
            warn(f"video {number} is not retried: whether it was made is unknown{way_out}")

    def _tell_what_is_left_alone(self, jobs: Sequence[Job], batch_id: str) -> None:
        for job in jobs:
            if job.error is not None and job.error.code == ErrorCode.CANCELLED:
                again = f"sora-batch retry {batch_id}{self._options} --job {job.index} --pay-again"
                warn(f"video {job.index} is not retried: the server deleted only its record; to pay again: {again}")
            elif job.error is not None and job.error.code != ErrorCode.SUBMISSION_UNKNOWN:
                change = f"sora-batch retry {batch_id}{self._options} --job {job.index} --prompt 'ANOTHER PROMPT'"
                warn(f"video {job.index} is not retried: it would fail again ({job.error.code}); change it: {change}")

    @contextmanager
    def _service(self, *batch_ids: str) -> Iterator[BatchService]:
        """The service, after all checks that are possible before a batch is created.

        `batch_ids`: of batches that must already be in the database.
        """
        if self._output is not None:
            self._output.check()
        if self._simulate:
            from actors.simulator.films import require_drawing

            require_drawing()
        plain = not (self._quiet or sys.stderr.isatty())
        level = "info" if plain else "warning"
        with (
            self._interruption,
            opened(
                verbose=self._verbose, simulate=self._simulate, default_level=level,
                looked_for=f"batch {batch_ids[0]!r}" if batch_ids else None, settings=self._settings(level),
            ) as service,
        ):  # fmt: skip
            asked_for_log = self._verbose or "log_level" in service.settings.model_fields_set
            shown_as_progress = () if asked_for_log else ("storage.journal", "actors.batch_log", "actors.web.security")
            for name in ("actors.simulator", *shown_as_progress) if not self._verbose else ():
                logging.getLogger(name).setLevel(logging.WARNING)
            _ = service.provider  # raises if no server is set
            yield service

    def _settings(self, level: str) -> Settings | None:
        """With what `--web` says, before anything is created."""
        if self._web is None:
            return None
        return listening_at(prepare(verbose=self._verbose, default_level=level), self._web)

    @contextmanager
    def _answering(self, service: BatchService) -> Iterator[None]:
        """Answer a browser, and make here what is asked for there, if `--web` is given."""
        if self._web is None:
            yield
            return
        service.adopts = True
        with answering(service, quietly=True) as url:
            self._url = url or ""
            yield

    def _open_page(self, batch_id: str) -> None:
        if self._url:
            warn(f"page: {self._url}/batches/{batch_id}")
            open_browser(f"{self._url}/batches/{batch_id}")

    def _stay(self) -> None:
        """Leave the page open until a signal comes."""
        if self._url:
            warn(f"the page stays at {self._url}/ until Ctrl-C")
            with suppress(Interrupted):
                wait_for(self._interruption)

    def _finish(
        self,
        service: BatchService,
        running: list[RunningBatch],
        views: list[BatchView],
        *,
        several: bool = False,
        failures: Mapping[str, SoraBatchError] | None = None,
    ) -> NoReturn:
        """Follow batches to their end, print each result, and exit.

        `failures`: of batches that could not be started here.
        """
        follower = Follower(service, show_for(quiet=self._quiet), self._output)
        try:
            batches = follower.follow(running, views, self._interruption)
        except Interrupted as interrupted:
            self._let_go(service, [each.batch_id for each in running if not each.done()])
            if self._json:
                ids = [each.batch_id for each in running]
                self._print_documents([service.get_batch_status(each) for each in ids], several=several)
            raise typer.Exit(interrupted.exit_code) from None
        failed = {**(failures or {}), **follower.failures}
        if failed and not several:
            raise next(iter(failed.values()))
        self._conclude(service, batches, failed, several=several)
        self._stay()
        raise typer.Exit(self._exit_code(batches, failed))

    def _let_go(self, service: BatchService, batch_ids: Sequence[str]) -> None:
        if batch_ids:
            warn("stopping; waiting up to 5 s for requests in flight (Ctrl-C again to quit now)")
            with ThreadPoolExecutor(_LET_GO_AT_ONCE) as threads:
                list(threads.map(lambda batch_id: self._let_one_go(service, batch_id), batch_ids))

    def _let_one_go(self, service: BatchService, batch_id: str) -> None:
        go_on = f"sora-batch resume {batch_id}{self._options}"
        try:
            service.let_go(batch_id)
            progress = service.get_batch_status(batch_id).progress
        except (SoraBatchError, TimeoutError) as error:
            warn(f"batch {batch_id} could not be released: {error}; resume with: {go_on}")
            return
        server = f", {count(progress.processing, 'video')} on the server" if progress.processing else ""
        warn(
            f"batch {batch_id} is stopped, not cancelled: {progress.completed} of {progress.total} done{server}. "
            f"Resume: {go_on}. Cancel: sora-batch cancel {batch_id}"
        )

    @property
    def _options(self) -> str:
        """The options of this command that the next command needs too."""
        simulate = " --simulate" if self._simulate else ""
        if self._output is None:
            return simulate
        pattern = self._output.pattern
        named = f" --filename {shlex.quote(pattern.text)}" if pattern else ""
        return f"{simulate} --output {shlex.quote(str(self._output.folder))}{named}"

    def _conclude(
        self, service: BatchService, batches: list[Batch], failed: Mapping[str, SoraBatchError], *, several: bool
    ) -> None:
        if self._json:
            self._print_documents(batches, failed, several=several)
        elif self._quiet:
            for batch in batches:
                print_paths(batch, self._placed)
        else:
            for batch in batches:
                print_batch(batch, self._placed, simulated=self._simulate, worked=_worked(service, batch.id))
            if batches and self._simulate:
                say(SIMULATED)
        for problem in self._output.problems.values() if self._output else ():
            warn(problem)
        for batch_id, error in failed.items():
            warn(f"batch {batch_id}: {error}")

    def _print_documents(
        self, batches: list[Batch], failed: Mapping[str, SoraBatchError] | None = None, *, several: bool
    ) -> None:
        documents = [batch.model_dump(mode="json") for batch in batches]
        documents += [
            {"id": batch_id, "error": {"code": error.code.value, "message": str(error)}}
            for batch_id, error in (failed or {}).items()
        ]
        print_json(documents if several else documents[0])

    def _announce(self, batch: Batch) -> None:
        if not self._quiet:
            name = f" ({batch.name})" if batch.name else ""
            maker = ", simulated (no server is used)" if self._simulate else ""
            warn(f"batch {batch.id}{name}: {count(batch.progress.total, 'video')}{maker}")

    def _tell_price(self, quoted: Quote | None) -> None:
        if quoted is not None and not (self._quiet or self._json):
            free = " (the simulator charges nothing)" if self._simulate else ""
            warn(f"{quoted.sentence}{free}")

    @property
    def _placed(self) -> dict[str, Path]:
        return self._output.placed if self._output is not None else {}

    def _exit_code(self, batches: list[Batch], failed: Mapping[str, SoraBatchError]) -> int:
        """The worst one."""
        codes = {EXIT_CODES[batch.status] for batch in batches} | set(map(exit_code, failed.values()))
        if self._output is not None and self._output.problems and codes <= {0}:
            codes.add(1)
        return next((code for code in _WORST_FIRST if code in codes), 0)


def _worked(service: BatchService, batch_id: str) -> float | None:
    try:
        return service.seconds_worked(batch_id)
    except StorageError:  # the batch has ended anyway
        return None


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def _missing(service: BatchService, batch_id: str) -> list[str]:
    """The jobs whose file is missing.

    Raises:
        Conflict: there is none.
    """
    job_ids = service.jobs_without_file(batch_id)
    if not job_ids:
        raise Conflict(f"batch {batch_id}: no file of a completed video is missing")
    return job_ids
