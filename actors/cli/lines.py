"""What happens to a batch as plain lines, one for each event worth telling: for logs, pipes and dumb terminals."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Self, TextIO

from actors.cli.text import clean, count, reason, shown_path

if TYPE_CHECKING:
    from actors.batch.events import Event
    from actors.cli.view import BatchView
    from actors.messages import Wait

_SILENT = {"batch.created", "batch.progressed", "job.progressed"}


def line(event: Event, view: BatchView) -> str | None:
    """`12:00:05 nature-01 completed videos/nature/nature-01.mp4 (1 of 3)`; None: not worth telling."""
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
        return shown_path(video["path"])
    return reason(error["code"], error["message"]) if isinstance(error, dict) else ""


def _batch_words(event: Event, view: BatchView) -> str:
    if event.name == "batch.started":
        at_once = min(view.concurrency, view.progress.total)
        return f"{count(view.progress.total, 'video')}, {at_once} at a time"
    return f"{view.progress.completed} of {count(view.progress.total, 'video')}"


def waiting(wait: Wait, now: float) -> str:
    """`rate limited for 7 s more`."""
    left = wait.until - now
    return f"{clean(wait.reason)} for {math.ceil(left)} s more" if 0 < left < math.inf else clean(wait.reason)


class LineShow:
    """Writes lines as things happen."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._told: dict[tuple[str, str], float] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is held."""

    def tell(self, event: Event, view: BatchView) -> None:
        """An event came, and is folded into the view."""
        text = line(event, view)
        if text:
            self.say(text)

    def tick(self, view: BatchView, waits: Mapping[str, Wait]) -> None:
        """Some time passed: tell why something waits, once for each reason and until it is over."""
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
