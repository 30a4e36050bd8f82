"""The command `retry`: has failed and cancelled videos made after all, here or by a service."""
# ruff: noqa: FBT002  (a command's options are its parameters)

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from actors.cli.opening import connected, or_remote
from actors.cli.options import (
    BatchIds,
    FileName,
    Json,
    NewBudget,
    Output,
    Quiet,
    Remote,
    Simulate,
    Verbose,
    spelled_out,
)
from actors.errors import Conflict, InvalidRequest, SoraBatchError

if TYPE_CHECKING:
    from actors.batch.views import Batch
    from actors.cli.session import Session
    from actors.service import BatchService

_FIELDS = ("prompt", "duration", "seconds", "size", "model", "seed", "input_reference")
_SPELLINGS = {"inputReference": "input_reference"}
_GROUPS = ("params", "files")
"""Their members are changed one by one: `params.fps`."""
_KNOWN = f"{', '.join(_FIELDS)}, params.NAME, files.NAME"


@dataclass(frozen=True)
class Retried:
    """What is to be retried, and what a person allows for it."""

    batch_ids: BatchIds
    job: Annotated[
        list[str] | None,
        typer.Option("--job", "-j", metavar="JOB", help="Only this video: its job id or its number. Repeatable."),
    ] = None
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="JOB.FIELD=VALUE",
            help="Change prompt, duration, size, model, seed, input_reference, params.NAME or files.NAME of a video, "
            "such as 2.params.fps=24. Repeatable.",
        ),
    ] = None  # fmt: skip
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", metavar="PROMPT", help="New prompt for the one --job.")
    ] = None
    pay_again: Annotated[
        bool, typer.Option("--pay-again", help="Pay even if an earlier video may exist on the server.")
    ] = False
    move_server: Annotated[
        bool,
        typer.Option(
            "--move-server",
            help="The batch's server has moved to OPENAI_BASE_URL. With --pay-again: it is another server.",
        ),
    ] = False
    missing: Annotated[
        bool, typer.Option("--missing", help="Download missing files of completed videos again; costs nothing.")
    ] = False
    budget: NewBudget = None

    def jobs_and_changes(self) -> tuple[list[str] | None, dict[str, dict[str, Any]] | None]:
        """The named jobs, and the changes to them.

        Raises:
            InvalidRequest: the options don't go together, or one is wrong.
        """
        if len(self.batch_ids) > 1 and (self.job or self.change or self.prompt is not None):
            raise InvalidRequest("--job, --set and --prompt work with a single batch: give one ID")
        batch_id = self.batch_ids[0]
        jobs = [whole_job_id(batch_id, each) for each in self.job or []]
        changes = parse_changes(batch_id, self.change or [])
        if self.prompt is not None:
            if len(jobs) != 1:
                raise InvalidRequest("--prompt needs exactly one --job: name the video that it is for")
            changes.setdefault(jobs[0], {})["prompt"] = self.prompt
        return jobs or None, changes or None


@spelled_out()
def retry(
    retried: Retried,
    output: Output = None,
    filename: FileName = None,
    remote: Remote = False,
    simulate: Simulate = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Retry failed and cancelled videos.

    Videos that the server still has are downloaded, not paid for again. A changed prompt is a new payment.
    With several IDs, --json prints a list. Exit codes: those of `sora-batch run`; with several batches, the worst one.
    With --remote, a service does it: prints the ids once it has accepted; `sora-batch watch` follows a batch.
    """
    from actors.cli.authoring import parse_new_budget
    from actors.cli.session import Session

    jobs, changes = retried.jobs_and_changes()
    ids = list(dict.fromkeys(retried.batch_ids))
    consents: dict[str, Any] = {
        "pay_again": retried.pay_again,
        "move_server": retried.move_server,
        "missing": retried.missing,
        "budget": parse_new_budget(retried.budget),
    }
    if remote:
        if output is not None or filename is not None or simulate:
            raise InvalidRequest(
                "--output, --filename and --simulate work on this machine only: omit them with --remote"
            )
        agreed = []
        for batch_id in ids:
            with connected(verbose=verbose) as client:
                client.retry(batch_id, jobs, changes, **consents)
                agreed.append(client.report(batch_id))
        _print_agreed(agreed, json=json)
        return
    session = Session(output, filename, simulate=simulate, json=json, quiet=quiet, verbose=verbose)
    with or_remote("retry", " ".join(ids)):
        _retry_here(session, ids, jobs, changes, **consents)


def _retry_here(
    session: "Session", batch_ids: Sequence[str], jobs: list[str] | None, changes: dict[str, dict[str, Any]] | None, *,
    pay_again: bool, move_server: bool, missing: bool, budget: list[dict[str, str]] | None,
) -> None:  # fmt: skip
    """Retry videos of ended batches; with `missing`, those whose file is missing and those that are named."""
    from actors.cli.follow import viewed
    from actors.cli.results import warn_of_the_impossible, warn_of_the_unknown

    several = len(batch_ids) > 1
    running, views, failures = [], [], {}
    with session.service(*batch_ids) as service:
        with service.retrying():
            for batch_id in batch_ids:
                try:
                    view = viewed(service, batch_id)
                    session.check_names(key for job in view.jobs.values() for key in job.metadata)
                    if view.finished and not (jobs or changes or pay_again or missing):
                        moved = " --move-server" if move_server else ""
                        warn_of_the_unknown(view.jobs.values(), batch_id, session.options + moved)
                    named = [*(jobs or []), *_missing(service, batch_id)] if missing else jobs
                    retried = service.retry_batch(batch_id, named, changes, pay_again, move_server, budget)
                except SoraBatchError as error:
                    if not several:
                        raise
                    failures[batch_id] = error
                else:
                    left_alone = [view.jobs[job_id] for job_id in retried.left_alone]
                    warn_of_the_impossible(left_alone, batch_id, session.options)
                    running.append(retried)
                    views.append(view)
        session.finish(service, running, views, several=several, failures=failures)


def _missing(service: "BatchService", batch_id: str) -> list[str]:
    """The jobs whose file is missing.

    Raises:
        Conflict: there is none.
    """
    from actors.service.refetching import nothing_missing

    job_ids = service.jobs_without_file(batch_id)
    if not job_ids:
        raise Conflict(nothing_missing(service.get_batch_status(batch_id)))
    return job_ids


def _print_agreed(batches: list["Batch"], *, json: bool) -> None:
    """Print what a service has accepted to retry: the ids, or the batches as they are then."""
    from actors.cli.text import print_json

    if json:
        documents = [batch.model_dump(mode="json") for batch in batches]
        print_json(documents if len(documents) > 1 else documents[0])
    else:
        for batch in batches:
            typer.echo(batch.id)


def whole_job_id(batch_id: str, job: str) -> str:
    """A job's id, given the id or the video's number."""
    return f"{batch_id}-{int(job):02}" if job.isascii() and job.isdigit() else job


def parse_changes(batch_id: str, pairs: list[str]) -> dict[str, dict[str, Any]]:
    """Read `JOB.FIELD=VALUE`.

    Raises:
        InvalidRequest: one has another form, or the field can't be changed.
    """
    changes: dict[str, dict[str, Any]] = {}
    for pair in pairs:
        target, equals, value = pair.partition("=")
        job, dot, field = target.partition(".")
        if not (equals and dot and job):
            raise InvalidRequest(f"--set {pair!r}: expected JOB.FIELD=VALUE, such as 2.prompt='A calm sea'")
        change = changes.setdefault(whole_job_id(batch_id, job), {})
        field = _SPELLINGS.get(field, field)
        group, dot, name = field.partition(".")
        if group in _GROUPS and name:
            change.setdefault(group, {})[name] = _param(pair, value) if group == "params" else _file(value)
        elif field in _FIELDS:
            change[field] = value
        else:
            meant = _meant(job, field, value)
            raise InvalidRequest(f"--set {pair!r}: {field!r} can't be changed; these can: {_KNOWN}{meant}")
    return changes


def _param(pair: str, value: str) -> Any:
    from actors.documents import Unreadable, json_or_text

    try:
        return json_or_text(value)
    except Unreadable as error:
        raise InvalidRequest(f"--set {pair!r}: {error}") from None


def _file(value: str) -> str | None:
    """The path of a file; `null` removes what the job has."""
    return None if value == "null" else value


def _meant(job: str, field: str, value: str) -> str:
    from actors.batch.field_errors import nearest
    from actors.batch.fields import VIDEO_FIELDS

    if field in VIDEO_FIELDS or "." in field:
        return ""
    near = nearest(field, _FIELDS)
    return f"; did you mean {near}?" if near else f"; for a field of the server: --set {job}.params.{field}={value}"
