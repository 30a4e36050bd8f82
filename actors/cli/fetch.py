"""The command that gets the finished files of batches into a folder, from wherever they are."""
# ruff: noqa: FBT002  (a command's options are its parameters)

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from actors.cli.opening import opened, or_remote, prepare, warn
from actors.cli.options import BatchIds, FileName, Json, Remote, Verbose
from actors.errors import ErrorCode, InvalidRequest, NotFound, SoraBatchError

if TYPE_CHECKING:
    from actors.batch.job_views import Job
    from actors.batch.views import Batch
    from actors.cli.filenames import FileNamePattern
    from actors.cli.outputs import OutputFolder
    from actors.fetching.fetch import FetchedFile, Fetcher, FetchProblem, FetchReport
    from actors.settings import Settings
    from storage.stores import Stores


def fetch(
    batch_ids: BatchIds,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Put the files here. Default: the current folder."),
    ] = None,
    filename: FileName = None,
    remote: Remote = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Get the finished files of batches.

    Gets them from the folder, the bucket or the service that has them, and checks each file's length and checksum.
    Continues an interrupted download, and replaces no other file. If a file can't be fetched, names it, fetches the
    rest, and exits with 1.
    """
    from actors.cli.filenames import FileNamePattern
    from actors.cli.manage import each_batch
    from actors.fetching.fetch import Fetcher

    pattern = FileNamePattern(filename) if filename is not None else None
    codes = {0}
    with _batches(batch_ids, remote=remote, verbose=verbose) as (batch_of, settings, stores):
        fetcher = Fetcher(output or Path(), settings, stores)

        def act(batch_id: str) -> dict[str, Any]:
            batch = batch_of(batch_id)
            if pattern is not None:
                pattern.check_metadata(key for job in batch.jobs for key in job.metadata)
            report = fetch_batch(fetcher, batch, pattern, told=not json)
            codes.add(0 if report.complete else 1)
            if not json:
                _conclude(batch, report)
            return report.model_dump(mode="json")

        codes.add(each_batch(batch_ids, act, json=json))
    raise typer.Exit(max(codes))


def fetch_batch(fetcher: Fetcher, batch: Batch, pattern: FileNamePattern | None, *, told: bool) -> FetchReport:
    """Fetch a batch's files under readable names; `told`: print each path. Problems go to standard error."""
    from actors.fetching.fetch import FetchProblem

    def tell(outcome: FetchedFile | FetchProblem) -> None:
        if isinstance(outcome, FetchProblem):
            warn(f"{outcome.job_id}: {outcome.message}")
        elif told:
            from actors.cli.text import say, shown_path

            say(shown_path(outcome.path))

    return fetcher.fetch(batch, tell, readable_names(batch, pattern))


def readable_names(batch: Batch, pattern: FileNamePattern | None) -> Callable[[Job], str]:
    """The names of a batch's files, as `--output` has them."""
    from actors.cli.filenames import file_name
    from actors.fetching.places import extension_of

    takes = {job.index: job.take for job in batch.jobs}

    def name_of(job: Job) -> str:
        assert job.video is not None
        extension = extension_of(job.video)
        if pattern is not None:
            return pattern.name(job, extension)
        of_takes = job.take > 1 or takes.get(job.index + 1) == 2
        return file_name(job.index, batch.progress.total, job.prompt, extension, job.take if of_takes else None)

    return name_of


def wanted_folder(output: Path | None, filename: str | None, *, watch: bool) -> OutputFolder | None:
    """The folder for the files of a batch that is sent, if they are wanted; checked before anything is sent.

    Raises:
        InvalidRequest: an option is given without another that it needs, or the folder is not writable.
    """
    if output is None and filename is None:
        return None
    from actors.cli.filenames import FileNamePattern
    from actors.cli.outputs import OutputFolder

    if not watch:
        raise InvalidRequest("--output and --filename need --watch: the files are there when the batch has ended")
    if output is None:
        raise InvalidRequest("--filename needs a folder: give one with --output DIR")
    wanted = OutputFolder(output, FileNamePattern(filename) if filename is not None else None)
    wanted.check()
    return wanted


def fetched_into(batch: Batch, wanted: OutputFolder) -> dict[str, Path]:
    """Get the files of a batch there, by job id; problems are printed."""
    from actors.fetching.fetch import Fetcher
    from actors.settings import load_settings
    from actors.stores import stores_of

    settings = load_settings()
    fetcher = Fetcher(wanted.folder, settings, stores_of(settings))
    report = fetch_batch(fetcher, batch, wanted.pattern, told=False)
    return {file.job_id: Path(file.path) for file in report.files}


@contextmanager
def _batches(
    batch_ids: list[str], *, remote: bool, verbose: bool
) -> Iterator[tuple[Callable[[str], Batch], Settings, Stores]]:
    """What tells of a batch: the database, or a service through RabbitMQ."""
    from actors.stores import stores_of

    if remote:
        settings = prepare(verbose=verbose)
        from actors.rabbitmq.client.blocking import BatchClient

        with BatchClient() as client:
            yield client.report, settings, stores_of(settings)
        return

    def here(batch_id: str) -> Batch:
        try:
            with or_remote("fetch", batch_id):
                return service.get_batch_status(batch_id)
        except NotFound as error:
            return _over_http(settings, batch_id, error)

    settings = prepare(verbose=verbose)
    with ExitStack() as stack:
        try:
            with or_remote("fetch", batch_ids[0]):
                looked_for = f"batch {batch_ids[0]!r}"
                service = stack.enter_context(opened(verbose=verbose, looked_for=looked_for, settings=settings))
        except NotFound as error:  # there is no database here
            absent = error
            yield lambda batch_id: _over_http(settings, batch_id, absent), settings, stores_of(settings)
        else:
            yield here, service.settings, service.stores


def _over_http(settings: Settings, batch_id: str, unknown: NotFound) -> Batch:
    """A batch that is not in our database, from the service that WEB_PUBLIC_URL names.

    Raises:
        NotFound: it has none either, or no service is named.
        SoraBatchError: it can't be asked.
    """
    from time import sleep

    from actors.fetching.http import HttpFiles

    if settings.web_public_url is None:
        raise unknown
    try:
        return HttpFiles(settings, sleep).batch(batch_id)
    except SoraBatchError as error:
        if error.code is ErrorCode.NOT_FOUND:
            raise unknown from None
        raise


def _conclude(batch: Batch, report: FetchReport) -> None:
    from actors.cli.text import count

    before = sum(file.was_there for file in report.files)
    there = f"; {before} already there" if before else ""
    unfinished = batch.progress.total - len(report.files) - len(report.problems)
    others = f"; {count(unfinished, 'video')} without a file" if unfinished else ""
    missing = f"; {count(len(report.problems), 'file')} could not be fetched" if report.problems else ""
    warn(f"batch {batch.id}: {count(len(report.files), 'file')} in {report.folder}{there}{missing}{others}")
