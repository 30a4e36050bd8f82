"""The commands that need RabbitMQ but no database: submit, watch, and the `--remote` forms of others.

Only `watch ID` does with the database alone.
"""
# ruff: noqa: FBT002  (a command's options are its parameters)

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from actors.cli.options import FileName, Json, Quiet, Verbose, opened, prepare, spelled_out, warn
from actors.cli.written import Submitted
from actors.errors import ErrorCode, InvalidRequest, NotFound, SettingsError, SoraBatchError

if TYPE_CHECKING:
    from actors.batch.views import Batch, CancellationSummary
    from actors.cli.journal import Journal
    from actors.cli.outputs import OutputFolder
    from actors.cli.view import BatchView
    from actors.formats.common import Request
    from actors.rabbitmq.client.blocking import BatchClient

_TICK = 0.15
QUEUED = "queued: no service is listening; it starts when one does"
_EVERYTHING = "#"


@spelled_out()
def submit(
    written: Submitted,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Follow the batch to its end.")] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="With --watch: get the files here at its end."),
    ] = None,
    filename: FileName = None,
    require_service: Annotated[
        bool, typer.Option("--require-service", help="Send nothing unless a service is listening.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Send a batch to a service through RabbitMQ.

    Prints the batch id. Needs AMQP_URL, but no database. Local input references and files are sent with the command.
    If no service is listening, queues the batch and exits with 0. With --watch, waits for the service and for the end
    of the batch, and exits with the codes of `sora-batch run`; Ctrl-C stops watching, not the batch.
    """
    from actors.batch.requests import new_batch_id
    from actors.cli.authoring import metadata_keys, requested
    from actors.cli.fetch import wanted_folder

    wanted = wanted_folder(output, filename, watch=watch)
    request = requested(written)
    if request.get("id") is None:
        request["id"] = new_batch_id()
    if wanted is not None and wanted.pattern is not None:
        wanted.pattern.check_metadata(metadata_keys(request))
    _send(
        request, wanted, watch=watch, require_service=require_service, json=json, quiet=quiet, verbose=verbose
    )  # fmt: skip


def _send(
    request: Request, wanted: OutputFolder | None, *, watch: bool, require_service: bool, json: bool, quiet: bool,
    verbose: bool,
) -> None:  # fmt: skip
    """Send the batch to a service, then follow or print it."""
    from actors.cli.batch_files import located
    from actors.cli.references import carried

    try:
        sent = carried(request)
    except InvalidRequest as error:
        raise located(error, request) from None
    with _client(verbose=verbose) as client:
        if require_service:
            _require_service(client)
        try:
            created = client.create(sent, queued=partial(_queued, watch=watch, json=json))
        except InvalidRequest as error:
            raise located(error, request) from None
        except KeyboardInterrupt:
            warn(f"the service may still accept it; check with: sora-batch watch {request['id']}")
            raise
        if watch:
            warn(f"the service accepted batch {created}")
            _watch_one(client, created, quiet=quiet, document=json, wanted=wanted)
        elif json:
            from actors.cli.table import print_json

            print_json(client.report(created).model_dump(mode="json"))
        else:
            typer.echo(created)


def _require_service(client: BatchClient) -> None:
    if not client.listening():
        text = (
            "nothing was sent: no service is listening; start `sora-batch serve`, or omit --require-service to queue it"
        )
        raise SoraBatchError(text, code=ErrorCode.UNAVAILABLE)


def _queued(batch_id: str, *, watch: bool, json: bool) -> None:
    """The command is queued until a service starts: wait too, if the batch is watched."""
    if watch:
        warn(QUEUED)
        return
    if json:
        from actors.cli.table import print_json

        print_json({"id": batch_id, "queued": True})
    else:
        warn(QUEUED)
        typer.echo(batch_id)
    raise typer.Exit(0)


def watch(
    batch_id: Annotated[
        str | None, typer.Argument(metavar="ID", show_default=False, help="Batch id; without it, all batches.")
    ] = None,
    bind: Annotated[
        list[str] | None,
        typer.Option("--bind", metavar="KEY", help="Without an ID: only events whose routing key matches. Repeatable."),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print each event as published: one JSON object per line.")
    ] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Watch one batch, or all, through RabbitMQ.

    With an ID, shows the batch from its current state to its end, and exits with the codes of `sora-batch run`. Needs
    AMQP_URL, but no database; with an ID and without AMQP_URL, follows the batch in the database. Ctrl-C stops
    watching, not the batch.
    """
    if batch_id is not None and bind:
        raise InvalidRequest("--bind works only without an ID: with one, all events of that batch are shown")
    if batch_id is not None and (settings := prepare(verbose=verbose)).amqp_url is None:
        from actors.cli.journal import Journal

        with opened(verbose=verbose, looked_for=f"batch {batch_id!r}", settings=settings) as service:
            if json:
                _print_events(Journal(service), batch_id)
            else:
                _watch_one(Journal(service), batch_id, quiet=quiet, elsewhere=False)
        return
    with _client(verbose=verbose) as client:
        if batch_id is None:
            _watch_all(client, bind or [_EVERYTHING], json=json)
        elif json:
            _print_events(client, batch_id)
        else:
            _watch_one(client, batch_id, quiet=quiet)


def cancel_there(batch_id: str, reason: str | None, *, verbose: bool) -> CancellationSummary:
    """Cancel a batch through RabbitMQ."""
    with _client(verbose=verbose) as client:
        return client.cancel(batch_id, reason)


def delete_there(batch_id: str, *, keep_files: bool, verbose: bool) -> None:
    """Delete a batch through RabbitMQ."""
    with _client(verbose=verbose) as client:
        client.delete(batch_id, keep_files=keep_files)


def status_there(batch_id: str, *, verbose: bool) -> Batch:
    """Ask a service through RabbitMQ for a batch."""
    with _client(verbose=verbose) as client:
        return client.report(batch_id)


@contextmanager
def reporting() -> Iterator[Callable[[str], Batch]]:
    """What asks a service for batches; one connection for all of them."""
    from actors.rabbitmq.client.blocking import BatchClient

    with BatchClient() as client:
        yield client.report


def retry_there(
    batch_id: str, jobs: list[str] | None, changes: dict[str, dict[str, Any]] | None, *, pay_again: bool,
    move_server: bool, verbose: bool, budget: list[dict[str, str]] | None = None, missing: bool = False,
) -> Batch:  # fmt: skip
    """Have a service retry a batch; returns the batch as it is then."""
    with _client(verbose=verbose) as client:
        client.retry(
            batch_id, jobs, changes, pay_again=pay_again, move_server=move_server, budget=budget, missing=missing
        )
        return client.report(batch_id)


@contextmanager
def or_remote(command: str, batch_id: str) -> Iterator[None]:
    """Mention `--remote` in an error if a service may have the batch: it is not in the database, or no server is set.

    Raises:
        NotFound, SettingsError: the same, with how to ask a service.
    """
    from actors.settings import load_settings

    try:
        yield
    except (NotFound, SettingsError) as error:
        unknown = isinstance(error, SettingsError) or "no batch" in str(error)
        if not unknown or load_settings().amqp_url is None:
            raise
        way_out = f"to ask a service through RabbitMQ: sora-batch {command} {batch_id} --remote"
        kind = SettingsError if isinstance(error, SettingsError) else NotFound  # a subclass takes no text
        raise kind(f"{error}; {way_out}") from None


def _client(*, verbose: bool) -> BatchClient:
    prepare(verbose=verbose)
    from actors.rabbitmq.client.blocking import BatchClient

    return BatchClient()


def _watch_one(
    client: BatchClient | Journal, batch_id: str, *, quiet: bool, document: bool = False,
    wanted: OutputFolder | None = None, elsewhere: bool = True,
) -> None:  # fmt: skip
    """Show a batch to its end, print the result, and exit with its code."""
    from actors.cli.follow import show_for
    from actors.cli.signals import Interrupted, Interruption
    from actors.cli.view import BatchView

    interruption = Interruption()
    with interruption, client.events(batch_id, None) as stream:
        view = BatchView(stream.batch, stream.sequence)
        try:
            with show_for(quiet=quiet) as show:
                while not stream.ended:
                    event = stream.next(_TICK)
                    if event is not None and view.apply(event):
                        show.tell(event, view)
                    show.tick(view, {})
                    interruption.check()
        except Interrupted as interrupted:
            warn(f"batch {batch_id} keeps running; watch it with: sora-batch watch {batch_id}")
            raise typer.Exit(interrupted.exit_code) from None
    _conclude(client, view, quiet=quiet, document=document, wanted=wanted, elsewhere=elsewhere)


def _conclude(
    client: BatchClient | Journal, view: BatchView, *, quiet: bool, document: bool, wanted: OutputFolder | None,
    elsewhere: bool,
) -> None:  # fmt: skip
    from actors.cli.fetch import fetched_into
    from actors.cli.session import EXIT_CODES
    from actors.cli.table import print_batch, print_json, print_paths

    try:
        batch = client.report(view.id)
    except NotFound:
        warn(f"batch {view.id} was deleted")
    else:
        placed = fetched_into(batch, wanted) if wanted is not None else {}
        if document:
            print_json(batch.model_dump(mode="json"))
        elif quiet:
            print_paths(batch, placed)
        else:
            print_batch(batch, placed, elsewhere=elsewhere)
        if wanted is not None and len(placed) < batch.progress.completed and not EXIT_CODES[view.status]:
            raise typer.Exit(1)
    raise typer.Exit(EXIT_CODES[view.status])


def _print_events(client: BatchClient | Journal, batch_id: str) -> None:
    """Print the batch as it is, then its events."""
    from actors.cli.session import EXIT_CODES
    from actors.cli.signals import Interrupted, Interruption
    from actors.cli.table import json_text
    from storage.states import BatchStatus

    interruption = Interruption()
    with interruption, client.events(batch_id, None) as stream:
        typer.echo(json_text(stream.report, indent=None))
        status = BatchStatus(stream.batch.status)
        try:
            while not stream.ended:
                event = stream.next(_TICK)
                if event is not None:
                    typer.echo(json_text(event.model_dump(mode="json", exclude_unset=True), indent=None))
                    status = BatchStatus(event.data["status"])
                interruption.check()
        except Interrupted as interrupted:
            raise typer.Exit(interrupted.exit_code) from None
    raise typer.Exit(EXIT_CODES[status])


def _watch_all(client: BatchClient, keys: list[str], *, json: bool) -> None:
    from actors.cli.signals import Interrupted, Interruption
    from actors.cli.table import json_text

    interruption = Interruption()
    with interruption, client.subscribe(*keys) as feed:
        try:
            while True:
                document = feed.next(_TICK)
                if document is not None:
                    typer.echo(json_text(document, indent=None) if json else _line(document))
                interruption.check()
        except Interrupted as interrupted:
            raise typer.Exit(interrupted.exit_code) from None


def _line(document: dict[str, Any]) -> str:
    """`12:00:05 job.completed nature-01 (33 % of nature)`."""
    from datetime import datetime

    from actors.cli.text import clean, reason

    data = document["data"]
    name = str(document.get("type", "?")).removeprefix("sora-batch.").removesuffix(".v1")
    try:
        stamp = f"{datetime.fromisoformat(str(document.get('time'))).astimezone():%H:%M:%S}"
    except ValueError:
        stamp = "??:??:??"
    words = [stamp, f"{name:<16}", str(document.get("subject", ""))]
    job, progress = data.get("job"), data.get("progress")
    if isinstance(job, dict) and isinstance(job.get("error"), dict):
        words.append(reason(str(job["error"].get("code")), str(job["error"].get("message"))))
    words += [str(error.get("message")) for error in data.get("errors", [])[:1]]
    if isinstance(progress, dict):
        words.append(f"({progress.get('percentage')} % of {data.get('batch_id')})")
    return clean(" ".join(words))
