"""The errors of sora-batch: one tree, and the stable codes that every failure carries.

    SoraBatchError
    |-- InvalidRequest        the request, a setting or a file is wrong          (the caller's fault)
    |   `-- SettingsError     an environment variable or a line of .env is wrong
    |-- NotFound              no such batch, job or file
    |   `-- UnknownBatch      no such batch; DeletedBatch: there was one
    |-- Conflict              it exists already, or its state does not allow it
    |-- StorageError          the database or the disk
    |-- BatchReleased         the batch was released before it ended
    |-- ServiceClosed         the service was closed before or during the call
    `-- SoraError             the Videos API refused, failed or could not be reached

A failed job does not raise: its error is recorded as the same code, sentence and detail (`Failure`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class ErrorCode(StrEnum):
    """Why something failed. Stable: programs may switch on it."""

    INVALID_REQUEST = "invalid_request"
    PERMISSION = "permission"
    MODERATION_BLOCKED = "moderation_blocked"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    AUTHENTICATION = "authentication"
    QUOTA_EXCEEDED = "quota_exceeded"
    BUDGET_EXCEEDED = "budget_exceeded"
    PRICE_UNKNOWN = "price_unknown"
    RATE_LIMITED = "rate_limited"
    SERVER_ERROR = "server_error"
    NETWORK = "network"
    TIMEOUT = "timeout"
    BATCH_TIMEOUT = "batch_timeout"
    DOWNLOAD_FAILED = "download_failed"
    GENERATION_FAILED = "generation_failed"
    STORAGE = "storage"
    UNAVAILABLE = "unavailable"
    INTERNAL = "internal"
    SUBMISSION_UNKNOWN = "submission_unknown"
    CANCELLED = "cancelled"

    @property
    def retryable(self) -> bool:
        """Whether trying again, unchanged, can help (`submission_unknown`: only with a person's consent)."""
        return self not in _FINAL_CODES


_FINAL_CODES = frozenset(
    {
        ErrorCode.INVALID_REQUEST,
        ErrorCode.PERMISSION,
        ErrorCode.MODERATION_BLOCKED,
        ErrorCode.NOT_FOUND,
        ErrorCode.CONFLICT,
        ErrorCode.SUBMISSION_UNKNOWN,
    }
)

# The server refuses the account, not the video: every further POST of the batch would meet the same answer.
ACCOUNT_CODES = frozenset({ErrorCode.AUTHENTICATION, ErrorCode.PERMISSION, ErrorCode.QUOTA_EXCEEDED})


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a job or a batch failed, as it is recorded and reported."""

    code: ErrorCode
    message: str
    detail: dict[str, Any] = field(default_factory=dict)
    """What the server said, shortened; never a secret."""

    def document(self) -> dict[str, Any]:
        """The failure as JSON: `{code, message, retryable, detail}`."""
        return {
            "code": self.code.value,
            "message": self.message,
            "retryable": self.code.retryable,
            "detail": self.detail or None,
        }


@dataclass(frozen=True, slots=True)
class FieldError:
    """One error in a request."""

    field: str
    """A JSON Pointer into the request: `/videos/0/prompt`; `` for the whole of it."""
    message: str
    expected: str
    code: str


def encodable(text: str) -> str:
    """The text without lone surrogates, which no document can carry."""
    return text.encode("utf-8", "backslashreplace").decode()


def listed(errors: Sequence[FieldError]) -> list[dict[str, str]]:
    """The first 50 errors, as an answer in JSON has them."""
    return [{name: encodable(text) for name, text in asdict(error).items()} for error in errors[:50]]


class SoraBatchError(Exception):
    """The root of the tree. `code` is stable, the text is for a person."""

    code = ErrorCode.INTERNAL

    def __init__(self, message: str, *, code: ErrorCode | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code

    @property
    def retryable(self) -> bool:
        """Whether trying again can help."""
        return self.code.retryable


class InvalidRequest(SoraBatchError):
    """What was asked for is wrong; `errors` names each field."""

    code = ErrorCode.INVALID_REQUEST

    def __init__(self, message: str, errors: tuple[FieldError, ...] = ()) -> None:
        super().__init__(message)
        self.errors = errors or (FieldError("", message, "", "invalid_request"),)


class SettingsError(InvalidRequest):
    """An environment variable (or a line of .env) has a value that can't be used, or is missing."""


class OtherBody(InvalidRequest):
    """The command's id was already used with a different body."""

    def __init__(self, source: str, command_id: str) -> None:
        message = f"the command {command_id!r} of {source!r} was already received with a different body"
        super().__init__(message, (FieldError("/id", message, "an unused id, or the same body", "id_used"),))


class NotFound(SoraBatchError):
    """There is no such batch, job or file."""

    code = ErrorCode.NOT_FOUND


class UnknownBatch(NotFound):
    """There is no such batch; its creation may still be in flight."""

    def __init__(self, batch_id: str, where: str = "") -> None:
        super().__init__(f"there is no batch {batch_id!r}{where}")
        self.batch_id = batch_id


class DeletedBatch(UnknownBatch):
    """There was one, and it was deleted."""


class Conflict(SoraBatchError):
    """It exists already, is bound to another provider, or has ended."""

    code = ErrorCode.CONFLICT


class Stale(Conflict):
    """The batch has changed since it was read."""


class StorageError(SoraBatchError):
    """The database or the disk failed; the text says which and what to do."""

    code = ErrorCode.STORAGE


class DatabaseUnusable(StorageError):
    """The database that DATABASE_URL names can't be opened."""


class BatchReleased(SoraBatchError):
    """The batch was released before it ended, because its service was closed. It can be resumed."""

    code = ErrorCode.UNAVAILABLE

    def __init__(self, batch_id: str) -> None:
        super().__init__(f"batch {batch_id} was released before it ended; resume it with resume_batches()")
        self.batch_id = batch_id


class ServiceClosed(SoraBatchError):
    """The service is closed and does nothing more. The next one resumes batches that had not ended."""

    code = ErrorCode.UNAVAILABLE

    def __init__(self, message: str = "the service is closed; create a new BatchService") -> None:
        super().__init__(message)


class SoraError(SoraBatchError):
    """The Videos API refused, failed or could not be reached. `failure` is what gets recorded."""

    def __init__(self, failure: Failure, *, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(failure.message, code=failure.code)
        self.failure = failure
        self.status = status
        self.retry_after = retry_after
        """Seconds to wait, if the server said so."""

    @property
    def passes(self) -> bool:
        """Whether it goes away by itself: a rate limit, an overload, an outage."""
        if self.status is None:
            return self.code is ErrorCode.NETWORK
        return self.status in (408, 425, 429) or (self.status >= 500 and self.status != 501)
