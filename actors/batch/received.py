"""From the data of a command to the command itself, for whoever takes commands from outside."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from actors.batch.changes import changed_columns
from actors.batch.command_data import (
    CancelData,
    CommandData,
    CreateData,
    DeleteData,
    ProcessData,
    ReplayData,
    ReportData,
    RetryData,
    UpdateData,
)
from actors.batch.commands import Cancel, Command, Create, Delete, Process, Replay, Retry, Show, Update
from actors.batch.factory import new_batch
from actors.batch.fields import budget_document

if TYPE_CHECKING:
    from actors.settings import Settings


def command_of(data: CommandData, settings: Settings, at: float, *, batch_id: str) -> Command:  # noqa: PLR0911  (a table)
    """The command that this data describes. No path is read: whoever sends it is not on this machine.

    Args:
        data: of the command.
        settings: what they leave open.
        at: now, in seconds since 1970.
        batch_id: of the batch that a `create` makes.

    Raises:
        InvalidRequest: an input reference or a change can't be used.
    """
    match data:
        case CreateData():
            request = data.request.model_copy(update={"id": batch_id})
            return Create(new_batch(request, settings, at, paths=False), data.process)
        case ProcessData():
            return Process(data.batch_id, data.concurrency)
        case CancelData():
            return Cancel(data.batch_id, data.reason)
        case RetryData():
            columns, references = changed_columns(data.changes or {}, settings, paths=False)
            job_ids = None if data.job_ids is None else tuple(data.job_ids)
            budget = budget_document(data.budget)
            consents = data.pay_again, data.move_server
            return Retry(data.batch_id, job_ids, columns, references, *consents, budget, missing=data.missing)
        case ReportData():
            return Show(data.batch_id)
        case ReplayData():
            return Replay(data.batch_id)
        case DeleteData():
            return Delete(data.batch_id, data.keep_files)
        case UpdateData():
            return Update(data.batch_id, data.metadata, budget_document(data.budget))
        case _ as unreachable:
            assert_never(unreachable)
