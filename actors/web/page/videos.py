"""A video as the page shows it: what is read of the database, each in one look, and what the templates get."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from actors.errors import NotFound
from actors.web.page import words
from actors.web.page.batches import batch_of
from actors.web.page.forms import can_be_written
from storage.records import BatchRecord, Document, JobRecord
from storage.states import FINAL_JOB, JobStatus
from storage.storage import Storage

_PROMPT, _LINE = 180, 160
"""Characters of a card's texts; the video's own page has the whole."""
OFFERED = 100
"""Videos on the form of a retry."""
RETRIED = (JobStatus.FAILED, JobStatus.CANCELLED)


class Card:
    """A video of a batch."""

    def __init__(self, job: JobRecord, wait: str = "") -> None:
        """`wait`: why it waits."""
        self.index, self.id, self.batch_id = job.position, job.id, job.batch_id
        self.status, self.state, self.progress = job.status.value, words.JOB_STATES[job.status], job.progress
        self.busy = self.status in ("submitting", "generating", "downloading")
        """Whether it has a progress bar."""
        self.prompt, self.take = words.shortened(job.prompt, _PROMPT), job.take
        self.line = words.shortened(" · ".join(_parameters(job)), _LINE)
        """Its parameters, shortened."""
        self.error = words.error(job.error if job.status is JobStatus.FAILED else None)
        """That it was cancelled is all there is to say of such a one."""
        self.warnings = _warnings(job)[:3]
        recorded = (job.video or {}) if job.status is JobStatus.COMPLETED else {}
        self.removed_at: float | None = recorded.get("removed_at")
        """When its file was removed."""
        there = bool(recorded) and self.removed_at is None
        kind = "webm" if "webm" in str(recorded.get("content_type")) else "mp4"
        self.file_name = f"{job.id}.{kind}" if there else None
        """What a download is called."""
        self.bytes = words.size(recorded["bytes"]) if there else ""
        self.wait = wait if job.status not in FINAL_JOB else ""
        self.again = job.status is JobStatus.COMPLETED and can_be_written(job)
        """Whether the form of a new batch can ask for it once more."""
        self.retried = job.status in RETRIED
        """Whether it can be retried, once its batch has ended."""


def _warnings(job: JobRecord) -> list[str]:
    return [str(warning["message"]) for warning in (job.made or {}).get("warnings", [])]


def _parameters(job: JobRecord) -> list[str]:
    known = [
        f"{job.duration} s" if job.duration is not None else None,
        job.size,
        job.model,
        f"seed {job.seed}" if job.seed is not None else None,
    ]
    own = [f"{name} {value}" for name, value in words.pairs({**job.params, **job.metadata})]
    return [part for part in known if part is not None] + own


def groups(cards: Sequence[Card]) -> list[list[Card]]:
    """Neighbours that are takes of one request stand side by side."""
    grouped: list[list[Card]] = []
    for each in cards:
        last = grouped[-1][-1] if grouped else None
        if last is not None and each.take == last.take + 1 and each.prompt == last.prompt:
            grouped[-1].append(each)
        else:
            grouped.append([each])
    return grouped


def details(job: JobRecord, cost: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """All that is known of a job, and what it costs, for its own page."""
    reported = (job.made or {}).get("reported") or {}
    facts = [
        ("Job id", job.id),
        ("Server's video id", job.remote_id),
        ("Duration asked for", f"{job.duration} s" if job.duration is not None else None),
        ("Size asked for", job.size),
        ("Model", job.model),
        ("Seed", None if job.seed is None else str(job.seed)),
        ("Take", str(job.take)),
        *((f"Parameter {name}", value) for name, value in words.pairs(job.params)),
        *((f"Metadata {name}", value) for name, value in words.pairs(job.metadata)),
        *((f"Server reported {name}", value) for name, value in words.pairs(reported) if value != "null"),
        ("Attempts", str(job.attempts)),
        ("Cost", words.cost(cost)[1] or None),
        ("File size", words.size(job.video["bytes"]) if job.video else None),
        ("SHA-256", job.video["sha256"] if job.video else None),
    ]
    return {
        "prompt": job.prompt,
        "facts": [(name, text) for name, text in facts if text is not None],
        "error": words.error(job.error if job.status in RETRIED else None, 4000),
        "warnings": _warnings(job),
    }


def shape(jobs: Iterable[JobRecord]) -> str:
    """The shape of the frames of a page's videos, that of most of them whose size is known."""
    sides = [found for job in jobs if (found := _sides(job)) is not None]
    wide = sum(width >= height for width, height in sides)
    if wide * 2 < len(sides):
        return "tall"
    return "square" if sides and all(width == height for width, height in sides) else "wide"


def _sides(job: JobRecord) -> tuple[int, int] | None:
    reported = ((job.made or {}).get("reported") or {}).get("size") or ""
    for size in (job.size, reported):
        width, _, height = (size or "").partition("x")
        if width.isdigit() and height.isdigit():
            return int(width), int(height)
    return None


def read_job(storage: Storage, batch_id: str, index: int) -> tuple[BatchRecord, JobRecord]:
    """A video and its batch.

    Raises:
        NotFound: there is no such batch or video.
    """
    batch, job = batch_of(storage, batch_id), storage.jobs.at(batch_id, index)
    if job is None:
        raise NotFound(f"batch {batch_id} has no video {index}: its videos are 1 to {batch.total}")
    return batch, job


def read_details(storage: Storage, batch_id: str, index: int) -> tuple[BatchRecord, JobRecord, list[Document]]:
    """A video, its batch, and what the video costs.

    Raises:
        NotFound: there is no such batch or video.
    """
    batch, job = read_job(storage, batch_id, index)
    return batch, job, storage.costs.of_batch(batch, [job.id]).of_job(job.id)


def read_retryable(
    storage: Storage, batch_id: str, chosen: int | None, *, limit: int = OFFERED
) -> tuple[BatchRecord, list[JobRecord]]:
    """A batch and those of its videos that can be retried, or the one that is chosen.

    Raises:
        NotFound: there is no such batch or video.
    """
    if chosen is not None:
        batch, job = read_job(storage, batch_id, chosen)
        return batch, [job]
    batch = batch_of(storage, batch_id)
    return batch, storage.jobs.page(batch_id, limit=limit, statuses=RETRIED)
