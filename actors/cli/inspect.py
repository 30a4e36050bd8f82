"""The read-only commands: status, list, history."""
# ruff: noqa: FBT002  (a command's options are its parameters)

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from actors.cli.opening import absent_database, connected, opened, or_remote, prepare, warn
from actors.cli.options import BatchId, Json, Metadata, Remote, Verbose, batch_ids, parse_metadata
from storage.states import BatchStatus, DeleteState, SubmissionState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.audit_report import OwedDelete
    from actors.batch.costs import Budget
    from actors.batch.events import Event
    from actors.batch.views import Batch
    from storage.deletes import Owed
    from storage.records import DeleteRecord, SubmissionRecord


def status(batch_id: BatchId, remote: Remote = False, json: Json = False, verbose: Verbose = False) -> None:
    """Show a batch and its videos.

    Works whichever process runs the batch.
    """
    from actors.cli.results import print_batch
    from actors.cli.text import print_json

    simulated, worked, payments, left = False, None, {}, []
    if remote:
        with connected(verbose=verbose) as client:
            batch = client.report(batch_id)
    else:
        with or_remote("status", batch_id), opened(verbose=verbose, looked_for=f"batch {batch_id!r}") as service:
            batch = service.get_batch_status(batch_id)
            simulated, worked = service.is_simulated(batch_id), service.seconds_worked(batch_id)
            left = [*service.budgets(batch_id), *service.budgets()]
            payments = _payments(service.submissions(batch_id)) if json else {}
    if json:
        print_json({**batch.model_dump(mode="json"), **payments})
    else:
        print_batch(batch, {}, simulated=simulated, worked=worked, elsewhere=remote)
        _print_money(batch, left)


def _payments(submissions: Sequence[SubmissionRecord]) -> dict[str, list[dict[str, Any]]]:
    """Every submission of a batch, and the prices that the server told; no list where it would be empty."""
    every = [
        {"job_id": each.job_id, "submission_id": each.id, "state": each.state.value, "charge": each.charge}
        for each in submissions
    ]
    prices = [
        {"job_id": each.job_id, "submission_id": each.id, **(each.told or {})}
        | ({"doubt": each.doubt} if each.doubt else {})
        for each in submissions
        if each.told or each.doubt
    ]
    return {name: each for name, each in (("submissions", every), ("prices", prices)) if each}


def _print_money(batch: Batch, budgets: Sequence[Budget]) -> None:
    """What a batch costs, where anything is known of it, and what is left of its budgets and the database's."""
    from actors.batch.limits import amount_text, left_text
    from actors.cli.text import say

    for cost in batch.cost:
        parts = {"charged": cost.charged_micros, "assumed": cost.assumed_micros, "reserved": cost.reserved_micros}
        if cost.currency is not None:
            known = [f"{amount_text(micros, cost.currency)} {name}" for name, micros in parts.items() if micros]
            say(f"cost: {', '.join(known) or amount_text(0, cost.currency)}")
        elif budgets or len(batch.cost) > 1:
            say(f"cost: unknown for {cost.unknown_prices}")
    for budget in budgets:
        say(f"budget{' of the batch' if budget.scope == 'batch' else ''}: {left_text(budget)}")


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
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="Show at most this many.")] = 50,
    after: Annotated[
        str | None, typer.Option("--after", metavar="ID", help="Show those after this batch.", autocompletion=batch_ids)
    ] = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """List batches, newest first."""
    from actors.batch.views import status_named
    from actors.cli.text import print_json, print_table, say

    wanted = parse_metadata(metadata) or None
    settings = prepare(verbose=verbose)
    place = absent_database(settings)
    if place is not None and after is None:  # it would be empty, and reading creates none
        status_named(BatchStatus, status)
        batches = []
    else:
        with opened(verbose=verbose, looked_for=f"batch {after!r}", settings=settings) as service:
            batches = service.list_batches(status, wanted, limit, after)
            place = service.database_place
    if json:
        print_json([batch.model_dump(mode="json") for batch in batches])
    elif batches:
        columns = ["batch", "name", "state", "done", "failed", "created"]
        print_table(columns, [_row(batch) for batch in batches], cut=1, own_line=0)
    else:
        say(f"no matching batches in {place}" if status or metadata or after else f"no batches in {place}")


def history(
    batch_id: BatchId,
    from_sequence: Annotated[int, typer.Option("--from", min=1, metavar="N", help="Start at this event.")] = 1,
    json: Annotated[
        bool, typer.Option("--json", help="Print each event as recorded: one JSON object per line.")
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Show what happened to a batch.

    Prints one event per line. Without --json, adds the prices the server reported and the DELETEs of cancelled videos,
    pending or answered. Names pruned events on standard error.
    """
    from actors.cli.text import json_text, say

    with opened(verbose=verbose, looked_for=f"batch {batch_id!r}") as service:
        pruned = service.pruned(batch_id)
        if pruned >= from_sequence:
            warn("event 1 was pruned" if pruned == 1 else f"events 1 to {pruned} were pruned")
        for event in service.history(batch_id, from_sequence):
            if json:
                typer.echo(json_text(event.model_dump(mode="json", exclude_unset=True), indent=None))
            else:
                say(_line(event))
        if not json:
            submissions = service.submissions(batch_id)
            deletions = _deletions(service.deletes(batch_id), submissions)
            for line in (*_unanswered(submissions), *_prices(submissions), *deletions):
                say(line)


_CAME_OF_IT = {
    SubmissionState.BOUND: "its video was found",
    SubmissionState.FAILED: "its video was found, and failed",
    SubmissionState.DELETED: "its video was found, and deleted",
    SubmissionState.ABSENT: "nothing was made",
    SubmissionState.ABANDONED: "its outcome never became known",
    SubmissionState.SURPLUS: "it made a video that no job needs",
}


def _unanswered(submissions: Iterable[SubmissionRecord]) -> Iterator[str]:
    """POSTs without a usable answer, and their outcome."""
    from actors.cli.text import clean

    for entry in submissions:
        if entry.met is not None:
            outcome = _CAME_OF_IT.get(entry.state, "whether it was made is unknown")
            met = f"no usable answer to the POST ({clean(entry.met)})"
            yield f"      {entry.job_id}: attempt {entry.attempt}: {met}; {outcome} (submission {entry.id})"


def _prices(submissions: Iterable[SubmissionRecord]) -> Iterator[str]:
    """The price that the server reported for each video, in its own words."""
    from actors.cli.text import clean

    for entry in submissions:
        said = []
        if entry.told:
            said = [f"the server reported {', '.join(f'{name} {value}' for name, value in entry.told.items())}"]
        if entry.doubt:
            said.append(f"flagged: {entry.doubt} (submission {entry.id})")
        if said:
            yield f"      {entry.job_id}: attempt {entry.attempt}: {clean('; '.join(said))}"


def _deletions(deletes: Iterable[Owed], submissions: Iterable[SubmissionRecord]) -> Iterator[str]:
    """DELETEs are no events: they come after the last event of the batch."""
    from actors.cli.text import clean

    told = {owed.submission.id: owed.delete for owed in deletes}
    for entry in submissions:
        delete = told.get(entry.id)
        text = standing(delete) if delete else entry.note  # a version before has only that
        asked = entry.state in (SubmissionState.BOUND, SubmissionState.DELETED) and text and "DELETE" in text
        if text and (delete or asked):
            yield f"      {entry.job_id} {clean(entry.remote_id)}: {clean(text)}"


def standing(delete: DeleteRecord | OwedDelete) -> str:
    """The outcome of a DELETE, or why it is still pending."""
    answer = f"; last attempt: {delete.answer}" if delete.answer else ""
    at = delete.owed_at
    since = (at if isinstance(at, datetime) else datetime.fromtimestamp(at, UTC)).astimezone()
    match delete.state:
        case DeleteState.OWED:
            return f"its DELETE is pending since {since:%Y-%m-%d %H:%M:%S}{answer}"
        case DeleteState.OUT:
            return f"its DELETE, pending since {since:%Y-%m-%d %H:%M:%S}, is being sent{answer}"
        case DeleteState.GIVEN_UP:
            return f"its DELETE was given up after 24 h{answer}"
        case DeleteState.WITHDRAWN:
            return f"its DELETE was withdrawn: the video is wanted again{answer}"
        case DeleteState.DONE | DeleteState.RECORD_ONLY:
            return str(delete.answer)


def _row(batch: Batch) -> list[str]:
    progress = batch.progress
    done = f"{progress.completed} of {progress.total}"
    created = f"{batch.created_at.astimezone():%Y-%m-%d %H:%M:%S}"
    return [batch.id, batch.name or "", batch.status.value, done, str(progress.failed), created]


def _line(event: Event) -> str:
    from actors.cli.text import clean, reason

    job = event.data.get("job") or {}
    words = [f"{event.time.astimezone():%Y-%m-%d %H:%M:%S}", f"{event.name:<16}", event.subject]
    if event.name == "job.progressed":
        words.append(f"{job['status']} {job['progress']} %")
    if job.get("error"):
        words.append(reason(job["error"]["code"], job["error"]["message"]))
    words += [f"warning: {warning['message']};" for warning in job.get("warnings", [])]
    words.append(f"({event.data['progress']['percentage']} % of the batch)")
    return f"{int(event.sequence):>5} {clean(' '.join(words))}"
