"""What commands that run batches share: the checks before anything is created, and the way to the exit code."""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from actors.cli.app import Interrupted, Interruption
from actors.cli.filenames import FileNamePattern
from actors.cli.follow import Follower, show_for
from actors.cli.opening import USAGE, exit_code, opened, prepare, warn
from actors.cli.outputs import OutputFolder
from actors.cli.results import EXIT_CODES, SIMULATED, print_batch, print_paths
from actors.cli.text import count, print_json, say
from actors.cli.web import answering, listening_at, open_browser, wait_for
from actors.errors import InvalidRequest, SoraBatchError, StorageError

if TYPE_CHECKING:
    from actors.batch.quotes import Quote
    from actors.batch.views import Batch
    from actors.cli.view import BatchView
    from actors.service import BatchService
    from actors.service.waiting import RunningBatch
    from actors.settings import Settings

_WORST_FIRST = (1, USAGE, 3, 4)
_LET_GO_AT_ONCE = 8


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

    def check_names(self, metadata: Iterable[str]) -> None:
        """Check that all files can be named; `metadata`: the keys in all videos."""
        if self._output is not None and self._output.pattern is not None:
            self._output.pattern.check_metadata(metadata)

    @contextmanager
    def service(self, *batch_ids: str) -> Iterator[BatchService]:
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
                looked_for=f"batch {batch_ids[0]!r}" if batch_ids else None, settings=self._settings_with_place(level),
            ) as service,
        ):  # fmt: skip
            asked_for_log = self._verbose or "log_level" in service.settings.model_fields_set
            shown_as_progress = (
                () if asked_for_log else ("storage.journal", "actors.batch_log", "actors.web.application")
            )
            for name in ("actors.simulator", *shown_as_progress) if not self._verbose else ():
                logging.getLogger(name).setLevel(logging.WARNING)
            _ = service.provider  # raises if no server is set
            yield service

    def _settings_with_place(self, level: str) -> Settings | None:
        """With what `--web` says, before anything is created."""
        if self._web is None:
            return None
        return listening_at(prepare(verbose=self._verbose, default_level=level), self._web)

    @contextmanager
    def answering(self, service: BatchService) -> Iterator[None]:
        """Answer a browser, and make here what is asked for there, if `--web` is given."""
        if self._web is None:
            yield
            return
        service.adopts = True
        with answering(service, quietly=True) as url:
            self._url = url or ""
            yield

    def announce(self, batch: Batch, quoted: Quote | None) -> None:
        """Tell a person of a batch before it is run; `quoted`: what it would cost, where prices are known."""
        if not self._quiet:
            name = f" ({batch.name})" if batch.name else ""
            maker = ", simulated (no server is used)" if self._simulate else ""
            warn(f"batch {batch.id}{name}: {count(batch.progress.total, 'video')}{maker}")
        if quoted is not None and not (self._quiet or self._json):
            free = " (the simulator charges nothing)" if self._simulate else ""
            warn(f"{quoted.sentence}{free}")
        if self._url:
            warn(f"page: {self._url}/batches/{batch.id}")
            open_browser(f"{self._url}/batches/{batch.id}")

    def _stay(self) -> None:
        """Leave the page open until a signal comes."""
        if self._url:
            warn(f"the page stays at {self._url}/ until Ctrl-C")
            with suppress(Interrupted):
                wait_for(self._interruption)

    def finish(
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
        go_on = f"sora-batch resume {batch_id}{self.options}"
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
    def options(self) -> str:
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
