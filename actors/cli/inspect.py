"""The commands that look: status, list, history, audit."""
# ruff: noqa: FBT002  (a command's options are its parameters)

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from actors.cli.options import (
    BatchId,
    Json,
    Metadata,
    Remote,
    Verbose,
    absent_database,
    batch_ids,
    opened,
    parse_metadata,
    prepare,
    warn,
)
from storage.states import BatchStatus, SubmissionState

_PROMPT = 40

if TYPE_CHECKING:
    from actors.audit import AuditReport
    from actors.events import Event
    from actors.model import Batch
    from storage.records import SubmissionRecord


def status(batch_id: BatchId, remote: Remote = False, json: Json = False, verbose: Verbose = False) -> None:
    """Show a batch and its videos, whoever runs it."""
    from actors.cli.remote import or_remote, status_there
    from actors.cli.table import print_batch, print_json

    simulated, worked = False, None
    if remote:
        batch = status_there(batch_id, verbose=verbose)
    else:
        with or_remote("status", batch_id), opened(verbose=verbose, looked_for=f"batch {batch_id!r}") as service:
            batch = service.get_batch_status(batch_id)
            simulated, worked = service.is_simulated(batch_id), service.seconds_worked(batch_id)
    if json:
        print_json(batch.model_dump(mode="json"))
    else:
        print_batch(batch, {}, simulated=simulated, worked=worked, elsewhere=remote)


def _statuses(incomplete: str) -> list[str]:
    return [status.value for status in BatchStatus if status.value.startswith(incomplete)]


def list_(
    status: Annotated[
        str | None,
        typer.Option(
            "--status", help="pending, processing, completed, partial, failed or cancelled.", autocompletion=_statuses
        ),
    ] = None,
    metadata: Metadata = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="How many.")] = 50,
    after: Annotated[
        str | None, typer.Option("--after", metavar="ID", help="Those behind this one.", autocompletion=batch_ids)
    ] = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """List batches, the newest first."""
    from actors.cli.table import print_json, print_table, say
    from actors.model import batch_status

    wanted = parse_metadata(metadata) or None
    place = absent_database(prepare(verbose=verbose))
    if place is not None and after is None:  # nothing is in it, and looking creates none
        batch_status(status)
        batches = []
    else:
        with opened(verbose=verbose, looked_for=f"batch {after!r}") as service:
            batches = service.list_batches(status, wanted, limit, after)
            place = service.database_place
    if json:
        print_json([batch.model_dump(mode="json") for batch in batches])
    elif batches:
        columns = ["batch", "name", "state", "done", "failed", "created"]
        print_table(columns, [_row(batch) for batch in batches], cut=1, own_line=0)
    else:
        say(f"no such batches in the database {place}" if status or metadata or after else f"no batches in {place}")


def history(
    batch_id: BatchId,
    from_sequence: Annotated[int, typer.Option("--from", min=1, metavar="N", help="From this event on.")] = 1,
    json: Annotated[bool, typer.Option("--json", help="Each event as it was recorded: a JSON object a line.")] = False,
    verbose: Verbose = False,
) -> None:
    """Show what happened to a batch, one event a line.

    Below them, unless with --json, what the server answered when it was asked to delete cancelled videos. What was
    pruned is said on standard error.
    """
    from actors.cli.table import say

    with opened(verbose=verbose, looked_for=f"batch {batch_id!r}") as service:
        pruned = service.pruned(batch_id)
        if pruned >= from_sequence:
            warn("event 1 was pruned" if pruned == 1 else f"events 1 to {pruned} were pruned")
        for event in service.history(batch_id, from_sequence):
            if json:
                typer.echo(_document(event))
            else:
                say(_line(event))
        if not json:
            for line in _deletions(service.submissions(batch_id)):
                say(line)


def audit(
    checksums: Annotated[bool, typer.Option("--checksums", help="Read every file whole, too.")] = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Compare the records with the server and the files.

    Videos that no job knows (and may have been paid for), jobs whose video or file is gone, files that no job has. It
    changes nothing: what to do is yours to decide. Exit codes: 0 all fits, 1 something does not.
    """
    from actors.cli.table import print_json

    with opened(verbose=verbose, looked_for="record to compare") as service:
        report = service.audit(checksums=checksums)
        place = service.database_place
    if json:
        print_json(report.model_dump(mode="json"))
    else:
        for line in _findings(report):
            typer.echo(line)
        fits = "everything fits" if report.listing_problem is None else "everything that could be compared fits"
        found = fits if report.clean else "above is what does not fit"
        typer.echo(f"{report.videos_listed} videos of the server compared with {place}: {found}")
    raise typer.Exit(0 if report.clean else 1)


def _findings(report: AuditReport) -> Iterator[str]:
    from actors.cli.text import clean, shorten, shown_path, span

    if report.listing_problem is not None:
        yield f"the server's videos could not all be compared: {clean(report.listing_problem)}"
    for unknown in report.unknown_videos:
        age = "" if unknown.age_seconds is None else f", {span(unknown.age_seconds)} old"
        prompt = "" if unknown.prompt is None else f": {shorten(unknown.prompt, _PROMPT)}"
        line = f"no job knows the video {clean(unknown.remote_id)} ({shorten(unknown.status, _PROMPT)}{age}){prompt}"
        yield line + (f"; it may be of {', '.join(unknown.may_be_of)}" if unknown.may_be_of else "")
    for surplus in report.surplus_videos:
        still = "the server still has it" if surplus.listed else "the server does not list it"
        yield f"paid for and not needed: the video {clean(surplus.remote_id)} of {surplus.job_id}; {still}"
    for missing in report.missing_videos:
        yield f"{missing.job_id} ({missing.status.value}): the server does not list {clean(missing.remote_id)}"
    for file in report.jobs_without_file:
        yield f"{file.job_id}: {shown_path(file.path)}: {file.problem}"
    for path in report.files_without_job:
        yield f"no job has the file {shown_path(path)}"


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
