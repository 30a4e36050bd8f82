"""The command `submit`: sends a batch to a service through RabbitMQ."""
# ruff: noqa: FBT002  (a command's options are its parameters)

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from actors.cli.opening import connected, warn
from actors.cli.options import FileName, Json, Quiet, Submitted, Verbose, spelled_out
from actors.errors import ErrorCode, SoraBatchError

if TYPE_CHECKING:
    from actors.cli.outputs import OutputFolder
    from actors.formats.reading import Request
    from actors.rabbitmq.client.blocking import BatchClient

QUEUED = "queued: no service is listening; it starts when one does"


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
    from actors.cli.batch_files import carried, locating

    with locating(request):
        sent = carried(request)
    with connected(verbose=verbose) as client:
        if require_service:
            _require_service(client)
        try:
            with locating(request):
                created = client.create(sent, queued=partial(_queued, watch=watch, json=json))
        except KeyboardInterrupt:
            warn(f"the service may still accept it; check with: sora-batch watch {request['id']}")
            raise
        if watch:
            from actors.cli.watch import watch_one

            warn(f"the service accepted batch {created}")
            watch_one(client, created, quiet=quiet, document=json, wanted=wanted)
        elif json:
            from actors.cli.text import print_json

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
        from actors.cli.text import print_json

        print_json({"id": batch_id, "queued": True})
    else:
        warn(QUEUED)
        typer.echo(batch_id)
    raise typer.Exit(0)
