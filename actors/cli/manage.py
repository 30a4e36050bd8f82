"""The commands that change records without running anything: cancel, delete."""
# ruff: noqa: FBT002  (a command's options are its parameters)

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from actors.cli.opening import connected, exit_code, opened, or_remote, warn
from actors.cli.options import BatchIds, Json, Remote, Verbose
from actors.errors import SoraBatchError
from storage.states import DeleteState

if TYPE_CHECKING:
    from actors.batch.views import CancellationSummary
    from storage.deletes import Owed


def cancel(
    batch_ids: BatchIds,
    reason: Annotated[str | None, typer.Option("--reason", help="Reason to record.")] = None,
    remote: Remote = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Cancel batches.

    Works whichever process runs them. Starts no further videos; says what may still be charged.
    With several IDs, --json prints a list, and the exit code is the worst one.
    """
    from actors.cli.text import say

    with _cancelling(batch_ids, reason, remote=remote, verbose=verbose) as cancel_one:

        def act(batch_id: str) -> dict[str, Any]:
            summary = cancel_one(batch_id)
            if not json:
                say(_sentences(summary))
            return summary.model_dump(mode="json")

        code = each_batch(batch_ids, act, json=json)
    raise typer.Exit(code)


def each_batch(batch_ids: Sequence[str], act: Callable[[str], dict[str, Any]], *, json: bool) -> int:
    """Do it to each batch, whatever becomes of the others; the worst exit code."""
    from actors.cli.text import print_json

    documents: list[dict[str, Any]] = []
    codes = {0}
    for batch_id in dict.fromkeys(batch_ids):
        try:
            documents.append(act(batch_id))
        except SoraBatchError as error:
            if len(batch_ids) == 1:
                raise
            warn(f"batch {batch_id}: {error}")
            codes.add(exit_code(error))
            documents.append({"batch_id": batch_id, "error": {"code": error.code.value, "message": str(error)}})
    if json:
        print_json(documents if len(batch_ids) > 1 else documents[0])
    return max(codes)


@contextmanager
def _cancelling(
    batch_ids: Sequence[str], reason: str | None, *, remote: bool, verbose: bool
) -> Iterator[Callable[[str], CancellationSummary]]:
    """A function that cancels a batch: with this service, or through RabbitMQ with another."""

    def cancel_there(batch_id: str) -> CancellationSummary:
        with connected(verbose=verbose) as client:
            return client.cancel(batch_id, reason)

    if remote:
        yield cancel_there
        return

    cancelled: list[str] = []

    def cancel_here(batch_id: str) -> CancellationSummary:
        cancelled.append(batch_id)
        with or_remote("cancel", batch_id):
            return service.cancel_batch(batch_id, reason)

    with ExitStack() as stack:
        with or_remote("cancel", batch_ids[0]):
            service = stack.enter_context(opened(verbose=verbose, looked_for=f"batch {batch_ids[0]!r}"))
        yield cancel_here
        service.finish_deletes()
        _tell_what_is_owed([owed for batch_id in cancelled for owed in service.deletes(batch_id)])


def delete(
    batch_ids: BatchIds,
    keep_files: Annotated[bool, typer.Option("--keep-files", help="Leave the video files where they are.")] = False,
    remote: Remote = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Delete batches that have ended, and their video files.

    Doesn't ask for confirmation. The history stays until it is pruned. A batch that has not ended must be cancelled
    first. With several IDs, --json prints a list, and the exit code is the worst one.
    """
    from actors.cli.text import say

    with _deleting(batch_ids, keep_files=keep_files, remote=remote, verbose=verbose) as delete_one:

        def act(batch_id: str) -> dict[str, Any]:
            delete_one(batch_id)
            if not json:
                say(f"deleted batch {batch_id}{'; its files stay' if keep_files else ''}")
            return {"batch_id": batch_id, "deleted": True}

        code = each_batch(batch_ids, act, json=json)
    raise typer.Exit(code)


@contextmanager
def _deleting(
    batch_ids: Sequence[str], *, keep_files: bool, remote: bool, verbose: bool
) -> Iterator[Callable[[str], None]]:
    """What deletes a batch: the service, or through RabbitMQ another one."""

    def delete_there(batch_id: str) -> None:
        with connected(verbose=verbose) as client:
            client.delete(batch_id, keep_files=keep_files)

    if remote:
        yield delete_there
        return

    def delete_here(batch_id: str) -> None:
        with or_remote("delete", batch_id):
            service.delete_batch(batch_id, keep_files=keep_files)

    with ExitStack() as stack:
        with or_remote("delete", batch_ids[0]):
            service = stack.enter_context(opened(verbose=verbose, looked_for=f"batch {batch_ids[0]!r}"))
        yield delete_here


def _tell_what_is_owed(deletes: list[Owed]) -> None:
    from actors.cli.text import count
    from actors.settings.server import SIMULATOR

    owed = [
        each
        for each in deletes
        if each.delete.state in (DeleteState.OWED, DeleteState.OUT) and each.submission.provider != SIMULATOR
    ]
    if owed:
        are = "is" if len(owed) == 1 else "are"
        sends = "it" if len(owed) == 1 else "them"
        warn(f"{count(len(owed), 'DELETE')} {are} still pending; the next process that uses this server sends {sends}")


def _sentences(summary: CancellationSummary) -> str:
    from actors.cli.text import clean, count

    text = (
        f"batch {summary.batch_id} {summary.status.value}: {summary.cancelled} of {count(summary.total, 'video')} "
        f"cancelled, {summary.completed} had completed, {summary.failed} had failed"
    )
    for charge in summary.may_be_charged:
        remote = f" as {clean(charge.remote_id)}" if charge.remote_id else ""
        text += f"\nmay still be charged: {charge.job_id}{remote}, {charge.state}"
    return text
