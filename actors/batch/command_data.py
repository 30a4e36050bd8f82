"""The data of a command as a program writes it: in a message from RabbitMQ, or over HTTP. Pure."""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import Field, JsonValue, StrictBool, StrictStr, StringConstraints, ValidationError, model_validator

from actors.batch.field_errors import invalid
from actors.batch.fields import Budgets, Input, Metadata, Text, Whole
from actors.batch.requests import BatchVideoRequest
from actors.expectations import ID_PATTERN

_BatchId = Annotated[StrictStr, StringConstraints(pattern=ID_PATTERN)]


class CommandName(StrEnum):
    """The routing key of a command, and the middle part of its type."""

    CREATE = "create"
    PROCESS = "process"
    CANCEL = "cancel"
    RETRY = "retry"
    REPORT = "report"
    REPLAY = "replay"
    DELETE = "delete"
    UPDATE = "update"


class CreateData(BatchVideoRequest):
    """`create`: a request, and whether to process it."""

    process: StrictBool = True

    @property
    def request(self) -> BatchVideoRequest:
        """The request alone: the same batch has the same digest, whoever creates it."""
        given = {name: getattr(self, name) for name in BatchVideoRequest.model_fields}
        return BatchVideoRequest.model_construct(self.model_fields_set - {"process"}, **given)


class ProcessData(Input):
    """`process`."""

    batch_id: _BatchId
    concurrency: Whole | None = None


class CancelData(Input):
    """`cancel`."""

    batch_id: _BatchId
    reason: Annotated[Text, Field(max_length=1024)] | None = None


class RetryData(Input):
    """`retry`: `changes` maps a job's id to the fields of its request that change."""

    batch_id: _BatchId
    job_ids: list[Annotated[Text, Field(max_length=80)]] | None = None
    changes: dict[Annotated[Text, Field(max_length=80)], dict[str, JsonValue]] | None = None
    pay_again: StrictBool = False
    move_server: StrictBool = False
    missing: StrictBool = False
    """Download the missing files of completed jobs again, free of charge. Alone, it retries nothing else."""
    budget: Budgets | None = None
    """From now on, one entry a unit; an empty list: no budget."""


class ReportData(Input):
    """`report`."""

    batch_id: _BatchId


class ReplayData(Input):
    """`replay`."""

    batch_id: _BatchId
    from_sequence: Whole = 1


class DeleteData(Input):
    """`delete`."""

    batch_id: _BatchId
    keep_files: StrictBool = False


class UpdateData(Input):
    """`update`: what is given replaces what is there."""

    batch_id: _BatchId
    metadata: Metadata | None = None
    budget: Budgets | None = None
    """One entry a unit; an empty list: no budget."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.metadata is None and self.budget is None:
            raise ValueError("changes nothing: give metadata, budget, or both")
        return self


CommandData = CreateData | ProcessData | CancelData | RetryData | ReportData | ReplayData | DeleteData | UpdateData
DATA: dict[CommandName, type[Input]] = {
    CommandName.CREATE: CreateData,
    CommandName.PROCESS: ProcessData,
    CommandName.CANCEL: CancelData,
    CommandName.RETRY: RetryData,
    CommandName.REPORT: ReportData,
    CommandName.REPLAY: ReplayData,
    CommandName.DELETE: DeleteData,
    CommandName.UPDATE: UpdateData,
}


def read_data(name: CommandName, data: dict[str, Any], max_size: int) -> CommandData:
    """The data of a command.

    Args:
        name: which command.
        data: as it came.
        max_size: the limit of videos in a batch.

    Raises:
        InvalidRequest: with one entry per invalid field.
    """
    try:
        if name is CommandName.CREATE:
            return CreateData.parse(data, max_size=max_size)
        parsed: Any = DATA[name].model_validate(data)
    except ValidationError as error:
        raise invalid(error) from None
    return parsed  # type: ignore[no-any-return]


def key_of(*parts: str) -> str:
    """SHA-256 of some texts, separated by NUL, in hexadecimal."""
    return hashlib.sha256("\0".join(parts).encode(errors="surrogatepass")).hexdigest()


def derived_id(source: str, command_id: str) -> str:
    """The id of a batch whose request has none: the same command, delivered twice, creates one batch."""
    return f"c-{key_of(source, command_id)[:24]}"
