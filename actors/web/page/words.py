"""What the page says of states, errors and events, and numbers as it writes them. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from actors.batch.events import EventName
from actors.batch.limits import amount_text
from actors.errors import ErrorCode
from storage.budgets import BATCH
from storage.records import EventRecord
from storage.states import BatchStatus, JobStatus

BATCH_STATES = {
    BatchStatus.PENDING: "Not started",
    BatchStatus.PROCESSING: "In progress",
    BatchStatus.COMPLETED: "Completed",
    BatchStatus.PARTIAL: "Partly completed",
    BatchStatus.FAILED: "Failed",
    BatchStatus.CANCELLED: "Cancelled",
}
QUEUED = "Queued"
JOB_STATES = {
    JobStatus.PENDING: "Waiting",
    JobStatus.SUBMITTING: "Submitting",
    JobStatus.GENERATING: "Generating",
    JobStatus.DOWNLOADING: "Downloading",
    JobStatus.COMPLETED: "Completed",
    JobStatus.FAILED: "Failed",
    JobStatus.CANCELLED: "Cancelled",
}
_EVENTS: dict[str, str] = {
    EventName.BATCH_CREATED: "Batch created",
    EventName.BATCH_STARTED: "Batch started",
    EventName.BATCH_COMPLETED: "Batch completed",
    EventName.BATCH_PARTIAL: "Batch ended, partly completed",
    EventName.BATCH_FAILED: "Batch failed",
    EventName.BATCH_CANCELLED: "Batch cancelled",
    EventName.BATCH_RETRIED: "Batch retried",
    EventName.BATCH_DELETED: "Batch deleted",
    EventName.BATCH_UPDATED: "Batch updated",
    EventName.BATCH_BUDGET_REACHED: "Budget reached",
    EventName.JOB_SUBMITTED: "submitted",
    EventName.JOB_COMPLETED: "completed",
    EventName.JOB_FAILED: "failed",
    EventName.JOB_CANCELLED: "cancelled",
    EventName.JOB_RETRIED: "retried",
    EventName.JOB_SETTLED: "has its final cost",
}
CHECKS = {
    "database": "Database", "lease": "Lease", "store": "Files", "key": "Key", "rabbitmq": "RabbitMQ",
}  # fmt: skip
CHECKED = {
    "database": "can be read and written",
    "lease": "is current: this process may start videos",
    "store": "can be written",
    "key": "was not refused by the server",
    "rabbitmq": "answers",
}
_CHARGES = {
    "charged": "charged by the server",
    "assumed": "assumed from the prices",
    "reserved": "reserved: whether it was paid for is unknown",
}
SENTENCE = 400
"""Characters of an error's text; the video's own page has the whole."""
_DAYS_FROM = 48
"""Hours from which on a span is told in days."""
SILENT = frozenset({EventName.BATCH_PROGRESSED.value, EventName.JOB_PROGRESSED.value})
"""Events of which there are many, and which the progress bars tell."""
_WAYS_OUT: dict[str, str] = {
    ErrorCode.MODERATION_BLOCKED: "The server refused the prompt: change it, then retry.",
    ErrorCode.INVALID_REQUEST: "The server refused the request: change it, then retry.",
    ErrorCode.AUTHENTICATION: "Correct the key (OPENAI_API_KEY) and restart the service, then retry.",
    ErrorCode.PERMISSION: "Get the permission for the key, or choose a model that it may use, then retry.",
    ErrorCode.QUOTA_EXCEEDED: "Top up the account at the server, then retry.",
    ErrorCode.BUDGET_EXCEEDED: "Retry it with a larger budget for the batch.",
    ErrorCode.PRICE_UNKNOWN: "Give its model a price (SORA_PRICES), or retry it with a budget in another unit.",
    ErrorCode.NOT_FOUND: "The server does not know it. If its address was wrong, correct it and retry; if the video is "
    "gone, retry it and agree to pay again.",
    ErrorCode.SUBMISSION_UNKNOWN: "It may have been made and paid for. Retry it to look for it again; agree to pay "
    "again to have another one made.",
    ErrorCode.STORAGE: "Check the log, fix the disk or the database, then retry.",
    ErrorCode.INTERNAL: "Check the log of the service, then retry.",
    ErrorCode.CANCELLED: "Retry it to have it made after all.",
}

_CODES = frozenset(ErrorCode)


def way_out(code: str, detail: Any = None) -> str:
    """What a person can do about a video that failed with this code; `detail`: what else its error says."""
    if code == ErrorCode.BUDGET_EXCEEDED and isinstance(detail, dict) and detail.get("scope", BATCH) != BATCH:
        wait = ", or wait for its next period" if detail.get("period") else ""
        return f"Raise SORA_BUDGET and restart the service{wait}; then retry."
    return _WAYS_OUT.get(code) or ("Retry it: another attempt can succeed." if code in _CODES else "Retry it.")


def error(found: Mapping[str, Any] | None, characters: int = SENTENCE) -> tuple[str, str, str] | None:
    """Code, sentence and way out of an error that is recorded; None: there is none."""
    if not found:
        return None
    return found["code"], shortened(found["message"], characters), way_out(found["code"], found.get("detail"))


class Moment(NamedTuple):
    """A line of the time line."""

    sequence: int
    at: float
    text: str
    video: int | None
    reason: str


def time_line(events: Iterable[EventRecord]) -> list[Moment]:
    """What happened, newest first, without the progress that the bars tell."""
    return [_moment(each) for each in events if each.type not in SILENT][::-1]


def _moment(record: EventRecord) -> Moment:
    subject = record.key.rpartition(".")[2]
    number = subject.removeprefix(f"{record.batch_id}-")
    video = int(number) if record.type.startswith("job.") and number.isdigit() else None
    reason = ""
    if record.type == "job.failed":  # the only event whose document is looked into: the last one is large
        failed = json.loads(record.body)["data"]["job"]["error"] or {}
        reason = shortened(f"{failed.get('code')}: {failed.get('message')}", SENTENCE)
    return Moment(record.sequence, record.created_at, event(record.type, subject, video), video, reason)


def event(name: str, subject: str, video: int | None) -> str:
    """`Video 3 completed`; `subject`: what it happened to, where that is not a video of the batch."""
    words = _EVENTS.get(name, name.replace(".", " "))
    if video is not None:
        return f"Video {video} {words}"
    return words if name.startswith("batch.") else f"{subject} {words}"


def sentence(text: str) -> str:
    """An error's text where it stands by itself."""
    return text[:1].upper() + text[1:]


def count(number: int, noun: str) -> str:
    """`1 video`, `10,000 videos`, `2 batches`."""
    plural = noun + ("es" if noun.endswith("ch") else "s")
    return f"{number:,} {noun if number == 1 else plural}"


def shortened(text: str, characters: int) -> str:
    """The beginning of a text."""
    return text if len(text) <= characters else text[: characters - 1].rstrip() + "…"


def cost(documents: Iterable[Mapping[str, Any]]) -> tuple[str, str]:
    """What submissions cost: the sums that are or may be due, `3.20 USD`, and what they are made of."""
    sums, parts, unknown = [], [], 0
    for each in documents:
        currency, unknown = each["currency"], unknown + each["unknown_prices"]
        if currency is not None:
            found = [(each[f"{name}_micros"], text) for name, text in _CHARGES.items()]
            sums.append(amount_text(sum(micros for micros, _ in found), currency))
            parts += [f"{amount_text(micros, currency)} {text}" for micros, text in found if micros]
    if unknown:
        parts.append(f"{count(unknown, 'submission')} without a price (SORA_PRICES)")
    return " + ".join(sums), "; ".join(parts)


def size(number: int) -> str:
    """`1.4 MB`."""
    amount = float(number)
    for unit in ("bytes", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "bytes" or amount >= 100 else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB"


def pairs(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and values as text; what is no text is written as JSON."""
    return [
        (name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
        for name, value in values.items()
    ]


def span(seconds: float) -> str:
    """`0:07`, `12:00`, `1:02:03`, `3 days`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= _DAYS_FROM:
        return count(hours // 24, "day")
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
