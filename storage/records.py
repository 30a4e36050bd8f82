"""The records of storage: frozen, with times in seconds since 1970 (UTC).

Named tuples: each move of a job copies it and its batch, which takes a frozen dataclass four times as long.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from storage.states import BatchStatus, ChargeState, DeleteState, JobStatus, SubmissionState

Document = dict[str, Any]


class BatchRecord(NamedTuple):
    """The row of a batch. `completed`, `failed` and `cancelled` count its jobs."""

    id: str
    name: str | None
    metadata: Document
    status: BatchStatus
    concurrency: int
    timeout: float
    """Seconds per round; 0: no limit."""
    digest: str
    """Of the request: detects the same id with a different request."""
    provider: str | None
    total: int
    completed: int
    failed: int
    cancelled: int
    processing: int
    error: Document | None
    sequence: int
    epoch: int
    owner: str | None
    wanted: bool
    claims: int
    """Minus the `deaths`. Above 0: claims of the previous version, which also counted batches that only waited."""
    spent: float
    """Seconds for which it has been owned since it was last started or retried."""
    created_at: float
    updated_at: float
    started_at: float | None
    completed_at: float | None
    trace: Document | None = None
    """The trace that it belongs to: `traceparent` and perhaps `tracestate`, as they came."""
    budget: list[Document] | None = None
    """The most that it may use, with one `{amount, unit}` per unit."""

    @property
    def deaths(self) -> int:
        """How many processes in a row died after recording that they begin it, and nothing more."""
        return max(0, -self.claims)


class JobRecord(NamedTuple):
    """The row of a job."""

    id: str
    batch_id: str
    position: int
    """From 1, in the order of the request."""
    status: JobStatus
    prompt: str
    duration: int | None
    model: str | None
    size: str | None
    reference: Document | None
    """The input reference: `{"digest": ...}` of bytes in storage, or `{"file_id": ...}`."""
    metadata: Document
    remote_id: str | None
    progress: int
    attempts: int
    error: Document | None
    video: Document | None
    created_at: float
    updated_at: float
    started_at: float | None
    completed_at: float | None
    options: Document | None = None
    """Further parts of the request, if given: `seed`, `params`, `files` (by field, like `reference`), and `take`."""
    made: Document | None = None
    """What is known about the finished video: `reported` by the server, and `warnings`."""

    @property
    def seed(self) -> int | None:
        """The requested seed."""
        return self.options.get("seed") if self.options else None

    @property
    def take(self) -> int:
        """The number of this take of its request, from 1."""
        return self.options.get("take", 1) if self.options else 1

    @property
    def params(self) -> Document:
        """Server-specific fields."""
        return self.options.get("params", {}) if self.options else {}

    @property
    def files(self) -> dict[str, Document]:
        """Server-specific files, by field."""
        return self.options.get("files", {}) if self.options else {}


def options_of(*, seed: int | None, take: int | None, params: Document, files: Document) -> Document | None:
    """The options of a job; None: it has none."""
    given = {"seed": seed, "take": take, "params": params, "files": files}
    return {name: value for name, value in given.items() if value not in (None, {})} or None


class SubmissionRecord(NamedTuple):
    """One attempt to pay for a job's video."""

    id: str
    job_id: str
    batch_id: str
    attempt: int
    digest: str
    """Of the request as sent: the server can't tell intents with the same digest apart."""
    provider: str
    sender: str
    """The owner that recorded the intent."""
    intended_at: float
    """By the database's clock."""
    state: SubmissionState
    remote_id: str | None = None
    adopted: bool = False
    """Found in the server's listing, not returned by the POST: we never delete it."""
    closed_at: float | None = None
    """When the POST's connection was known to be closed, by the database's clock."""
    note: str | None = None
    server: str | None = None
    """The normalised base URL. None: written by the previous version and not filled in yet."""
    key_fingerprint: str | None = None
    """Of the key that sent the POST: only that key can find out its outcome."""
    met: str | None = None
    """What the POST met, if its outcome is unknown."""
    timed_out: bool | None = None
    """The POST timed out: it may still be accepted."""
    former_remote_id: str | None = None
    """The id that it had until the server reused that for another video."""
    told: Document | None = None
    """Prices and billed seconds as the server reported them, under its own names."""
    model: str | None = None
    """As requested; a retry may change that of the job."""
    seconds: int | None = None
    """The requested duration."""
    day: str | None = None
    """The UTC day of the intent, by the database's clock, as `2026-11-30`: the charge belongs to it for ever."""
    charge: ChargeState | None = None
    """What it costs, as far as that is known. None: recorded by the version before."""
    currency: str | None = None
    """Of the amounts. None: the price is unknown."""
    reserved_micros: int | None = None
    """The price at the rate that was in force at the intent, in millionths of the currency's unit."""
    charged_micros: int | None = None
    """The price that the server or a person told, rounded down to millionths,"""
    charged_rest: int | None = None
    """and what that left, in 10^-18 of the currency's unit."""
    rate: Document | None = None
    """The rate at which it was reserved, with its source."""
    doubt: str | None = None
    """Why a told price was not counted, or that it exceeds the reservation."""
    settled_by: str | None = None
    """Whose word settled it; only a person's word is recorded."""


class DeleteRecord(NamedTuple):
    """The DELETE that is or was owed for a cancelled video. Times are by the database's clock."""

    submission_id: str
    batch_id: str
    state: DeleteState
    owed_at: float
    due_at: float
    """Owed: not to be sent before. Out: from then on its sender counts as dead."""
    tried_at: float | None
    """When it was first attempted."""
    tries: int
    """How often it was recorded as going out."""
    own_key: bool
    """Whether one of these went out with the key that made the video."""
    answer: str | None
    """The outcome of the last attempt."""


class BudgetRecord(NamedTuple):
    """A ceiling, and what counts against it. Amounts are millionths of a currency's unit, a second or a video."""

    scope: str
    """`batch`, `day`, `month` or `total`."""
    period: str
    """A batch's id, a UTC day or month, or nothing."""
    unit: str
    ceiling_micros: int
    used_micros: int


class CeilingRecord(NamedTuple):
    """A ceiling of the whole database, whatever the period."""

    scope: str
    unit: str
    ceiling_micros: int | None
    """None: it was removed."""
    version: int
    """Of the set of ceilings when it was added or removed."""
    set_by: str
    set_at: float


class EventRecord(NamedTuple):
    """One entry of a batch's journal. `body` is published as it is."""

    batch_id: str
    sequence: int
    type: str
    key: str
    body: str
    created_at: float = 0.0


class ReferenceRecord(NamedTuple):
    """The bytes of an input reference, stored so that another machine can send them."""

    digest: str
    name: str
    content_type: str
    data: bytes

    def __repr__(self) -> str:
        """All but the bytes."""
        return f"ReferenceRecord({self.digest!r}, {self.name!r}, {self.content_type!r}, {len(self.data)} bytes)"
