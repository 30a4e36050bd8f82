"""Commands: parses a message from RabbitMQ as a command, or names its invalid fields. Pure.

A command is a CloudEvents 1.0 document in JSON. No message can make this raise anything but `CommandRefused`, and
nothing is read or fetched because a message names it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StrictStr,
    ValidationError,
)

from actors.batch.command_data import CommandData, CommandName, CreateData, derived_id, read_data
from actors.batch.field_errors import invalid
from actors.batch.fields import valid_unicode
from actors.errors import FieldError, InvalidRequest
from actors.json_objects import Unparsable, read_object, shown
from storage.traces import read_trace

CONTENT_TYPES = ("application/cloudevents+json", "application/json")
ID_MAX_BYTES = 255
"""The limit of AMQP's correlation_id, which returns a command's id."""
SOURCE_MAX_BYTES = 512
_TYPE = re.compile(r"sora-batch\.(?P<name>[^.]*)\.v(?P<version>[^.]*)")


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


def _printable(text: str) -> str:
    """Check a text that answers and logs show."""
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise ValueError("must not contain control characters")
    return valid_unicode(text)


def _short(limit: int) -> AfterValidator:
    """Check that a text has at most so many bytes."""

    def check(text: str) -> str:
        if len(text.encode()) > limit:
            raise ValueError(f"must have at most {limit} bytes in UTF-8")
        return text

    return AfterValidator(check)


_Id = Annotated[StrictStr, Field(min_length=1), AfterValidator(_printable), _short(ID_MAX_BYTES)]
_Source = Annotated[StrictStr, Field(min_length=1), AfterValidator(_printable), _short(SOURCE_MAX_BYTES)]


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
        return self.data.id or derived_id(self.source, self.id)


class CommandRefused(Exception):
    """The message is not a valid command.

    Attributes:
        errors: the errors, field by field.
        source, id, name: of the command, as far as they could be read.
        digest: SHA-256 of the message's body, in hexadecimal.
        well_formed: whether it is a command and only its `data` is invalid.
    """

    def __init__(
        self, errors: Iterable[FieldError], digest: str, *, source: str = "", id: str | None = None,  # noqa: A002
        name: str | None = None, well_formed: bool = False,
    ) -> None:  # fmt: skip
        self.errors, self.digest = tuple(errors), digest
        self.source, self.id, self.name, self.well_formed = source, id, name, well_formed
        super().__init__("; ".join(entry.message for entry in self.errors[:5]))


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
    except (_Wrong, Unparsable) as wrong:
        raise CommandRefused([wrong.error], message.digest, id=_answerable(message.message_id)) from None
    known: dict[str, Any] = {
        "digest": message.digest,
        "source": _answerable(document.get("source"), SOURCE_MAX_BYTES) or "",
        "id": _answerable(document.get("id")) or _answerable(message.message_id),
        "name": _name_in(document.get("type")),
    }
    try:
        envelope = _Envelope.model_validate(document)
        name = _name(envelope, message.routing_key)
        data = read_data(name, envelope.data, max_size)
    except ValidationError as error:
        raise CommandRefused(invalid(error).errors, **known) from None
    except _Wrong as wrong:
        raise CommandRefused([wrong.error], **known) from None
    except InvalidRequest as error:
        raise CommandRefused(within_data(error), **known, well_formed=True) from None
    trace = read_trace(envelope.traceparent, envelope.tracestate)
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
    return read_object(message.body)


def _check_kind(message: Message) -> None:
    kind, *parameters = (part.strip().lower() for part in (message.content_type or CONTENT_TYPES[0]).split(";"))
    charset = next((each.removeprefix("charset=") for each in parameters if each.startswith("charset=")), "utf-8")
    expected = f"the content type {' or '.join(CONTENT_TYPES)}, in UTF-8"
    if kind not in CONTENT_TYPES or charset.strip('"') not in {"utf-8", "utf8", "us-ascii"}:
        got = shown(message.content_type)
        raise _Wrong("", f"unsupported content type {got}", expected, "content_type")
    if (message.content_encoding or "identity").lower() not in {"identity", "utf-8", "utf8"}:
        got = shown(message.content_encoding)
        raise _Wrong("", f"unsupported content encoding {got}", "no encoding", "content_encoding")


def _name(envelope: _Envelope, routing_key: str) -> CommandName:
    if envelope.datacontenttype is not None and envelope.datacontenttype.partition(";")[0].strip() != CONTENT_TYPES[1]:
        got = shown(envelope.datacontenttype)
        raise _Wrong("/datacontenttype", f"datacontenttype: {got} is not supported", CONTENT_TYPES[1], "content_type")
    expected = f"sora-batch.<command>.v1, where <command> is one of {', '.join(CommandName)}"
    match = _TYPE.fullmatch(envelope.type)
    if match is None or match["name"] not in set(CommandName):
        raise _Wrong("/type", f"type: {shown(envelope.type)} is not a known command", expected, "unknown_type")
    if match["version"] != "1":
        got = shown(envelope.type)
        raise _Wrong("/type", f"type: {got} has an unknown version", expected, "unknown_version")
    name = CommandName(match["name"])
    # Write permissions depend on the routing key, so it must be the command's own.
    if routing_key != name:
        message = f"the routing key {shown(routing_key)} does not match the command"
        raise _Wrong("", message, f"the routing key {name.value}", "routing_key")
    return name


def _name_in(kind: Any) -> str | None:
    match = _TYPE.fullmatch(kind) if isinstance(kind, str) else None
    return match["name"] if match is not None and match["name"] in set(CommandName) else None


def _answerable(value: Any, limit: int = ID_MAX_BYTES) -> str | None:
    """The value if it is a text that an answer can contain, or None."""
    try:
        usable = isinstance(value, str) and value and _printable(value) and len(value.encode()) <= limit
    except ValueError:
        return None
    return value if usable else None
