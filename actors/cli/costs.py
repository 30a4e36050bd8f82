"""The command `costs`: what was spent, and a person's word on what a submission cost."""
# ruff: noqa: FBT002  (a command's options are its parameters)

from __future__ import annotations

import csv
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from actors.cli.opening import absent_database, opened, prepare
from actors.cli.options import Json, Verbose
from actors.errors import InvalidRequest

if TYPE_CHECKING:
    from actors.batch.costs import CostReport
    from actors.batch.job_views import Cost

_SUMS = ("estimated_micros", "reserved_micros", "charged_micros", "assumed_micros")


def costs(
    since: Annotated[
        str | None, typer.Option("--since", metavar="SPAN|DATE", help="Only what was submitted since: 30d, 2026-11-01.")
    ] = None,
    by: Annotated[
        str | None, typer.Option("--by", metavar="GROUP", help="day, model, batch, or metadata.KEY.")
    ] = None,
    settle: Annotated[
        str | None,
        typer.Option(
            "--settle", metavar="SUBMISSION",
            help="Record what a submission cost, on your word: `released` or an amount such as '0.40 USD' follows.",
        ),
    ] = None,
    word: Annotated[str | None, typer.Argument(metavar="[released|AMOUNT]", help="With --settle.")] = None,
    json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values, amounts in millionths.")] = False,
    verbose: Verbose = False,
) -> None:  # fmt: skip
    """Show what submissions cost, and what is left of the budgets.

    A submission is reserved (it may have been paid for), assumed (accepted at the price of SORA_PRICES) or charged
    (the server reported its price). Released ones cost nothing.
    """
    from actors.batch.costs import CostReport, read_group, read_since
    from actors.cli.text import print_json

    if (settle is None) != (word is None):
        raise InvalidRequest("--settle SUBMISSION needs `released` or an amount after it, such as '0.40 USD'")
    if settle is not None and word is not None:
        _settle(settle, word, json=json, verbose=verbose)
        return
    settings = prepare(verbose=verbose)
    if absent_database(settings) is not None:
        read_since(since, 0.0)
        report = CostReport.of([], read_group(by), None, [])
    else:
        with opened(verbose=verbose, settings=settings) as service:
            report = service.costs(since, by)
    if json:
        print_json(report.model_dump(mode="json"))
    elif as_csv:
        _print_csv(report)
    else:
        _print(report)


def _settle(submission_id: str, word: str, *, json: bool, verbose: bool) -> None:
    from actors.cli.text import print_json, say

    with opened(verbose=verbose, looked_for=f"submission {submission_id!r}") as service:
        batch = service.settle_cost(submission_id, word)
    if json:
        print_json(None if batch is None else batch.model_dump(mode="json"))
    else:
        say(f"submission {submission_id} is settled: {word}")


def _print_csv(report: CostReport) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow([report.by or "all", "submissions", "currency", *_SUMS, "unknown_prices"])
    for key, submissions, cost in _rows(report):
        writer.writerow(
            [key, submissions, cost.currency or "", *(getattr(cost, name) for name in _SUMS), cost.unknown_prices]
        )


def _rows(report: CostReport) -> list[tuple[str, int, Cost]]:
    groups = [(group.key or "", group.submissions, group.cost) for group in report.groups]
    if report.by is None:
        groups = [("all", report.submissions, report.cost)]
    return [(key, submissions, cost) for key, submissions, costs in groups for cost in costs]


def _print(report: CostReport) -> None:
    from actors.cli.text import count, print_table, say

    rows = [_cells(key or "(none)", cost) for key, _, cost in _rows(report)]
    if report.by is not None:
        rows += [_cells("all", cost) for cost in report.cost]
    if rows:
        print_table([report.by or "", "charged", "assumed", "reserved", "unknown"], rows, own_line=0)
    else:
        say("nothing was spent")
    for line in _left(report):
        say(line)
    if report.flagged:
        told = count(report.flagged, "submission")
        say(
            f"flagged: the price reported for {told} is implausible or above the reservation; see sora-batch history ID"
        )


def _cells(key: str, cost: Cost) -> list[str]:
    from actors.batch.limits import amount_text

    def shown(micros: int) -> str:
        return amount_text(micros, cost.currency) if cost.currency is not None and micros else "-"

    unknown = str(cost.unknown_prices) if cost.unknown_prices else "-"
    return [key, shown(cost.charged_micros), shown(cost.assumed_micros), shown(cost.reserved_micros), unknown]


def _left(report: CostReport) -> list[str]:
    from actors.batch.limits import left_text

    return [f"budget: {left_text(each)}" for each in report.budgets]
