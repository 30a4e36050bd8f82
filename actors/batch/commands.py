"""The commands: all that can be done to a batch from outside. Each is applied in one transaction.

A library call, the command line and a message from RabbitMQ all make one of these. One that came as a message is
entered in the inbox with its answer, in the same transaction, and applied once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, assert_never

from actors.batch.cancellation import cancel
from actors.batch.cleanup import delete
from actors.batch.retrying import retry
from actors.batch.start import NewBatch, create, existing, unknown_batch, want
from actors.batch.views import CancellationSummary
from actors.errors import FieldError, InvalidRequest
from storage.changes import Storage
from storage.records import ReferenceRecord


@dataclass(frozen=True, slots=True)
class Create:
    """Store a batch and, with `process`, have it made."""

    new: NewBatch
    process: bool = False


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
    job_ids: tuple[str, ...] | None = None
    columns: dict[str, dict[str, Any]] = field(default_factory=dict)
    references: list[ReferenceRecord] = field(default_factory=list)
    pay_again: bool = False
    move_server: bool = False


@dataclass(frozen=True, slots=True)
class Update:
    """Replace a batch's metadata, in whatever state it is."""

    batch_id: str
    metadata: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Delete:
    """Forget an ended batch: from this transaction on nobody sees it, and what is left of it goes in pieces."""

    batch_id: str
    keep_files: bool = False


@dataclass(frozen=True, slots=True)
class Show:
    """See a batch as it stands."""

    batch_id: str


@dataclass(frozen=True, slots=True)
class Replay:
    """See what happened to a batch, be it deleted by now."""

    batch_id: str


Command = Create | Process | Cancel | Retry | Update | Delete | Show | Replay


@dataclass(frozen=True, slots=True)
class Context:
    """What a command needs to know of whoever applies it."""

    at: float
    """Now, in seconds since 1970, by the database's clock."""
    provider: str
    """Where its videos are made; "" where the command has none made."""
    deletes: bool = True
    """Whether the server is asked to stop what is cancelled."""


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What was done."""

    batch_id: str
    job_ids: tuple[str, ...] | None = None
    """Those that a creation made, or that a retry tries again."""
    left_alone: tuple[str, ...] = ()
    """Those that failed and that a retry does not try again."""
    summary: CancellationSummary | None = None
    created: bool = False
    newly_wanted: bool = False
    """Nobody had wanted it before."""
    gone: bool = False
    """Of a deletion: nothing of it is left to be removed."""
    digests: tuple[str, ...] = ()
    """Of the input references that a deleted batch used."""


@dataclass(frozen=True, slots=True)
class CommandKey:
    """Which message a command came with: `digest` is of its bytes."""

    source: str
    id: str
    digest: str


class OtherBody(InvalidRequest):
    """The command's id was used before, with another body."""

    def __init__(self, key: CommandKey) -> None:
        message = f"the command {key.id!r} of {key.source!r} was already received with a different body"
        super().__init__(message, (FieldError("/id", message, "an unused id, or the same body", "id_used"),))


def once(storage: Storage, key: CommandKey, at: float, act: Callable[[], str]) -> str:
    """Act and enter the command with its answer; what was entered before is answered as it was then.

    Raises:
        OtherBody: it was entered before, with another body.
    """
    before = storage.inbox.take(key.source, key.id, key.digest, at)
    if before is not None:
        if before.digest != key.digest:
            raise OtherBody(key)
        return before.answer
    answer = act()
    storage.inbox.answer(key.source, key.id, answer)
    return answer


def has_videos_made(command: Command) -> bool:
    """Whether it needs a server."""
    return isinstance(command, Process | Retry) or (isinstance(command, Create) and command.process)


def apply(storage: Storage, command: Command, context: Context) -> CommandResult:
    """Do what is commanded, in the transaction of the caller.

    Raises:
        UnknownBatch, NotFound, Conflict, InvalidRequest: it can't be done.
        DeleteIsOut: not yet.
    """
    match command:
        case Create(new, process):
            created = create(storage, new)
            wanted = process and want(storage, new.batch.id, context.provider, None)
            job_ids = tuple(job.id for job in new.jobs)
            return CommandResult(new.batch.id, job_ids, created=created, newly_wanted=wanted)
        case Process(batch_id, concurrency):
            return CommandResult(batch_id, newly_wanted=want(storage, batch_id, context.provider, concurrency))
        case Cancel(batch_id, reason):
            summary = cancel(storage, batch_id, reason, context.at, deletes=context.deletes)
            return CommandResult(batch_id, summary=summary)
        case Retry(batch_id):
            retried = retry(
                storage, batch_id, context.provider, job_ids=command.job_ids, changes=command.columns,
                changed_references=command.references, pay_again=command.pay_again, at=context.at,
                moves_server=command.move_server,
            )  # fmt: skip
            return CommandResult(batch_id, retried.job_ids, retried.left_alone, newly_wanted=True)
        case Update(batch_id, metadata):
            _replace_metadata(storage, batch_id, metadata, context.at)
        case Delete(batch_id):
            digests = storage.jobs.digests_of(batch_id)
            return CommandResult(batch_id, gone=delete(storage, batch_id, context.at), digests=tuple(digests))
        case Show(batch_id):
            existing(storage, batch_id)
        case Replay(batch_id):
            if storage.batches.get(batch_id) is None and storage.journal.last_sequence(batch_id) == 0:
                raise unknown_batch(storage, batch_id)
        case _:
            assert_never(command)
    return CommandResult(command.batch_id)


def _replace_metadata(storage: Storage, batch_id: str, metadata: dict[str, Any], at: float) -> None:
    existing(storage, batch_id)
    storage.batches.update(batch_id, metadata=metadata, updated_at=at)
