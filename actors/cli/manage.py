"""The commands that change what is recorded, without running anything: cancel, prune."""
# ruff: noqa: FBT002  (a command's options are its parameters)

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from actors.cli.options import BatchId, Json, Remote, Verbose, opened

if TYPE_CHECKING:
    from actors.model import CancellationSummary


def cancel(
    batch_id: BatchId,
    reason: Annotated[str | None, typer.Option("--reason", help="Recorded with it.")] = None,
    remote: Remote = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Cancel a batch, whoever runs it.

    Nothing new is started from then on. The answer says what may still be charged.
    """
    from actors.cli.remote import cancel_there, or_remote
    from actors.cli.table import print_json

    if remote:
        summary = cancel_there(batch_id, reason, verbose=verbose)
    else:
        with or_remote("cancel", batch_id), opened(verbose=verbose) as service:
            summary = service.cancel_batch(batch_id, reason)
    if json:
        print_json(summary.model_dump(mode="json"))
    else:
        typer.echo(_sentences(summary))


def prune(
    older_than: Annotated[
        str, typer.Option("--older-than", metavar="SPAN", help="Ended longer ago than this: 30d, 12h, 90m.")
    ] = "30d",
    batches: Annotated[bool, typer.Option("--batches", help="Forget the batches too, not only their history.")] = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Remove the history of batches that ended long ago. Video files stay."""
    from actors.cli.table import print_json
    from actors.cli.text import count, parse_span

    span = parse_span(older_than)
    with opened(verbose=verbose) as service:
        report = service.prune(span, delete_batches=batches)
        place = service.database_place
    if json:
        print_json({"events": report.events, "batches": report.batches})
    else:
        forgotten = f" and {count(report.batches, 'batch')}" if batches else ""
        typer.echo(f"removed {count(report.events, 'event')}{forgotten} from {place}")


def _sentences(summary: CancellationSummary) -> str:
    from actors.cli.text import clean, count

    text = (
        f"batch {summary.batch_id} {summary.status.value}: of {count(summary.total, 'video')} {summary.cancelled} "
        f"cancelled, {summary.completed} had completed, {summary.failed} had failed"
    )
    for charge in summary.may_be_charged:
        remote = f" as {clean(charge.remote_id)}" if charge.remote_id else ""
        text += f"\nmay still be charged: {charge.job_id}{remote}, {charge.state}"
    return text
