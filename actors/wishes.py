"""Wishes: what a command asks of the service, and how it is granted, once, in the recorder's transaction.

The inbox row of a command is written in the transaction of what it did. Publishes and waits for nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, assert_never

from actors import operations
from actors.errors import FieldError, InvalidRequest, NotFound
from actors.model import CancellationSummary
from actors.operations import NewBatch
from storage.changes import Storage
from storage.records import ReferenceRecord


@dataclass(frozen=True, slots=True)
class Create:
    """Store a batch and, with `process`, have it made."""

    new: NewBatch
    process: bool


@dataclass(frozen=True, slots=True)
class Process:
    """Have a batch made."""

    batch_id: str
    concurrency: int | None = None


@dataclass(frozen=True, slots=True)
class Cancel:
    """End a batch, whoever runs it."""

    batch_id: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """Try what failed or was cancelled again. `columns` and `references` are what `changed_columns` gives."""

    batch_id: str
    job_ids: tuple[str, ...] | None
    columns: dict[str, dict[str, Any]]
    references: list[ReferenceRecord]
    pay_again: bool
    move_server: bool = False


@dataclass(frozen=True, slots=True)
class Show:
    """See a batch as it stands."""

    batch_id: str


@dataclass(frozen=True, slots=True)
class Replay:
    """See what happened to a batch, be it deleted by now."""

    batch_id: str


Wish = Create | Process | Cancel | Retry | Show | Replay


@dataclass(frozen=True, slots=True)
class Granted:
    """What was done."""

    batch_id: str
    job_ids: tuple[str, ...] | None = None
    """Those that a creation made, or that a retry tries again."""
    summary: CancellationSummary | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """Which command it was: `digest` is of its bytes."""

    source: str
    id: str
    digest: str


class UnknownBatch(NotFound):
    """There is no such batch; its creation may still be on its way."""


class OtherBody(InvalidRequest):
    """The command's id was used before, with another body."""

    def __init__(self, receipt: Receipt) -> None:
        message = f"the command {receipt.id!r} of {receipt.source!r} was received before with another body"
        super().__init__(message, (FieldError("/id", message, "an id that was not used, or the same body", "id_used"),))


def once(storage: Storage, receipt: Receipt, at: float, act: Callable[[], str]) -> str:
    """Act and enter the command with its answer; what was entered before is answered as it was then.

    Raises:
        OtherBody: it was entered before, with another body.
    """
    before = storage.inbox.take(receipt.source, receipt.id, receipt.digest, at)
    if before is not None:
        if before.digest != receipt.digest:
            raise OtherBody(receipt)
        return before.answer
    answer = act()
    storage.inbox.answer(receipt.source, receipt.id, answer)
    return answer


def grant(storage: Storage, wish: Wish, provider: str, at: float, *, deletes: bool = True) -> Granted:
    """Do what is wished; `deletes` as for `operations.cancel`.

    Raises:
        UnknownBatch, NotFound, Conflict, InvalidRequest: it can't be done.
        DeleteIsOut: not yet.
    """
    if isinstance(wish, Create):
        batch = wish.new.batch
        operations.create(storage, wish.new)
        if wish.process:
            operations.want(storage, batch.id, provider, None)
        return Granted(batch.id, tuple(job.id for job in wish.new.jobs))
    _see_that_it_exists(storage, wish)
    match wish:
        case Process(batch_id, concurrency):
            operations.want(storage, batch_id, provider, concurrency)
        case Cancel(batch_id, reason):
            return Granted(batch_id, summary=operations.cancel(storage, batch_id, reason, at, deletes=deletes))
        case Retry(batch_id):
            retried = operations.retry(
                storage, batch_id, provider, job_ids=wish.job_ids, changes=wish.columns,
                changed_references=wish.references, pay_again=wish.pay_again, at=at, moves_server=wish.move_server,
            )  # fmt: skip
            return Granted(batch_id, retried.job_ids)
        case Show() | Replay():
            pass  # nothing is changed
        case _:
            assert_never(wish)
    return Granted(wish.batch_id)


def _see_that_it_exists(storage: Storage, wish: Process | Cancel | Retry | Show | Replay) -> None:
    known = storage.batches.get(wish.batch_id) is not None
    if not known and isinstance(wish, Replay):
        known = storage.journal.last_sequence(wish.batch_id) > 0
    if not known:
        # Not where it was looked for: whoever sent the command is not shown our paths.
        raise UnknownBatch(f"there is no batch {wish.batch_id!r}")
