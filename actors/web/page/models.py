"""What the templates show: batches, videos and their time line, from the records. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from actors.batch.limits import Ceiling, left_text
from actors.messages import Wait
from actors.settings.server import SIMULATOR
from actors.web.page import words
from actors.web.page.forms import can_be_written
from storage.records import BatchRecord, EventRecord, JobRecord
from storage.states import FINAL_BATCH, FINAL_JOB, BatchStatus, JobStatus
from storage.unfinished import Unfinished

PAGE = 60
"""Videos a page."""
_PROMPT, _LINE, _SENTENCE = 180, 160, 400
"""Characters of a card's texts; the video's own page has the whole."""
_IN_FLIGHT = (JobStatus.SUBMITTING, JobStatus.GENERATING, JobStatus.DOWNLOADING)
FILTERS: dict[str, tuple[JobStatus, ...]] = {
    "completed": (JobStatus.COMPLETED,),
    "failed": (JobStatus.FAILED,),
    "cancelled": (JobStatus.CANCELLED,),
    "processing": _IN_FLIGHT,
    "pending": (JobStatus.PENDING,),
}
RETRIED = (JobStatus.FAILED, JobStatus.CANCELLED)
_FILTER_WORDS = {
    "completed": "Completed", "failed": "Failed", "cancelled": "Cancelled", "processing": "In progress",
    "pending": "Waiting",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class BatchView:
    """A batch, without its videos."""

    id: str
    title: str
    name: str | None
    status: str
    state: str
    total: int
    completed: int
    failed: int
    cancelled: int
    processing: int
    pending: int
    percentage: int
    error: tuple[str, str, str] | None
    """Code, sentence and way out."""
    budget: str
    """As it is written: `20 USD, 30 seconds`; empty where there is none."""
    cost: tuple[str, str]
    """The sum, and what it is made of; both empty where nothing is known of it."""
    metadata: list[tuple[str, str]]
    created_at: float
    started_at: float | None
    completed_at: float | None
    updated_at: float
    worked: str
    ended: bool
    simulated: bool
    startable: bool
    """Nobody has asked for it to be made yet."""
    retryable: int
    """How many of its videos can be retried now."""

    @classmethod
    def of(cls, record: BatchRecord, cost: Sequence[Mapping[str, Any]] = ()) -> BatchView:
        """The view of a record, and of what it costs."""
        ended = record.status in FINAL_BATCH
        finished = record.completed + record.failed + record.cancelled
        queued = record.status is BatchStatus.PENDING and record.wanted
        error = record.error
        return cls(
            id=record.id, title=record.name or record.id, name=record.name, status=record.status.value,
            state=words.QUEUED if queued else words.BATCH_STATES[record.status],
            total=record.total, completed=record.completed, failed=record.failed, cancelled=record.cancelled,
            processing=record.processing, pending=record.total - finished - record.processing,
            percentage=finished * 100 // record.total,
            error=_error(error, _SENTENCE) if error else None,
            budget=", ".join(f"{each['amount']} {each['unit']}" for each in record.budget or ()),
            cost=words.cost(cost if record.provider != SIMULATOR else ()), metadata=words.pairs(record.metadata),
            created_at=record.created_at, started_at=record.started_at, completed_at=record.completed_at,
            updated_at=record.updated_at, worked=words.span(record.spent), ended=ended,
            simulated=record.provider == SIMULATOR,
            startable=not (ended or record.wanted or record.status is BatchStatus.PROCESSING),
            retryable=record.failed + record.cancelled if ended else 0,
        )  # fmt: skip

    @property
    def numbers(self) -> dict[str, int]:
        """What changes while it is made."""
        names = ("completed", "failed", "cancelled", "processing", "pending", "percentage")
        return {name: getattr(self, name) for name in names}

    @property
    def filters(self) -> list[tuple[str, str, int]]:
        """The filters of its videos: value, words, and how many there are."""
        counted = self.numbers
        return [(name, text, counted[name]) for name, text in _FILTER_WORDS.items()]


@dataclass(frozen=True, slots=True)
class Card:
    """A video of a batch."""

    index: int
    id: str
    batch_id: str
    status: str
    state: str
    progress: int
    prompt: str
    take: int
    line: str
    """Its parameters, shortened."""
    error: tuple[str, str, str] | None
    """Code, sentence and way out."""
    warnings: list[str]
    file_name: str | None
    bytes: str
    removed_at: float | None
    """When its file was removed."""
    wait: str
    again: bool
    """Whether the form of a new batch can ask for it once more."""
    retried: bool
    """Whether it can be retried, once its batch has ended."""

    @property
    def busy(self) -> bool:
        """Whether it has a progress bar."""
        return self.status in ("submitting", "generating", "downloading")


def card(job: JobRecord, wait: str = "") -> Card:
    """The view of a job; `wait`: why it waits. That it was cancelled is all there is to say of such a one."""
    final = job.status in FINAL_JOB
    error = job.error if job.status is JobStatus.FAILED else None
    recorded = job.video if job.status is JobStatus.COMPLETED else None
    removed_at = recorded.get("removed_at") if recorded else None
    video = recorded if removed_at is None else None
    warnings = (job.made or {}).get("warnings", [])
    return Card(
        index=job.position, id=job.id, batch_id=job.batch_id, status=job.status.value,
        state=words.JOB_STATES[job.status], progress=job.progress, prompt=words.shortened(job.prompt, _PROMPT),
        take=job.take, line=words.shortened(" · ".join(_parameters(job)), _LINE),
        error=_error(error, _SENTENCE) if error else None,
        warnings=[str(warning["message"]) for warning in warnings[:3]],
        file_name=_file_name(job) if video else None, bytes=words.size(video["bytes"]) if video else "",
        removed_at=removed_at, wait=wait if not final else "", retried=job.status in RETRIED,
        again=job.status is JobStatus.COMPLETED and can_be_written(job),
    )  # fmt: skip


def _error(error: Mapping[str, Any], characters: int) -> tuple[str, str, str]:
    way_out = words.way_out(error["code"], error.get("detail"))
    return error["code"], words.shortened(error["message"], characters), way_out


def _parameters(job: JobRecord) -> list[str]:
    known = [
        f"{job.duration} s" if job.duration is not None else None,
        job.size,
        job.model,
        f"seed {job.seed}" if job.seed is not None else None,
    ]
    own = [f"{name} {value}" for name, value in words.pairs({**job.params, **job.metadata})]
    return [part for part in known if part is not None] + own


def _file_name(job: JobRecord) -> str:
    """What a download is called: the id, and the extension of the file."""
    content_type = str((job.video or {}).get("content_type", "video/mp4"))
    return f"{job.id}.{'webm' if 'webm' in content_type else 'mp4'}"


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


@dataclass(frozen=True, slots=True)
class Details:
    """All that is known of a video, for its own page."""

    card: Card
    prompt: str
    facts: list[tuple[str, str]]
    error: tuple[str, str, str] | None
    warnings: list[str]


def details(job: JobRecord, wait: str, cost: Sequence[Mapping[str, Any]] = ()) -> Details:
    """All that is known of a job, and what it costs."""
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
    view = card(job, wait)
    error = job.error if job.status in RETRIED else None
    return Details(
        card=view, prompt=job.prompt, facts=[(name, text) for name, text in facts if text is not None],
        error=_error(error, 4000) if error else None,
        warnings=[str(warning["message"]) for warning in (job.made or {}).get("warnings", [])],
    )  # fmt: skip


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


@dataclass(frozen=True, slots=True)
class Moment:
    """A line of the time line."""

    sequence: int
    at: float
    text: str
    video: int | None
    reason: str


def time_line(events: Iterable[EventRecord]) -> list[Moment]:
    """What happened, newest first, without the progress that the bars tell."""
    return [_moment(event) for event in events if event.type not in words.SILENT][::-1]


def _moment(event: EventRecord) -> Moment:
    subject = event.key.rpartition(".")[2]
    number = subject.removeprefix(f"{event.batch_id}-")
    video = int(number) if event.type.startswith("job.") and number.isdigit() else None
    reason = ""
    if event.type == "job.failed":  # the only event whose document is looked into: the last one is large
        error = json.loads(event.body)["data"]["job"]["error"] or {}
        reason = words.shortened(f"{error.get('code')}: {error.get('message')}", _SENTENCE)
    return Moment(event.sequence, event.created_at, words.event(event.type, subject, video), video, reason)


def waiting(waits: Mapping[str, Wait], now: float) -> dict[str, str]:
    """`rate limited; next try in 7 s`, by job id; "" is the whole batch."""
    return {key: _waiting(wait, now) for key, wait in waits.items()}


def _waiting(wait: Wait, now: float) -> str:
    left = wait.until - now
    return f"{wait.reason}; next try in {math.ceil(left)} s" if 0 < left < math.inf else wait.reason


@dataclass(frozen=True, slots=True)
class Pages:
    """Which page of how many."""

    number: int
    last: int

    @classmethod
    def of(cls, number: int, entries: int) -> Pages:
        """The page that is asked for, or the nearest that there is."""
        last = max(1, -(-entries // PAGE))
        return cls(min(max(1, number), last), last)

    @property
    def skip(self) -> int:
        """The entries before it."""
        return (self.number - 1) * PAGE


def figures(unfinished: Unfinished, budgets: Iterable[Ceiling] = ()) -> list[tuple[str, str]]:
    """What is recorded and has not ended, and what is left of the database's budgets, in words."""
    jobs = [(words.JOB_STATES[JobStatus(name)], number) for name, number in unfinished.jobs.items()]
    batches = [(words.BATCH_STATES[BatchStatus(name)], number) for name, number in unfinished.batches.items()]
    further = [
        ("Submissions of unknown outcome", unfinished.unknown_submissions),
        ("DELETEs owed to servers", unfinished.owed_deletes),
        ("Events not yet published", unfinished.outbox_events),
    ]
    return [
        *((f"Batches: {text.lower()}", f"{number:,}") for text, number in batches),
        *((f"Videos: {text.lower()}", f"{number:,}") for text, number in jobs),
        ("Longest wait of a video", words.span(unfinished.oldest_pending)),
        *((text, f"{number:,}") for text, number in further),
        ("Delay of publishing", words.span(unfinished.outbox_lag)),
        *(("Budget", left_text(budget)) for budget in budgets),
    ]
