"""Where a finished video differs from its request, by the server's report or its file, or may be a twin's.

Twins are jobs with the same prompt, in the making at the same time. They differ in fields that no listing shows, such
as the seed.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.batch.batch_update import request_digest
from actors.sora.matching import BEFORE, contradicts
from actors.sora.requests import VideoSpec
from actors.sora.wire import RemoteVideo
from storage.records import Document, JobRecord
from storage.storage import Storage

logger = logging.getLogger(__name__)
_SECONDS_OFF = 0.5
"""Tolerance in seconds: a video is a whole number of frames."""

_LONGEST_SIZE, _LONGEST_PROMPT = 64, 32_000
"""The most characters that are kept of a server's texts."""
_PIXELS = re.compile(r"0*(\d{1,6})\s*[xX\u00d7*]\s*0*(\d{1,6})", re.ASCII)
_LINES = re.compile(r"(\d{3,4})[pP]", re.ASCII)
"""The short edge: 720p."""
_NAMED = 3
"""How many twins a warning names."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A video file's own length in seconds and size in pixels; None: the file does not say."""

    seconds: float | None
    size: str | None


_UNMEASURED = Measured(None, None)


@functools.cache
def can_measure() -> bool:
    """Whether the extra `media` is installed."""
    return importlib.util.find_spec("av") is not None


def measure(path: Path) -> Measured:
    """Read a file's length and size. Blocks. An unreadable file yields nothing: that is no fault of its video."""
    import av

    try:
        with av.open(path) as container:
            stream = next(iter(container.streams.video), None)
            seconds = None if container.duration is None else container.duration / av.time_base
            size = None if stream is None or not stream.width else f"{stream.width}x{stream.height}"
            return Measured(seconds, size)
    except (av.FFmpegError, ValueError) as error:
        logger.debug("a video file can't be measured", extra={"action": "unmeasured", "error": str(error)})
        return _UNMEASURED


def compare(
    job: JobRecord, video: RemoteVideo, measured: Measured | None, twins: Sequence[JobRecord] = ()
) -> Document | None:
    """What is recorded for a finished video besides its file: `reported` and `warnings`; None: nothing.

    Args:
        job: what was asked for.
        video: what the server says of it.
        measured: what its file says, if that was read.
        twins: jobs whose video this may be, as far as was known before it had finished.
    """
    reported = {
        "seconds": _number(video.seconds), "size": _cut(video.size, _LONGEST_SIZE), "seed": video.seed,
        "revised_prompt": _cut(video.revised_prompt, _LONGEST_PROMPT),
    }  # fmt: skip
    told = any(value is not None for value in reported.values())
    warnings = [*_warnings(job, reported, measured or _UNMEASURED), *(uncertain(job, video, twins) if twins else ())]
    if not told and not warnings:
        return None
    return {"reported": reported if told else None, "warnings": warnings}


def _warnings(job: JobRecord, reported: dict[str, Any], measured: Measured) -> list[Document]:
    found = [
        _differs("duration", job.duration, reported["seconds"], measured.seconds, " s"),
        _differs("size", job.size, reported["size"], measured.size, ""),
        _differs("seed", job.seed, reported["seed"], None, ""),
    ]
    return [warning for warning in found if warning is not None]


def _differs(field: str, asked: Any, told: Any, measured: Any, unit: str) -> Document | None:
    """The warning that a field differs from the request. The file overrides the server's report."""
    made = told if measured is None else measured
    if asked is None or made is None or made == asked:
        return None
    if field == "duration":
        if made <= 0 or abs(made - asked) <= _SECONDS_OFF:
            return None
        made = round(made, 2)
    if field == "size" and _may_be(asked, made):
        return None
    by = "the server reports" if measured is None else "the file has"
    message = f"asked for {field} {asked}{unit}; {by} {made}{unit}"
    return {"code": f"{field}_differs", "message": message, "asked": asked, "made": made}


def _may_be(asked: str, told: str) -> bool:
    """Whether a size may be another spelling of the requested one, or is none at all, such as `auto`."""
    width, height = map(int, asked.split("x"))
    if (pixels := _PIXELS.fullmatch(told.strip())) is not None:
        return (int(pixels[1]), int(pixels[2])) == (width, height)
    if (lines := _LINES.fullmatch(told.strip())) is not None:
        return int(lines[1]) == min(width, height)
    return True


def _cut(text: str | None, longest: int) -> str | None:
    """Shorten a server's text, since it goes into the events."""
    return text if text is None or len(text) <= longest else f"{text[: longest - 3]}..."


def _number(seconds: str | None) -> float | None:
    if seconds is None:
        return None
    number = float(seconds)
    return int(number) if number.is_integer() else number


def twins_of(storage: Storage, submission_id: str) -> list[JobRecord]:
    """The jobs with the same prompt whose video this submission may have adopted. Reads."""
    adopted = storage.submissions.get(submission_id)
    if not adopted.adopted:
        return []
    rivals = storage.submissions.rivals(adopted, adopted.intended_at - BEFORE)
    jobs = storage.jobs.by_id([adopted.job_id, *(rival.job_id for rival in rivals)])
    job = jobs.get(adopted.job_id)
    if job is None:
        return []
    twins = {
        twin.id: twin
        for rival in rivals
        if (twin := jobs.get(rival.job_id)) is not None
        and twin.prompt == job.prompt
        and request_digest(twin) == rival.digest
        # What was found before the other's intent can't be the other's video.
        and not (_found_before(twin, adopted.intended_at) or _found_before(job, rival.intended_at))
    }
    return list(twins.values())


def _found_before(job: JobRecord, moment: float) -> bool:
    return job.started_at is not None and job.started_at <= moment


def uncertain(job: JobRecord, video: RemoteVideo, twins: Sequence[JobRecord]) -> Iterator[Document]:
    """A warning for each requested field that may be a twin's: neither listing nor video says whose it is."""
    possible = [twin for twin in twins if not contradicts(video, _shown(twin))]
    for field, asked in _asked(job).items():
        if others := [twin for twin in possible if _asked(twin)[field] != asked]:
            yield _warning(field, asked, others)
    names = {
        "params": {name for twin in possible for name in _differing(job.params, twin.params)},
        "files": {name for twin in possible for name in _differing(_files(job), _files(twin))},
    }
    for field, found in names.items():
        if found:
            yield _warning(field, ", ".join(sorted(found)), possible)


def _warning(field: str, asked: str | int | None, others: list[JobRecord]) -> Document:
    ids = ", ".join(twin.id for twin in others[:_NAMED])
    more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
    what = f"asked for {field} {asked}" if asked is not None else f"{field} was not set"
    message = (
        f"{what}; the create's answer was lost and the video was found in the server's listing, "
        f"which does not show the {field}: it may be that of {ids}{more}"
    )
    return {"code": f"{field}_uncertain", "message": message, "asked": asked, "made": None}


def _asked(job: JobRecord) -> dict[str, str | int | None]:
    return {"model": job.model, "duration": job.duration, "size": job.size, "seed": job.seed}


def _files(job: JobRecord) -> Document:
    return {**({} if job.reference is None else {"input_reference": job.reference}), **job.files}


def _differing(first: Document, second: Document) -> set[str]:
    return {name for name in {*first, *second} if first.get(name) != second.get(name)}


def _shown(job: JobRecord) -> VideoSpec:
    return VideoSpec(job.prompt, job.model, job.duration, job.size, seed=job.seed)
