"""The commands that look: status, list, history."""
# ruff: noqa: FBT002  (a command's options are its parameters)

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from actors.cli.options import BatchId, Json, Metadata, Verbose, opened, parse_metadata
from storage.states import SubmissionState

if TYPE_CHECKING:
    from actors.events import Event
    from actors.model import Batch
    from storage.records import SubmissionRecord


def status(batch_id: BatchId, json: Json = False, verbose: Verbose = False) -> None:
    """Show a batch and its videos, whoever runs it."""
    from actors.cli.table import print_batch, print_json

    with opened(verbose=verbose) as service:
        batch = service.get_batch_status(batch_id)
        simulated = service.is_simulated(batch_id)
    if json:
        print_json(batch.model_dump(mode="json"))
    else:
        print_batch(batch, {}, simulated=simulated)


def list_(
    status: Annotated[
        str | None, typer.Option("--status", help="pending, processing, completed, partial, failed or cancelled.")
    ] = None,
    metadata: Metadata = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="How many.")] = 50,
    after: Annotated[str | None, typer.Option("--after", metavar="ID", help="Those behind this one.")] = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """List batches, the newest first."""
    from actors.cli.table import print_json, print_table

    with opened(verbose=verbose) as service:
        batches = service.list_batches(status, parse_metadata(metadata) or None, limit, after)
        place = service.database_place
    if json:
        print_json([batch.model_dump(mode="json") for batch in batches])
    elif batches:
        print_table(["batch", "name", "state", "done", "failed", "created"], [_row(batch) for batch in batches])
    else:
        typer.echo(
            f"no such batches in the database {place}" if status or metadata or after else f"no batches in {place}"
        )


def history(
    batch_id: BatchId,
    from_sequence: Annotated[int, typer.Option("--from", min=1, metavar="N", help="From this event on.")] = 1,
    json: Annotated[bool, typer.Option("--json", help="Each event as it was recorded: a JSON object a line.")] = False,
    verbose: Verbose = False,
) -> None:
    """Show what happened to a batch, one event a line.

    Below them, unless with --json, what the server answered when it was asked to delete cancelled videos.
    """
    with opened(verbose=verbose) as service:
        for event in service.history(batch_id, from_sequence):
            typer.echo(_document(event) if json else _line(event))
        if not json:
            for line in _deletions(service.submissions(batch_id)):
                typer.echo(line)


def _deletions(submissions: Iterable[SubmissionRecord]) -> Iterator[str]:
    """No events: the batch had ended before, and its last event is its last."""
    from actors.cli.text import clean

    for entry in submissions:
        if entry.note and entry.state in (SubmissionState.BOUND, SubmissionState.DELETED):
            yield f"      {entry.job_id} {clean(entry.remote_id)}: {clean(entry.note)}"


def _row(batch: Batch) -> list[str]:
    progress = batch.progress
    done = f"{progress.completed} of {progress.total}"
    created = f"{batch.created_at.astimezone():%Y-%m-%d %H:%M:%S}"
    return [batch.id, batch.name or "", batch.status.value, done, str(progress.failed), created]


def _document(event: Event) -> str:
    from actors.cli.table import json_text

    return json_text(event.model_dump(mode="json", exclude_unset=True), indent=None)


def _line(event: Event) -> str:
    from actors.cli.text import clean, reason

    job = event.data.get("job") or {}
    words = [f"{event.time.astimezone():%Y-%m-%d %H:%M:%S}", f"{event.name:<16}", event.subject]
    if event.name == "job.progressed":
        words.append(f"{job['status']} {job['progress']} %")
    if job.get("error"):
        words.append(reason(job["error"]["code"], job["error"]["message"]))
    words.append(f"({event.data['progress']['percentage']} % of the batch)")
    return f"{int(event.sequence):>5} {clean(' '.join(words))}"
