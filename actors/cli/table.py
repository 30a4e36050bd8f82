"""The tables on standard output: what became of each video, and lists of batches."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from actors.cli.options import warn
from actors.cli.text import clean, count, reason, shorten, shown_path, span
from actors.errors import ErrorCode
from actors.logs import UNSAFE
from storage.states import FINAL_JOB, BatchStatus, JobStatus

if TYPE_CHECKING:
    from actors.model import Batch, Job

_PROMPT = 40
_NO_TERMINAL_WIDTH = 10_000
"""Columns: lines in a file or a pipe are not folded."""
_UNSAFE = {code: f"\\u{code:04x}" for code in UNSAFE if code >= 0x7F}  # json has escaped the others


def print_json(document: Any) -> None:
    """One JSON document on standard output."""
    typer.echo(json_text(document))


def json_text(document: Any, indent: int | None = 2) -> str:
    """JSON without raw control characters, and in ASCII where standard output takes nothing else."""
    utf8 = (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf8")
    separators = (",", ":") if indent is None else None
    return json.dumps(document, indent=indent, separators=separators, ensure_ascii=not utf8).translate(_UNSAFE)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns on a terminal that fold; plain, aligned and whole elsewhere. A row's last cell may be long."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    terminal = Console(highlight=False)
    console = terminal if terminal.is_terminal else Console(highlight=False, width=_NO_TERMINAL_WIDTH)
    table = Table(box=None, pad_edge=False, header_style="bold", show_header=bool(columns))
    for number in range(len(rows[0]) if rows else len(columns)):
        # Folded, never cut: a path that lacks its end is worth nothing.
        table.add_column(columns[number] if columns else "", overflow="fold", no_wrap=not terminal.is_terminal)
    for row in rows:
        table.add_row(*(Text(clean(cell)) for cell in row))
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        typer.echo(line.rstrip())


def print_batch(
    batch: Batch, placed: Mapping[str, Path], *, simulated: bool = False, elsewhere: bool = False
) -> None:  # fmt: skip
    """The closing table: for each video its file, or the reason why there is none.

    `elsewhere`: its database is another one, where no command of ours would find it.
    """
    print_table(
        ["#", "video", "state", "file or reason"],
        [[str(job.index), shorten(job.prompt, _PROMPT), job.status.value, outcome(job, placed)] for job in batch.jobs],
    )
    typer.echo(summary(batch, simulated=simulated, elsewhere=elsewhere))


def print_paths(batch: Batch, placed: Mapping[str, Path]) -> None:
    """Only the paths of the files, one a line; on standard error, why one is missing."""
    for job in batch.jobs:
        if job.video is not None:
            typer.echo(shown_path(placed.get(job.id, Path(job.video.path)).absolute()))
        elif job.status is not JobStatus.COMPLETED and job.error is not None:
            warn(f"{job.id} {job.status.value}: {reason(job.error.code, job.error.message)}")


def outcome(job: Job, placed: Mapping[str, Path]) -> str:
    """Where the file lies, or why there is none."""
    if job.id in placed:
        return shown_path(placed[job.id].absolute())
    if job.video is not None:
        return shown_path(job.video.path)
    if job.error is not None:
        return reason(job.error.code, job.error.message)
    return "" if job.status in FINAL_JOB or not job.progress else f"{job.progress} %"


def summary(batch: Batch, *, simulated: bool = False, elsewhere: bool = False) -> str:
    """`batch nature completed: 3 of 3 videos in 0:12`, and what failed."""
    progress = batch.progress
    name = f" ({clean(batch.name)})" if batch.name else ""
    text = f"batch {batch.id}{name} {batch.status.value}: {progress.completed} of {count(progress.total, 'video')}"
    for number, word in ((progress.failed, "failed"), (progress.cancelled, "cancelled")):
        if number and batch.status.value != word:
            text += f", {number} {word}"
    if batch.started_at and batch.completed_at:
        text += f" in {span((batch.completed_at - batch.started_at).total_seconds())}"
    if batch.error is not None and not any(job.error for job in batch.jobs):
        text += f"; {clean(batch.error.code)}: {clean(batch.error.message)}"
    return text if elsewhere else "\n".join([text, *_ways_out(batch, " --simulate" if simulated else "")])


def _ways_out(batch: Batch, options: str) -> Iterator[str]:
    """What can be done about what failed: commands that work as they stand."""
    if batch.status not in (BatchStatus.FAILED, BatchStatus.PARTIAL):
        return
    errors = {job.index: job.error for job in batch.jobs if job.error is not None}
    made = {job.index for job in batch.jobs if job.remote_id is not None}
    if any(error.code == ErrorCode.NOT_FOUND and number not in made for number, error in errors.items()):
        yield f"correct OPENAI_BASE_URL, then: sora-batch retry {batch.id}{options}"
    elif any(error.retryable for error in errors.values()):
        yield f"try what failed again: sora-batch retry {batch.id}{options}"
    for number in unknown_ones(batch.jobs):
        yield f"whether video {number} was made is unknown{look_for_it(batch.id, number, options)}"
    for number, error in errors.items():
        command = f"sora-batch retry {batch.id}{options} --job {number}"
        if error.code == ErrorCode.NOT_FOUND and number in made:
            yield f"video {number} is not on the server any more; to pay for another: {command} --pay-again"
        if error.code == ErrorCode.MODERATION_BLOCKED:
            yield f"try with another prompt: {command} --prompt PROMPT"


def unknown_ones(jobs: Iterable[Job]) -> list[int]:
    """The numbers of the videos of which nobody knows whether they were made."""
    return [job.index for job in jobs if job.error is not None and job.error.code == ErrorCode.SUBMISSION_UNKNOWN]


def look_for_it(batch_id: str, number: int, options: str = "") -> str:
    """What can be done about one of those."""
    command = f"sora-batch retry {batch_id}{options} --job {number}"
    return f"; to look for it again: {command}; to pay for it, perhaps twice: {command} --pay-again"
