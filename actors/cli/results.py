"""What became of a batch: its closing table or paths, the exit code, and what can be done about failures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from actors.cli.opening import warn
from actors.cli.text import Whole, clean, count, print_table, reason, say, shown_path, shown_place, span, title
from actors.errors import ErrorCode
from storage.states import FINAL_JOB, BatchStatus, JobStatus

if TYPE_CHECKING:
    from actors.batch.job_views import Job
    from actors.batch.views import Batch

EXIT_CODES = {
    BatchStatus.COMPLETED: 0,
    BatchStatus.FAILED: 1,
    BatchStatus.PARTIAL: 3,
    BatchStatus.CANCELLED: 4,
}
SIMULATED = (
    "These videos are simulated: no video model made them, and they cost nothing. For real ones, set "
    "OPENAI_BASE_URL to a server that speaks the Videos API (and OPENAI_API_KEY to its key), "
    "then run: sora-batch run FILE"
)
_PROMPT = 40
_NAMED = 5
"""At most this many videos are named in a warning."""


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
    for number in _unknown_ones(batch.jobs):
        yield f"whether video {number} was made is unknown{_look_for_it(batch.id, number, options)}"
    for number, error in errors.items():
        command = f"sora-batch retry {batch.id}{options} --job {number}"
        if error.code == ErrorCode.NOT_FOUND and number in made:
            yield f"video {number} is no longer on the server; to pay for another: {command} --pay-again"
        if error.code == ErrorCode.MODERATION_BLOCKED:
            yield f"try with another prompt: {command} --prompt PROMPT"


def _unknown_ones(jobs: Iterable[Job]) -> list[int]:
    return [job.index for job in jobs if job.error is not None and job.error.code == ErrorCode.SUBMISSION_UNKNOWN]


def _look_for_it(batch_id: str, number: int, options: str) -> str:
    command = f"sora-batch retry {batch_id}{options} --job {number}"
    return f"; to look for it again: {command}; to pay for it, perhaps twice: {command} --pay-again"


def warn_of_the_unknown(jobs: Iterable[Job], batch_id: str, options: str) -> None:
    """Before a retry: which videos it leaves alone, since their submission has an unknown outcome."""
    for number in _unknown_ones(jobs):
        way_out = _look_for_it(batch_id, number, options)
        warn(f"video {number} is not retried: whether it was made is unknown{way_out}")


def warn_of_the_impossible(jobs: Iterable[Job], batch_id: str, options: str) -> None:
    """After a retry: why it left these videos alone, unless the outcome of their submission is unknown."""
    for job in jobs:
        again = f"sora-batch retry {batch_id}{options} --job {job.index}"
        if job.error is not None and job.error.code == ErrorCode.CANCELLED:
            why = f"the server deleted only its record; to pay again: {again} --pay-again"
            warn(f"video {job.index} is not retried: {why}")
        elif job.error is not None and job.error.code != ErrorCode.SUBMISSION_UNKNOWN:
            why = f"it would fail again ({job.error.code}); change it: {again} --prompt 'ANOTHER PROMPT'"
            warn(f"video {job.index} is not retried: {why}")
