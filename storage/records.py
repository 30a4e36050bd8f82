"""What goes into storage and comes out of it: frozen records, times in seconds since 1970 (UTC).

Named tuples: each move of a job copies it and its batch, and a frozen dataclass takes four times as long for that.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from storage.states import BatchStatus, DeleteState, JobStatus, SubmissionState

Document = dict[str, Any]


class BatchRecord(NamedTuple):
    """A batch as its row has it. `completed`, `failed` and `cancelled` count its jobs."""

    id: str
    name: str | None
    metadata: Document
    status: BatchStatus
    concurrency: int
    timeout: float
    """Seconds for each round; 0: no limit."""
    digest: str
    """Of the request, so that the same id with another request is noticed."""
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
    """Minus the `deaths`. Above 0: claims of the version before, which counted those, too, that only waited."""
    spent: float
    """Seconds for which it has been owned, since it was last started or retried."""
    created_at: float
    updated_at: float
    started_at: float | None
    completed_at: float | None

    @property
    def deaths(self) -> int:
        """How many processes in a row died after they had recorded that they begin on it, and nothing further."""
        return max(0, -self.claims)


class JobRecord(NamedTuple):
    """A job as its row has it."""

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
    """What else is asked for, as far as it is: `seed`, `params`, `files` (by field, as `reference`), and `take`."""
    made: Document | None = None
    """What was made, as far as it is known: `reported` by the server, and `warnings`."""

    @property
    def seed(self) -> int | None:
        """The seed that is asked for."""
        return self.options.get("seed") if self.options else None

    @property
    def take(self) -> int:
        """Which of the takes of its request it is, from 1."""
        return self.options.get("take", 1) if self.options else 1

    @property
    def params(self) -> Document:
        """Further fields of the server."""
        return self.options.get("params", {}) if self.options else {}

    @property
    def files(self) -> dict[str, Document]:
        """Further files, by the server's name of the field."""
        return self.options.get("files", {}) if self.options else {}


def options_of(*, seed: int | None, take: int | None, params: Document, files: Document) -> Document | None:
    """The options of a job; None if it has none."""
    given = {"seed": seed, "take": take, "params": params, "files": files}
    return {name: value for name, value in given.items() if value not in (None, {})} or None


class SubmissionRecord(NamedTuple):
    """One try at paying for a job's video."""

    id: str
    job_id: str
    batch_id: str
    attempt: int
    digest: str
    """Of the request as it is sent: intents of one digest are interchangeable to the server."""
    provider: str
    sender: str
    """The owner that recorded the intent."""
    intended_at: float
    """By the database's clock."""
    state: SubmissionState
    remote_id: str | None = None
    adopted: bool = False
    """Found in the server's listing, not told to us by the POST: never deleted by us."""
    closed_at: float | None = None
    """When the POST's connection was known to be closed, by the database's clock."""
    note: str | None = None
    server: str | None = None
    """The normalised base URL. None: written by the version before, and not filled in yet."""
    key_fingerprint: str | None = None
    """Of the key that the POST was sent with: only that one tells what became of it."""
    met: str | None = None
    """What the POST met, where its answer told nothing."""
    timed_out: bool | None = None
    """The POST had no answer within its time: it may still be admitted."""
    former_remote_id: str | None = None
    """The id that it had, until the server gave that to another video."""
    told: Document | None = None
    """Prices and billed seconds that the server told, under its own names, exactly as told."""


class DeleteRecord(NamedTuple):
    """The DELETE of a cancelled video: what is owed, or was. Times are the database's."""

    submission_id: str
    batch_id: str
    state: DeleteState
    owed_at: float
    due_at: float
    """Owed: not to be tried before. Out: from then on whoever sent it counts as dead."""
    tried_at: float | None
    """When it was first tried."""
    tries: int
    """How often it was recorded as going out."""
    own_key: bool
    """Whether one of these went out with the key that the video was made with."""
    answer: str | None
    """What came of the last try."""


class EventRecord(NamedTuple):
    """One line of a batch's journal. `body` is the bytes that are published."""

    batch_id: str
    sequence: int
    type: str
    key: str
    body: str
    created_at: float = 0.0


class OwnerRecord(NamedTuple):
    """A process that may own batches, and until when it may be trusted to live."""

    id: str
    host: str
    boot: str
    pid: int
    started: str
    """The process's start time as its system tells it: tells a reused pid."""
    lease_until: float


class FileUse(NamedTuple):
    """A job uses stored bytes for one of its `files`."""

    job_id: str
    digest: str


class ReferenceRecord(NamedTuple):
    """The bytes of an input reference, kept so that another machine can send them."""

    digest: str
    name: str
    content_type: str
    data: bytes

    def __repr__(self) -> str:
        """All but the bytes."""
        return f"ReferenceRecord({self.digest!r}, {self.name!r}, {self.content_type!r}, {len(self.data)} bytes)"


class InboxRecord(NamedTuple):
    """A command that was taken, and how it was answered."""

    source: str
    id: str
    digest: str
    """Of the command's bytes, so that the same id with another body is noticed."""
    answer: str
    """The event that answers it, as it is published."""
    received_at: float
