"""What the server reported about a finished video, and where that or the file differs from the request."""

from __future__ import annotations

import functools
import importlib.util
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.sora.wire import RemoteVideo
from actors.video.twins import uncertain
from storage.records import Document, JobRecord

logger = logging.getLogger(__name__)
_SECONDS_OFF = 0.5
"""Tolerance in seconds: a video is a whole number of frames."""

_LONGEST_SIZE, _LONGEST_PROMPT = 64, 32_000
"""The most characters that are kept of a server's texts."""
_PIXELS = re.compile(r"0*(\d{1,6})\s*[xX\u00d7*]\s*0*(\d{1,6})", re.ASCII)
_LINES = re.compile(r"(\d{3,4})[pP]", re.ASCII)
"""The short edge: 720p."""


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
