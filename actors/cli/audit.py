"""The command `audit`: compares the database, the server and the files."""
# ruff: noqa: FBT002  (a command's options are its parameters)

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from actors.cli.inspect import standing
from actors.cli.opening import opened
from actors.cli.options import Json, Verbose

if TYPE_CHECKING:
    from actors.audit_report import AuditReport

_PROMPT = 40


def audit(
    checksums: Annotated[
        bool, typer.Option("--checksums", help="Also read every file and check its checksum.")
    ] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Also list the server's videos unknown to this database.")
    ] = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Compare database, server and files.

    Counts the server's videos that belong to no job; lists jobs whose video or file is missing, cancelled videos whose
    DELETE is pending or was given up, flagged prices, and files that belong to no job. Changes nothing.
    Exit codes: 0 everything matches, 1 something does not; flagged prices don't count.
    """
    from actors.cli.text import print_json, say

    with opened(verbose=verbose, looked_for="record to compare") as service:
        report = service.audit(checksums=checksums)
        place = service.database_place
    if json:
        print_json(report.model_dump(mode="json"))
    else:
        for line in _findings(report, everything=everything):
            say(line)
        say(_compared(report, place))
    raise typer.Exit(0 if report.clean else 1)


def _compared(report: AuditReport, place: str) -> str:
    """`284 server videos compared: 271 unknown to this database, 0 files missing`."""
    from actors.cli.text import count

    missing = f"{count(len(report.jobs_without_file), 'file')} missing"
    if report.videos_listed == 0 and report.files_compared == 0 and not report.files_without_job:
        return f"nothing to compare: the server listed no videos, and {place} records no files"
    if report.videos_listed == 0:
        return f"no server videos compared; {missing} of {report.files_compared}"
    unknown = f"{len(report.unknown_videos)} unknown to this database"
    return f"{count(report.videos_listed, 'server video')} compared: {unknown}, {missing}"


def _findings(report: AuditReport, *, everything: bool) -> Iterator[str]:
    from actors.batch.limits import amount_text
    from actors.cli.text import clean, count, shorten, shown_path, span

    if report.listing_problem is not None:
        yield f"the server's videos could not all be compared: {clean(report.listing_problem)}"
    listed = [unknown for unknown in report.unknown_videos if everything or unknown.may_be_of]
    if len(listed) < len(report.unknown_videos):
        others = count(len(report.unknown_videos) - len(listed), "server video")
        yield f"{others} unknown to this database, perhaps made by others; list with: sora-batch audit --all"
    for cost in report.unknown_cost:
        priced = sum(each.price is not None for each in report.unknown_videos)
        yield f"the server charged {amount_text(cost.micros, cost.currency)} for {count(priced, 'unknown video')}"
    for unknown in listed:
        age = "" if unknown.age_seconds is None else f", {span(unknown.age_seconds)} old"
        prompt = "" if unknown.prompt is None else f": {shorten(unknown.prompt, _PROMPT)}"
        price = "" if unknown.price is None else f", {amount_text(unknown.price.micros, unknown.price.currency)}"
        line = f"no job for video {clean(unknown.remote_id)} ({shorten(unknown.status, _PROMPT)}{age}{price}){prompt}"
        yield line + (f"; it may belong to {', '.join(unknown.may_be_of)}" if unknown.may_be_of else "")
    for surplus in report.surplus_videos:
        still = "the server still has it" if surplus.listed else "the server does not list it"
        yield f"paid for but not needed: video {clean(surplus.remote_id)} of {surplus.job_id}; {still}"
    for missing in report.missing_videos:
        yield f"{missing.job_id} ({missing.status.value}): the server does not list {clean(missing.remote_id)}"
    for owed in report.owed_deletes:
        yield f"{owed.job_id} {clean(owed.remote_id)} at {clean(owed.server)}: {clean(standing(owed))}"
    yield from _flagged(report)
    for file in report.jobs_without_file:
        yield f"{file.job_id}: {shown_path(file.path)}: {file.problem}"
    for path in report.files_without_job:
        yield f"no job for file {shown_path(path)}"


def _flagged(report: AuditReport) -> Iterator[str]:
    from actors.cli.text import clean

    for each in report.flagged_prices:
        yield f"{each.job_id}: submission {each.submission_id}: flagged: {clean(each.doubt)}"
    if report.flagged_prices:
        yield "to answer a flag, record what the submission cost: sora-batch costs --settle SUBMISSION AMOUNT"
