"""The command `watch`: follows one batch, or all, through RabbitMQ; one batch also in the database alone."""
# ruff: noqa: FBT002  (a command's options are its parameters)

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from actors.cli.opening import connected, opened, prepare, warn
from actors.cli.options import Quiet, Verbose
from actors.errors import InvalidRequest, NotFound

if TYPE_CHECKING:
    from actors.cli.follow import Journal
    from actors.cli.outputs import OutputFolder
    from actors.cli.view import BatchView
    from actors.rabbitmq.client.blocking import BatchClient

_TICK = 0.15
_EVERYTHING = "#"


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
        from actors.cli.follow import Journal

        with opened(verbose=verbose, looked_for=f"batch {batch_id!r}", settings=settings) as service:
            if json:
                _print_events(Journal(service), batch_id)
            else:
                watch_one(Journal(service), batch_id, quiet=quiet, elsewhere=False)
        return

    with connected(verbose=verbose) as client:
        if batch_id is None:
            _watch_all(client, bind or [_EVERYTHING], json=json)
        elif json:
            _print_events(client, batch_id)
        else:
            watch_one(client, batch_id, quiet=quiet)


def watch_one(
    client: BatchClient | Journal, batch_id: str, *, quiet: bool, document: bool = False,
    wanted: OutputFolder | None = None, elsewhere: bool = True,
) -> None:  # fmt: skip
    """Show a batch to its end, print the result, and exit with its code."""
    from actors.cli.app import Interrupted, Interruption
    from actors.cli.follow import show_for
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
        except Interrupted:
            warn(f"batch {batch_id} keeps running; watch it with: sora-batch watch {batch_id}")
            raise
    _conclude(client, view, quiet=quiet, document=document, wanted=wanted, elsewhere=elsewhere)


def _conclude(
    client: BatchClient | Journal, view: BatchView, *, quiet: bool, document: bool, wanted: OutputFolder | None,
    elsewhere: bool,
) -> None:  # fmt: skip
    from actors.cli.fetch import fetched_into
    from actors.cli.results import EXIT_CODES, print_batch, print_paths
    from actors.cli.text import print_json

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
    from actors.cli.app import Interruption
    from actors.cli.results import EXIT_CODES
    from actors.cli.text import json_text
    from storage.states import BatchStatus

    interruption = Interruption()
    with interruption, client.events(batch_id, None) as stream:
        typer.echo(json_text(stream.report, indent=None))
        status = BatchStatus(stream.batch.status)
        while not stream.ended:
            event = stream.next(_TICK)
            if event is not None:
                typer.echo(json_text(event.model_dump(mode="json", exclude_unset=True), indent=None))
                status = BatchStatus(event.data["status"])
            interruption.check()
    raise typer.Exit(EXIT_CODES[status])


def _watch_all(client: BatchClient, keys: list[str], *, json: bool) -> None:
    from actors.cli.app import Interruption
    from actors.cli.text import json_text

    interruption = Interruption()
    with interruption, client.subscribe(*keys) as feed:
        while True:
            document = feed.next(_TICK)
            if document is not None:
                typer.echo(json_text(document, indent=None) if json else _line(document))
            interruption.check()


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
