"""The commands: everything that can be done to a batch from outside. Each is applied in one transaction.

A library call, the command line, a message from RabbitMQ and a request over HTTP all create one of these. A command
that came with a key is entered in the inbox with its answer, in the same transaction, and is applied once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, assert_never

from actors.batch.cancellation import cancel
from actors.batch.deletion import delete, files_elsewhere
from actors.batch.loading import check_expected, existing, unknown_batch
from actors.batch.retrying import Retried, retry
from actors.batch.start import NewBatch, create, want
from actors.batch.updating import update
from actors.batch.views import CancellationSummary
from actors.errors import OtherBody
from storage.inbox import InboxRecord
from storage.records import ReferenceRecord
from storage.storage import Storage


@dataclass(frozen=True, slots=True)
class Create:
    """Store a batch and, with `process`, queue it."""

    new: NewBatch
    process: bool = False


@dataclass(frozen=True, slots=True)
class Process:
    """Queue a batch to be made."""

    batch_id: str
    concurrency: int | None = None


@dataclass(frozen=True, slots=True)
class Cancel:
    """End a batch, whoever runs it."""

    batch_id: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """Retry what failed or was cancelled. `columns` and `references` come from `changed_columns`."""

    batch_id: str
    job_ids: tuple[str, ...] | None = None
    columns: dict[str, dict[str, Any]] = field(default_factory=dict)
    references: list[ReferenceRecord] = field(default_factory=list)
    pay_again: bool = False
    move_server: bool = False
    budget: list[dict[str, Any]] | None = None
    """From now on, with one entry per unit; an empty list removes it. None: as it is."""
    missing: bool = False
    """Look for completed jobs whose file is missing, too: that comes before the transaction, with `fetching`."""
    fetching: tuple[str, ...] = ()
    """Completed jobs whose file was found missing and is downloaded again: not in `job_ids`, and they don't change."""

    @property
    def retries(self) -> bool:
        """Whether any job is to be retried, not only files to be downloaded again."""
        return not self.fetching or bool(self.job_ids or self.columns)


@dataclass(frozen=True, slots=True)
class Update:
    """Replace a batch's metadata, its budget, or both, in any state. None: it stays as it is."""

    batch_id: str
    metadata: dict[str, Any] | None = None
    budget: list[dict[str, Any]] | None = None
    """One entry per unit; an empty list removes the budget."""
    merge: bool = False
    """`metadata` is merged into what is there, as JSON Merge Patch (RFC 7396) says."""


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete an ended batch: this transaction hides it, and the rest is removed in pieces."""

    batch_id: str
    keep_files: bool = False


@dataclass(frozen=True, slots=True)
class Show:
    """Report a batch as it is."""

    batch_id: str


@dataclass(frozen=True, slots=True)
class Replay:
    """Replay the events of a batch, even a deleted one."""

    batch_id: str


Command = Create | Process | Cancel | Retry | Update | Delete | Show | Replay


@dataclass(frozen=True, slots=True)
class Context:
    """What a command needs from its caller."""

    at: float
    """Now, in seconds since 1970, by the database's clock."""
    provider: str
    """Where its videos are made; "" if the command makes none."""
    deletes: bool = True
    """Whether the server is asked to delete cancelled videos."""
    trace: dict[str, str] | None = None
    """The trace of the command, which its batch joins: at its creation, or if it has none."""
    lasting: bool = False
    """Whether it is accepted for others: that must be kept whatever its caller does later."""
    stores: Sequence[str] = ()
    """What addresses begin with in the stores that a deleted batch's files are removed from."""
    expects: Collection[str] | None = None
    """The versions (`version_of`) that the batch may have; None: any."""


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What a command did."""

    batch_id: str
    job_ids: tuple[str, ...] | None = None
    """The jobs that were created or are retried."""
    left_alone: tuple[str, ...] = ()
    """The failed jobs that a retry leaves alone."""
    fetching: tuple[str, ...] = ()
    """The completed jobs whose missing file is downloaded again."""
    summary: CancellationSummary | None = None
    created: bool = False
    newly_wanted: bool = False
    """It was not queued before."""
    gone: bool = False
    """For a deletion: nothing is left to remove."""
    digests: tuple[str, ...] = ()
    """The input references that a deleted batch used."""
    elsewhere: tuple[str, ...] = ()
    """The files of a deleted batch that are in no store of this process, and stay."""


@dataclass(frozen=True, slots=True)
class CommandKey:
    """Identifies the message of a command; `digest` is that of its bytes."""

    source: str
    id: str
    digest: str


def answered(storage: Storage, key: CommandKey) -> str | None:
    """The answer of a command that was received before; None: it was not.

    Raises:
        OtherBody: it was entered with a different body.
    """
    return _answer(key, storage.inbox.get(key.source, key.id))


def once(storage: Storage, key: CommandKey, at: float, act: Callable[[], str]) -> str:
    """Apply a command and enter it in the inbox with its answer; a repeated command gets its first answer.

    Raises:
        OtherBody: it was entered before with a different body.
    """
    if (before := _answer(key, storage.inbox.take(key.source, key.id, key.digest, at))) is not None:
        return before
    answer = act()
    storage.inbox.answer(key.source, key.id, answer)  # crash point: command
    return answer


def _answer(key: CommandKey, before: InboxRecord | None) -> str | None:
    if before is not None and before.digest != key.digest:
        raise OtherBody(key.source, key.id)
    return None if before is None else before.answer


def has_videos_made(command: Command) -> bool:
    """Whether a command needs a server."""
    return isinstance(command, Process | Retry) or (isinstance(command, Create) and command.process)


def apply(storage: Storage, command: Command, context: Context) -> CommandResult:
    """Apply a command, in the caller's transaction.

    Raises:
        UnknownBatch, NotFound, Conflict, InvalidRequest: it can't be applied.
        Stale: the batch is not what the caller expects.
        DeleteIsOut: it can't be applied yet.
    """
    _prepare(storage, command, context)
    match command:
        case Create(new, process):
            created = create(storage, new, context.trace)
            wanted = process and want(storage, new.batch.id, context.provider, lasting=context.lasting)
            return CommandResult(new.batch.id, tuple(job.id for job in new.jobs), created=created, newly_wanted=wanted)
        case Process(batch_id, concurrency):
            wanted = want(storage, batch_id, context.provider, concurrency, lasting=context.lasting)
            return CommandResult(batch_id, newly_wanted=wanted)
        case Cancel(batch_id, reason):
            summary = cancel(storage, batch_id, reason, context.at, deletes=context.deletes)
            return CommandResult(batch_id, summary=summary)
        case Retry(batch_id):
            ids, left = _retry(storage, command, context)
            return CommandResult(batch_id, ids, left, command.fetching, newly_wanted=command.retries)
        case Update(batch_id, metadata, budget, merge):
            update(storage, batch_id, metadata, budget, context.at, merge=merge)
        case Delete(batch_id, keep_files):
            digests = tuple(storage.jobs.digests_of(batch_id))
            stores = () if keep_files else context.stores
            elsewhere = files_elsewhere(storage, batch_id, stores) if stores else ()
            gone = delete(storage, batch_id, context.at, places=[f"{store}{batch_id}/" for store in stores])
            return CommandResult(batch_id, gone=gone, digests=digests, elsewhere=elsewhere)
        case Show(batch_id):
            existing(storage, batch_id)
        case Replay(batch_id):
            if storage.batches.get(batch_id) is None and storage.journal.last_sequence(batch_id) == 0:
                raise unknown_batch(storage, batch_id)
        case _:
            assert_never(command)
    return CommandResult(command.batch_id)


def _prepare(storage: Storage, command: Command, context: Context) -> None:
    """Put the batch into the command's trace if it is in none, and check that it is what the caller expects."""
    if context.trace is not None and isinstance(command, Process | Retry):
        storage.batches.join_trace(command.batch_id, context.trace)
    if context.expects is not None and not isinstance(command, Create):
        check_expected(storage, command.batch_id, context.expects)


def _retry(storage: Storage, command: Retry, context: Context) -> Retried:
    if command.budget is not None:
        update(storage, command.batch_id, None, command.budget, context.at)
    if not command.retries:
        existing(storage, command.batch_id)
        return Retried(())
    return retry(
        storage, command.batch_id, context.provider, job_ids=command.job_ids, changes=command.columns,
        changed_references=command.references, pay_again=command.pay_again, at=context.at,
        moves_server=command.move_server,
    )  # fmt: skip
