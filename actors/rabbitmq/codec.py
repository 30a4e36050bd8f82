"""Commands: parses a message from RabbitMQ as a command, or names its invalid fields. Pure.

A command is a CloudEvents 1.0 document in JSON. No message can make this raise anything but `CommandRefused`, and
nothing is read or fetched because a message names it.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StrictBool,
    StrictStr,
    StringConstraints,
    ValidationError,
    model_validator,
)

from actors.batch.field_errors import invalid
from actors.batch.fields import Input, Metadata, Text, Whole
from actors.batch.requests import BatchVideoRequest, Budgets
from actors.depth import is_nested_deeper
from actors.errors import FieldError, InvalidRequest
from actors.expectations import ID_PATTERN
from actors.rabbitmq.attributes import printable, short, trace_of

MAX_DEPTH = 64
CONTENT_TYPES = ("application/cloudevents+json", "application/json")
ID_MAX_BYTES = 255
"""The limit of AMQP's correlation_id, which returns a command's id."""
SOURCE_MAX_BYTES = 512
_TYPE = re.compile(r"sora-batch\.(?P<name>[^.]*)\.v(?P<version>[^.]*)")
_SHOWN_MAX = 80


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


@dataclass(frozen=True, slots=True)
class Message:
    """A message as it arrived."""

    body: bytes
    routing_key: str
    content_type: str | None = None
    content_encoding: str | None = None
    message_id: str | None = None
    damage: str | None = None
    """Why its AMQP properties could not be read, if they could not."""

    @property
    def digest(self) -> str:
        """SHA-256 of the body, in hexadecimal."""
        return hashlib.sha256(self.body).hexdigest()


_Id = Annotated[StrictStr, Field(min_length=1), AfterValidator(printable), short(ID_MAX_BYTES)]
_Source = Annotated[StrictStr, Field(min_length=1), AfterValidator(printable), short(SOURCE_MAX_BYTES)]
_BatchId = Annotated[StrictStr, StringConstraints(pattern=ID_PATTERN)]


class _Envelope(BaseModel):
    """The CloudEvents attributes that are read; extensions and others are ignored."""

    model_config = ConfigDict(extra="allow", frozen=True)

    specversion: Literal["1.0"]
    id: _Id
    source: _Source
    type: StrictStr
    datacontenttype: StrictStr | None = None
    traceparent: JsonValue = None
    tracestate: JsonValue = None
    data: dict[str, JsonValue]


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


@dataclass(frozen=True, slots=True)
class ReceivedCommand:
    """A command as it was received."""

    name: CommandName
    source: str
    id: str
    digest: str
    """SHA-256 of the message's body, in hexadecimal."""
    data: CommandData
    trace: dict[str, str] | None = None
    """`traceparent` and perhaps `tracestate`, as they came."""

    @property
    def batch_id(self) -> str:
        """The id of its batch. A `create` without an id derives one: delivered twice, it creates one batch."""
        if not isinstance(self.data, CreateData):
            return self.data.batch_id
        return self.data.id or f"c-{key_of(self.source, self.id)[:24]}"


class CommandRefused(Exception):
    """The message is not a valid command.

    Attributes:
        errors: the errors, field by field.
        source, id, name: of the command, as far as they could be read.
        well_formed: whether it is a command and only its `data` is invalid.
    """

    def __init__(
        self, errors: Iterable[FieldError], *, source: str = "", id: str | None = None, name: str | None = None,  # noqa: A002
        well_formed: bool = False,
    ) -> None:  # fmt: skip
        self.errors = tuple(errors)
        self.source, self.id, self.name, self.well_formed = source, id, name, well_formed
        super().__init__(sentence(self.errors))


def sentence(errors: Iterable[FieldError]) -> str:
    """The errors as a sentence."""
    return "; ".join(entry.message for entry in list(errors)[:5])


def key_of(*parts: str) -> str:
    """SHA-256 of some texts, separated by NUL, in hexadecimal."""
    return hashlib.sha256("\0".join(parts).encode(errors="surrogatepass")).hexdigest()


def parse(message: Message, *, max_bytes: int, max_size: int) -> ReceivedCommand:
    """Parse a command.

    Args:
        message: as it arrived.
        max_bytes: the limit of its body.
        max_size: the limit of videos in a batch.

    Raises:
        CommandRefused: it is not a command, or an invalid one.
    """
    try:
        document = _document(message, max_bytes)
    except _Wrong as wrong:
        raise CommandRefused([wrong.error], id=_answerable(message.message_id)) from None
    known: dict[str, Any] = {
        "source": _answerable(document.get("source"), SOURCE_MAX_BYTES) or "",
        "id": _answerable(document.get("id")) or _answerable(message.message_id),
        "name": _name_in(document.get("type")),
    }
    try:
        envelope = _Envelope.model_validate(document)
        name = _name(envelope, message.routing_key)
        data = _data(name, envelope.data, max_size)
    except ValidationError as error:
        raise CommandRefused(invalid(error).errors, **known) from None
    except _Wrong as wrong:
        raise CommandRefused([wrong.error], **known) from None
    except InvalidRequest as error:
        raise CommandRefused(within_data(error), **known, well_formed=True) from None
    trace = trace_of(envelope.traceparent, envelope.tracestate)
    return ReceivedCommand(name, envelope.source, envelope.id, message.digest, data, trace)


def within_data(error: InvalidRequest) -> list[FieldError]:
    """The errors of `data`, by their place in the whole document."""
    return [replace(entry, field=f"/data{entry.field}") for entry in error.errors]


class _Wrong(Exception):
    def __init__(self, field: str, message: str, expected: str, code: str) -> None:
        super().__init__(message)
        self.error = FieldError(field, message, expected, code)


def _document(message: Message, max_bytes: int) -> dict[str, Any]:
    """The body as a JSON object, after all checks."""
    if message.damage is not None:
        raise _Wrong("", f"the AMQP properties can't be read: {message.damage}", "AMQP 0-9-1 properties", "amqp")
    if len(message.body) > max_bytes:
        raise _Wrong("", f"the body has {len(message.body)} bytes", f"at most {max_bytes} bytes", "too_long")
    _check_kind(message)
    try:
        document = json.loads(
            message.body.decode(), object_pairs_hook=_object, parse_constant=_no_constant, parse_float=_finite
        )
    except UnicodeDecodeError as error:
        raise _Wrong("", f"the body is not UTF-8 (byte {error.start})", "JSON in UTF-8", "not_utf8") from None
    except RecursionError:
        raise _too_deep() from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise _Wrong("", f"the body is not JSON: {error.msg} ({place})", "a JSON object", "not_json") from None
    except ValueError:  # Python refuses to parse numbers of more than 4,300 digits
        raise _Wrong("", "the body contains a number that is too long", "shorter numbers", "number") from None
    if not isinstance(document, dict):
        raise _Wrong("", f"the body is {_shown(document)}", "a JSON object", "not_object")
    if is_nested_deeper(document, MAX_DEPTH):
        raise _too_deep()
    return document


def _check_kind(message: Message) -> None:
    kind, *parameters = (part.strip().lower() for part in (message.content_type or CONTENT_TYPES[0]).split(";"))
    charset = next((each.removeprefix("charset=") for each in parameters if each.startswith("charset=")), "utf-8")
    expected = f"the content type {' or '.join(CONTENT_TYPES)}, in UTF-8"
    if kind not in CONTENT_TYPES or charset.strip('"') not in {"utf-8", "utf8", "us-ascii"}:
        got = _shown(message.content_type)
        raise _Wrong("", f"unsupported content type {got}", expected, "content_type")
    if (message.content_encoding or "identity").lower() not in {"identity", "utf-8", "utf8"}:
        got = _shown(message.content_encoding)
        raise _Wrong("", f"unsupported content encoding {got}", "no encoding", "content_encoding")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _Wrong("", f"the key {_shown(twice)} appears twice in one object", "each key once", "duplicate_key")
    return document


def _no_constant(name: str) -> Any:
    raise _Wrong("", f"{name} is not JSON", "finite numbers", "number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise _Wrong("", f"the number {_shown(text)} is too large", "finite numbers", "number")
    return number


def _too_deep() -> _Wrong:
    return _Wrong("", "the body is nested too deeply", f"at most {MAX_DEPTH} levels", "too_deep")


def _name(envelope: _Envelope, routing_key: str) -> CommandName:
    if envelope.datacontenttype is not None and envelope.datacontenttype.partition(";")[0].strip() != CONTENT_TYPES[1]:
        got = _shown(envelope.datacontenttype)
        raise _Wrong("/datacontenttype", f"datacontenttype: {got} is not supported", CONTENT_TYPES[1], "content_type")
    expected = f"sora-batch.<command>.v1, where <command> is one of {', '.join(CommandName)}"
    match = _TYPE.fullmatch(envelope.type)
    if match is None or match["name"] not in set(CommandName):
        raise _Wrong("/type", f"type: {_shown(envelope.type)} is not a known command", expected, "unknown_type")
    if match["version"] != "1":
        got = _shown(envelope.type)
        raise _Wrong("/type", f"type: {got} has an unknown version", expected, "unknown_version")
    name = CommandName(match["name"])
    # Write permissions depend on the routing key, so it must be the command's own.
    if routing_key != name:
        message = f"the routing key {_shown(routing_key)} does not match the command"
        raise _Wrong("", message, f"the routing key {name.value}", "routing_key")
    return name


def _data(name: CommandName, data: dict[str, JsonValue], max_size: int) -> CommandData:
    try:
        if name is CommandName.CREATE:
            return CreateData.parse(data, max_size=max_size)
        parsed: Any = DATA[name].model_validate(data)
    except ValidationError as error:
        raise invalid(error) from None
    return parsed  # type: ignore[no-any-return]


def _name_in(kind: Any) -> str | None:
    match = _TYPE.fullmatch(kind) if isinstance(kind, str) else None
    return match["name"] if match is not None and match["name"] in set(CommandName) else None


def _answerable(value: Any, limit: int = ID_MAX_BYTES) -> str | None:
    """The value if it is a text that an answer can contain, or None."""
    try:
        usable = isinstance(value, str) and value and printable(value) and len(value.encode()) <= limit
    except ValueError:
        return None
    return value if usable else None


def _shown(value: Any) -> str:
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    text = repr(value)
    return text if len(text) <= _SHOWN_MAX else f"{text[: _SHOWN_MAX - 3]}..."
