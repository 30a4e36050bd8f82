"""The commands that run batches in this process: run, demo, resume, retry."""
# ruff: noqa: FBT002  (a command's options are its parameters)

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from actors.cli.options import (
    AnyBatchId,
    BatchIds,
    FileName,
    Json,
    NewBudget,
    Output,
    Quiet,
    Remote,
    Shown,
    Simulate,
    Verbose,
)
from actors.cli.written import Written, takes_written
from actors.errors import InvalidRequest

if TYPE_CHECKING:
    from actors.batch.views import Batch
    from actors.cli.session import Session

DEMO: dict[str, Any] = {
    "batch_name": "Nature scenes",
    "videos": [
        {"prompt": "A sunset over the ocean", "duration": 10},
        {"prompt": "A mountain landscape", "duration": 15},
        {"prompt": "City lights at night", "duration": 12},
    ],
}
_CONCURRENCY = 3


@takes_written(output="metadata", filename="output")
def run(
    written: Written,
    output: Output = None,
    filename: FileName = None,
    web: Shown = None,
    simulate: Simulate = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Create a batch and make its videos.

    Exit codes: 0 completed, 1 failed, 3 partial, 4 cancelled, 2 usage or configuration error, 130 interrupted,
    143 terminated. Ctrl-C stops without cancelling the batch; `sora-batch resume` continues it.
    """
    from actors.cli.authoring import requested

    request = requested(replace(written, concurrency=None))
    session = _session(output, filename, simulate=simulate, json=json, quiet=quiet, verbose=verbose, web=web)
    _check_concurrency(written.concurrency)
    session.run_new(request, written.concurrency)


def demo(
    output: Output = None,
    filename: FileName = None,
    web: Shown = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Make a sample batch with the simulator.

    Needs no settings and costs nothing: three videos, "Nature scenes", marked as simulated.
    """
    from actors.formats.common import Request

    session = _session(output, filename, simulate=True, json=json, quiet=quiet, verbose=verbose, web=web)
    session.run_new(Request(DEMO), _CONCURRENCY)


def resume(
    batch_id: AnyBatchId = None,
    output: Output = None,
    filename: FileName = None,
    simulate: Simulate = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Resume one unfinished batch, or all.

    Videos that the server is already making are not paid for again.
    Without an ID, --json prints a list of batches. Exit codes: those of `sora-batch run`; with several batches, the
    worst one.
    """
    session = _session(output, filename, simulate=simulate, json=json, quiet=quiet, verbose=verbose)
    session.resume(batch_id)


def retry(
    batch_ids: BatchIds,
    job: Annotated[
        list[str] | None,
        typer.Option("--job", "-j", metavar="JOB", help="Only this video: its job id or its number. Repeatable."),
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="JOB.FIELD=VALUE",
            help="Change prompt, duration, size, model, seed, input_reference, params.NAME or files.NAME of a video, "
            "such as 2.params.fps=24. Repeatable.",
        ),
    ] = None,
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", metavar="PROMPT", help="New prompt for the one --job.")
    ] = None,
    pay_again: Annotated[
        bool, typer.Option("--pay-again", help="Pay even if an earlier video may exist on the server.")
    ] = False,
    move_server: Annotated[
        bool,
        typer.Option(
            "--move-server",
            help="The batch's server has moved to OPENAI_BASE_URL. With --pay-again: it is another server.",
        ),
    ] = False,
    missing: Annotated[
        bool, typer.Option("--missing", help="Download missing files of completed videos again; costs nothing.")
    ] = False,
    budget: NewBudget = None,
    output: Output = None,
    filename: FileName = None,
    remote: Remote = False,
    simulate: Simulate = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:  # fmt: skip
    """Retry failed and cancelled videos.

    Videos that the server still has are downloaded, not paid for again. A changed prompt is a new payment.
    With several IDs, --json prints a list. Exit codes: those of `sora-batch run`; with several batches, the worst one.
    With --remote, a service does it: prints the ids once it has accepted; `sora-batch watch` follows a batch.
    """
    from actors.cli.authoring import parse_new_budget
    from actors.cli.remote import or_remote, retry_there

    if len(batch_ids) > 1 and (job or change or prompt is not None):
        raise InvalidRequest("--job, --set and --prompt work with a single batch: give one ID")
    ids = list(dict.fromkeys(batch_ids))
    jobs, changes = _what(ids[0], job or [], change or [], prompt)
    consents: dict[str, Any] = {
        "pay_again": pay_again, "move_server": move_server, "budget": parse_new_budget(budget),
    }  # fmt: skip
    if remote:
        if output is not None or filename is not None or simulate:
            raise InvalidRequest(
                "--output, --filename and --simulate work on this machine only: omit them with --remote"
            )
        consents["missing"] = missing
        _print_agreed(
            [retry_there(batch_id, jobs, changes, **consents, verbose=verbose) for batch_id in ids], json=json
        )
        return
    session = _session(output, filename, simulate=simulate, json=json, quiet=quiet, verbose=verbose)
    with or_remote("retry", " ".join(ids)):
        session.retry(ids, jobs, changes, **consents, missing=missing)


def _print_agreed(batches: list[Batch], *, json: bool) -> None:
    """Print what a service has accepted to retry: the ids, or the batches as they are then."""
    from actors.cli.table import print_json

    if json:
        documents = [batch.model_dump(mode="json") for batch in batches]
        print_json(documents if len(documents) > 1 else documents[0])
    else:
        for batch in batches:
            typer.echo(batch.id)


def _what(
    batch_id: str, job: list[str], change: list[str], prompt: str | None
) -> tuple[list[str] | None, dict[str, dict[str, Any]] | None]:
    """The named jobs, and the changes to them."""
    from actors.cli.changes import parse_changes, whole_job_id

    jobs = [whole_job_id(batch_id, each) for each in job]
    changes = parse_changes(batch_id, change)
    if prompt is not None:
        if len(jobs) != 1:
            raise InvalidRequest("--prompt needs exactly one --job: name the video that it is for")
        changes.setdefault(jobs[0], {})["prompt"] = prompt
    return jobs or None, changes or None


def _session(
    output: Path | None, filename: str | None, *, simulate: bool, json: bool, quiet: bool, verbose: bool,
    web: str | None = None,
) -> Session:  # fmt: skip
    from actors.cli import session

    return session.Session(output, filename, simulate=simulate, json=json, quiet=quiet, verbose=verbose, web=web)


def _check_concurrency(concurrency: int | None) -> None:
    if concurrency is not None and concurrency < 1:
        raise InvalidRequest(f"--concurrency {concurrency}: must be a whole number of 1 or more")
