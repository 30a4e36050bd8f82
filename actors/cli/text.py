"""Text for people: without terminal control sequences, short, and in readable units."""

from __future__ import annotations

import math
import os
import re
import time
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Self, TextIO

from actors.errors import ErrorCode
from actors.logs import UNSAFE

if TYPE_CHECKING:
    from actors.batch.events import Event
    from actors.batch.views import Job
    from actors.cli.view import BatchView
    from actors.messages import Wait

_CONTROLS = re.compile(f"[{re.escape(''.join(map(chr, UNSAFE)))}]+")
_PIECE = re.compile(r"(\s*)(sora-batch [a-z](?:(?![.;,`](?: |$)| \().)*[.;,]?|\S+)")
"""A command with its options, or a word; and the space before it."""
_USUAL_WIDTH = 80


def clean(text: object) -> str:
    """Any value as one line without control sequences."""
    return _CONTROLS.sub(" ", str(text)).strip()


def cells(text: str) -> int:
    """The width of a text in terminal columns: a Chinese character takes two, a combining accent none."""
    return sum(map(_cells, text))


def _cells(character: str) -> int:
    if character < "\u0300":  # quick for most
        return 1
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def shorten(text: str, width: int) -> str:
    """At most `width` columns of a cleaned line."""
    line = clean(text)
    if cells(line) <= width:
        return line
    kept, left = "", width - 1
    for character in line:
        left -= _cells(character)
        if left < 0:
            break
        kept += character
    return kept.rstrip() + "…"


def title(job: Job, width: int) -> str:
    """A video's prompt in at most `width` columns, with the number of its take unless it is the first."""
    take = f", take {job.take}" if job.take > 1 else ""
    return shorten(job.prompt, max(1, width - len(take))) + take


def fold(text: str, width: int, indent: str = "  ") -> str:
    """Lines of at most `width` columns, broken between words: never within a path, an id or a command to be copied."""
    lines: list[str] = []
    for line in text.split("\n"):
        lines.append("")
        for space, piece in _PIECE.findall(line):
            if lines[-1].strip() and cells(lines[-1] + space + piece) > width:
                lines.append(piece if cells(indent + piece) > width else indent + piece)
            else:
                lines[-1] += space + piece
    return "\n".join(lines)


def terminal_width(stream: TextIO) -> int | None:
    """Its columns; None: it is not a terminal, and its lines are not folded."""
    if not stream.isatty():
        return None
    try:
        columns = int(os.environ.get("COLUMNS", "0")) or os.get_terminal_size(stream.fileno()).columns
    except (ValueError, OSError):
        columns = 0
    return columns or _USUAL_WIDTH


def span(seconds: float) -> str:
    """`0:07`, `12:00`, `1:02:03`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def count(number: int, noun: str) -> str:
    """`1 video`, `2 videos`, `1 batch`, `2 batches`."""
    plural = noun + ("es" if noun.endswith("ch") else "s")
    return f"{number} {noun if number == 1 else plural}"


def reason(code: str, message: str) -> str:
    """Why a video failed: the code and the sentence. For a cancelled one the sentence: the state says the rest."""
    return message if code == ErrorCode.CANCELLED else f"{code}: {message}"


def shown_path(path: str | Path) -> str:
    """The path as typed here: relative if it is below the current folder."""
    try:
        return clean(Path(path).relative_to(Path.cwd()))
    except (ValueError, OSError):
        return clean(path)


def shown_place(path: object, uri: object) -> str:
    """Where a finished file is: its path as typed here; its address, if it is in no folder."""
    return shown_path(str(path)) if path else clean(uri)


_SILENT = {"batch.created", "batch.progressed", "job.progressed"}


def line(event: Event, view: BatchView) -> str | None:
    """`12:00:05 nature-01 completed videos/nature/nature-01.mp4 (1 of 3)`; None: not worth a line."""
    if event.name in _SILENT:
        return None
    job = event.data.get("job")
    words = [f"{event.time.astimezone():%H:%M:%S}", event.subject, event.name.split(".")[1]]
    if job is None:
        words.append(_batch_words(event, view))
    else:
        words.append(_job_words(job))
        if job["status"] in ("completed", "failed", "cancelled"):
            words.append(f"({view.ended} of {view.progress.total})")
    return clean(" ".join(word for word in words if word))


def _job_words(job: dict[str, object]) -> str:
    error, video = job.get("error"), job.get("video")
    if job["status"] == "completed" and isinstance(video, dict):
        return shown_place(video["path"], video.get("uri"))
    return reason(error["code"], error["message"]) if isinstance(error, dict) else ""


def _batch_words(event: Event, view: BatchView) -> str:
    if event.name == "batch.started":
        at_once = min(view.concurrency, view.progress.total)
        return f"{count(view.progress.total, 'video')}, {at_once} at a time"
    return f"{view.progress.completed} of {count(view.progress.total, 'video')}"


def waiting(wait: Wait, now: float) -> str:
    """`rate limited; next try in 7 s`."""
    left = wait.until - now
    return f"{clean(wait.reason)}; next try in {math.ceil(left)} s" if 0 < left < math.inf else clean(wait.reason)


class LineShow:
    """Writes a line per event."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._told: dict[tuple[str, str], float] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Holds nothing."""

    def tell(self, event: Event, view: BatchView) -> None:
        """Called for an event that was applied to the view."""
        text = line(event, view)
        if text:
            self.say(text)

    def tick(self, view: BatchView, waits: Mapping[str, Wait]) -> None:
        """Called at short intervals: say why something waits, once per reason until the wait is over."""
        now = time.monotonic()
        for key, wait in waits.items():
            known = self._told.get((key, wait.reason), 0.0)
            self._told[key, wait.reason] = max(known, wait.until)
            if known < now < wait.until:
                stamp = time.strftime("%H:%M:%S")
                self.say(f"{stamp} {clean(key or view.id)} waiting: {waiting(wait, now)}")

    def say(self, text: str) -> None:
        """A line for a person."""
        self._stream.write(text + "\n")
        self._stream.flush()
