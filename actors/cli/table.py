"""The tables on standard output: the result of each video, and lists of batches."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from actors.cli.opening import warn
from actors.cli.text import (
    cells,
    clean,
    count,
    fold,
    reason,
    shorten,
    shown_path,
    shown_place,
    span,
    terminal_width,
    title,
)
from actors.errors import ErrorCode
from actors.logs import UNSAFE
from storage.states import FINAL_JOB, BatchStatus, JobStatus

if TYPE_CHECKING:
    from actors.batch.views import Batch, Job

_PROMPT = 40
_LEAST, _LEAST_BESIDE = 8, 4
"""Columns below which a cell is not cut: to keep a row on one line, and at all."""
_NAMED = 5
"""At most this many videos are named in a warning."""
_GAP, _INDENT = "  ", "   "
_UNSAFE = {code: f"\\u{code:04x}" for code in UNSAFE if code >= 0x7F}  # json has escaped the others


def print_json(document: Any) -> None:
    """One JSON document on standard output."""
    typer.echo(json_text(document))


def json_text(document: Any, indent: int | None = 2) -> str:
    """JSON without raw control characters; in ASCII unless standard output is UTF-8."""
    utf8 = (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf8")
    separators = (",", ":") if indent is None else None
    return json.dumps(document, indent=indent, separators=separators, ensure_ascii=not utf8).translate(_UNSAFE)


class Whole(str):
    """A cell to be copied: never broken, not even at spaces."""

    __slots__ = ()


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, cut: int | None = None, own_line: int | None = None
) -> None:
    """Aligned columns; complete where the output is no terminal.

    On a terminal that is too narrow, the column `cut` is shortened; then long cells of the column `own_line` (else the
    widest) get lines of their own. They are never broken within an id, a path or a command.
    """
    table = [[Whole(clean(cell)) if isinstance(cell, Whole) else clean(cell) for cell in row] for row in rows]
    head = [list(columns)] if columns else []
    lines = _lines([*head, *table], terminal_width(sys.stdout), cut, own_line) if table or head else []
    for number, line in enumerate(lines):
        bold = bool(columns) and number == 0 and sys.stdout.isatty()
        typer.echo(typer.style(line, bold=True) if bold else line)


def say(text: str) -> None:
    """Print sentences on standard output."""
    width = terminal_width(sys.stdout)
    typer.echo(text if width is None else fold(text, width))


def _lines(table: list[list[str]], width: int | None, cut: int | None, own_line: int | None) -> Iterator[str]:
    widths = [max(map(cells, column)) for column in zip(*table, strict=True)]
    over = sum(widths) + len(_GAP) * (len(widths) - 1) - (width or sys.maxsize)
    if over > 0 and cut is not None and widths[cut] - over >= _LEAST:
        widths[cut], over = widths[cut] - over, 0
    if over > 0:
        others = [number for number in range(len(widths)) if number != cut]
        own = max(others, key=widths.__getitem__) if own_line is None else own_line
        room = widths[own] - over
        if room < cells(table[0][own]) and cut is not None:  # not even its head
            widths[cut], room = max(_LEAST_BESIDE, min(widths[cut], widths[cut] + room - len(_INDENT))), 0
        widths[own] = max(0, room)
    for row in table:
        yield from _row(row, widths, width or sys.maxsize, cut)


def _row(row: Sequence[str], widths: Sequence[int], width: int, cut: int | None) -> Iterator[str]:
    """A row as lines: cells wider than their column get lines of their own."""
    shown = [shorten(cell, widths[number]) if number == cut else cell for number, cell in enumerate(row)]
    long = [number for number, cell in enumerate(shown) if cells(cell) > widths[number]]
    kept = ["" if number in long else cell + " " * (widths[number] - cells(cell)) for number, cell in enumerate(shown)]
    rest = _GAP.join(cell or " " * widths[number] for number, cell in enumerate(kept)).rstrip()
    if 0 in long:  # what names the row comes first
        yield from _own_lines(row[0], width, "")
        rest = _INDENT + rest.lstrip()
    if rest.strip():
        yield rest
    for number in long:
        if number:
            yield from _own_lines(row[number], width, _INDENT)


def _own_lines(cell: str, width: int, indent: str) -> list[str]:
    indent = indent if cells(indent + cell) <= width or not isinstance(cell, Whole) else ""
    return [indent + cell] if isinstance(cell, Whole) else fold(indent + cell, width, indent).split("\n")


def print_batch(
    batch: Batch,
    placed: Mapping[str, Path],
    *,
    simulated: bool = False,
    elsewhere: bool = False,
    worked: float | None = None,
) -> None:
    """The closing table: for each video its file, or why there is none.

    Args:
        batch: with its jobs.
        placed: copies of files, by job id.
        simulated: the simulator makes its videos.
        elsewhere: it is in another database, where our commands would not find it.
        worked: the seconds for which some process owned it.
    """
    print_table(
        ["#", "video", "state", "file or reason"],
        [[str(job.index), title(job, _PROMPT), job.status.value, outcome(job, placed)] for job in batch.jobs],
        cut=1,
        own_line=3,
    )
    say(summary(batch, simulated=simulated, elsewhere=elsewhere, worked=worked))
    for line in _warnings(batch.jobs):
        say(line)


def _warnings(jobs: Iterable[Job]) -> Iterator[str]:
    """Where videos differ from the request; the same warning for many videos is one line."""
    numbers: dict[str, list[int]] = {}
    for job in jobs:
        for warning in job.warnings:
            numbers.setdefault(warning.message, []).append(job.index)
    for message, found in numbers.items():
        rest = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        numbered = f"video{'s' if len(found) > 1 else ''} {', '.join(map(str, found[:_NAMED]))}{rest}"
        yield f"warning: {numbered}: {clean(message)}"


def print_paths(batch: Batch, placed: Mapping[str, Path]) -> None:
    """Only the paths of the files, one per line; on standard error, why one is missing."""
    for job in batch.jobs:
        if job.video is not None:
            path = placed.get(job.id) or job.video.path
            typer.echo(shown_place(path and Path(path).absolute(), job.video.uri))
        elif job.status is not JobStatus.COMPLETED and job.error is not None:
            warn(f"{job.id} {job.status.value}: {reason(job.error.code, job.error.message)}")


def outcome(job: Job, placed: Mapping[str, Path]) -> str:
    """The path of the file, or why there is none."""
    if job.id in placed:
        return Whole(shown_path(placed[job.id].absolute()))
    if job.video is not None:
        return Whole(shown_place(job.video.path, job.video.uri))
    if job.error is not None:
        return reason(job.error.code, job.error.message)
    return "" if job.status in FINAL_JOB or not job.progress else f"{job.progress} %"


def summary(
    batch: Batch, *, simulated: bool = False, elsewhere: bool = False, worked: float | None = None
) -> str:  # fmt: skip
    """`batch nature completed: 3 of 3 videos in 0:12`, and what failed."""
    progress = batch.progress
    name = f" ({clean(batch.name)})" if batch.name else ""
    text = f"batch {batch.id}{name} {batch.status.value}: {progress.completed} of {count(progress.total, 'video')}"
    for number, word in ((progress.failed, "failed"), (progress.cancelled, "cancelled")):
        if number and batch.status.value != word:
            text += f", {number} {word}"
    if batch.started_at and batch.completed_at:
        whole = (batch.completed_at - batch.started_at).total_seconds()
        text += f" in {span(whole if worked is None else min(worked, whole))}"
    if batch.error is not None and not any(job.error for job in batch.jobs):
        text += f"; {clean(batch.error.code)}: {clean(batch.error.message)}"
    return text if elsewhere else "\n".join([text, *_ways_out(batch, " --simulate" if simulated else "")])


def _ways_out(batch: Batch, options: str) -> Iterator[str]:
    """What can be done about failures: commands that work as printed."""
    if batch.status not in (BatchStatus.FAILED, BatchStatus.PARTIAL):
        return
    errors = {job.index: job.error for job in batch.jobs if job.error is not None}
    made = {job.index for job in batch.jobs if job.remote_id is not None}
    missed = any(error.code == ErrorCode.NOT_FOUND and number not in made for number, error in errors.items())
    refused = any(error.code == ErrorCode.AUTHENTICATION for error in errors.values())
    if refused or (missed and not made):
        setting = "OPENAI_API_KEY" if refused else "OPENAI_BASE_URL"
        yield f"correct {setting}, then: sora-batch retry {batch.id}{options}"
    elif exceeded := [error.detail or {} for error in errors.values() if error.code == ErrorCode.BUDGET_EXCEEDED]:
        if exceeded[0].get("scope") == "batch":
            raised = f" --budget '<AMOUNT> {exceeded[0]['unit']}'"
            yield f"raise the budget and retry what failed: sora-batch retry {batch.id}{options}{raised}"
        else:
            yield f"once the budget has room again, retry what failed: sora-batch retry {batch.id}{options}"
    elif missed or any(error.retryable for error in errors.values()):
        yield f"retry what failed: sora-batch retry {batch.id}{options}"
    for number in unknown_ones(batch.jobs):
        yield f"whether video {number} was made is unknown{look_for_it(batch.id, number, options)}"
    for number, error in errors.items():
        command = f"sora-batch retry {batch.id}{options} --job {number}"
        if error.code == ErrorCode.NOT_FOUND and number in made:
            yield f"video {number} is no longer on the server; to pay for another: {command} --pay-again"
        if error.code == ErrorCode.MODERATION_BLOCKED:
            yield f"try with another prompt: {command} --prompt PROMPT"


def unknown_ones(jobs: Iterable[Job]) -> list[int]:
    """The numbers of the videos whose submission has an unknown outcome."""
    return [job.index for job in jobs if job.error is not None and job.error.code == ErrorCode.SUBMISSION_UNKNOWN]


def look_for_it(batch_id: str, number: int, options: str = "") -> str:
    """What can be done about one of them."""
    command = f"sora-batch retry {batch_id}{options} --job {number}"
    return f"; to look for it again: {command}; to pay for it, perhaps twice: {command} --pay-again"
