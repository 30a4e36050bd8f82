"""Reads answers to commands: what was done, or the error that says why not."""

from __future__ import annotations

from typing import Any

from actors.errors import Conflict, ErrorCode, FieldError, InvalidRequest, NotFound, SoraBatchError
from actors.rabbitmq.client.rpc import Received

ACCEPTED, REJECTED = "command.accepted", "command.rejected"


def result(answer: Received) -> dict[str, Any]:
    """What the command brought: the `data` of its answer, or of its report.

    Raises:
        InvalidRequest, NotFound, Conflict, SoraBatchError: it was rejected.
    """
    data: dict[str, Any] = answer.document["data"]
    if answer.name != REJECTED:
        return data
    errors = tuple(
        FieldError(
            field=str(entry.get("field", "")).removeprefix("/data"),
            message=str(entry.get("message", "")),
            expected=str(entry.get("expected", "")),
            code=str(entry.get("code", "")),
        )
        for entry in data.get("errors", [])
    )
    sentence = "; ".join(error.message for error in errors[:5]) or "the command was rejected"
    match errors[0].code if errors else "":
        case ErrorCode.NOT_FOUND.value:
            raise NotFound(sentence)
        case ErrorCode.CONFLICT.value:
            raise Conflict(sentence)
        case ErrorCode.INTERNAL.value:
            raise SoraBatchError(sentence)
        case _:
            raise InvalidRequest(sentence, errors)
