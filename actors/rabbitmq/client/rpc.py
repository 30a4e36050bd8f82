"""One connection to RabbitMQ with a queue of its own: sends commands, receives what is told."""

from __future__ import annotations

import json
import logging
import os
import re
import time
import uuid
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pika
from pika.exceptions import AMQPError, ChannelClosedByBroker, ConsumerCancelled, UnroutableError

from actors.errors import ErrorCode, InvalidRequest, NotFound, SettingsError, SoraBatchError
from actors.expectations import ID_PATTERN
from actors.rabbitmq import topology
from actors.rabbitmq.properties import event_properties
from actors.rabbitmq.quiet import hush
from actors.rabbitmq.refusals import NOT_FOUND, innermost, refusal
from actors.settings import load_settings
from storage.secrets import Secrets, masked_url

logger = logging.getLogger(__name__)
SOURCE = "/sora-batch/client"
LOST = (AMQPError, OSError)
"""What a connection raises that is of no more use."""
_BLOCKED_SECONDS = 10.0
"""A broker in its memory or disk alarm takes nothing and says so: then we would wait for ever."""


class Unanswered(SoraBatchError):
    """RabbitMQ could not be reached or refused the command, or no service answered in time.

    Attributes:
        sent: the command may still be obeyed.
        queued: the command is in its queue, and no service listened there: it is obeyed when one starts.
    """

    code = ErrorCode.UNAVAILABLE

    def __init__(self, message: str, *, sent: bool = False, queued: bool = False) -> None:
        super().__init__(message)
        self.sent, self.queued = sent, queued


@dataclass(frozen=True, slots=True)
class Broker:
    """Where RabbitMQ is, and as what our queues are declared there, if nobody has done so yet."""

    url: str
    queue_type: str = topology.QUORUM

    def refusal(self, error: BaseException) -> str | None:
        """What the broker refused, if it is there and refused something."""
        return refusal(error, topology.connection_parameters(self.url).credentials.username)


def broker_of(url: str | None) -> Broker:
    """The one that was given, or else that of the settings.

    Raises:
        SettingsError: there is none.
    """
    if url is not None:
        return Broker(url)
    settings = load_settings()
    if settings.amqp_url is None:
        raise SettingsError(
            "AMQP_URL is not set: name the RabbitMQ that `sora-batch serve` uses, "
            "for example AMQP_URL=amqp://guest:guest@localhost:5672/"
        )
    return Broker(settings.amqp_url.get_secret_value(), settings.amqp_queue_type)


def is_batch_id(batch_id: str) -> bool:
    """Whether it can be a batch's id. Something else might be a pattern in a binding."""
    return re.fullmatch(ID_PATTERN, batch_id) is not None


def checked_id(batch_id: str) -> str:
    """The batch's id.

    Raises:
        NotFound: it can be none.
    """
    if not is_batch_id(batch_id):
        raise NotFound(f"there is no batch {batch_id!r}: an id is 1 to 64 letters, digits, '-' or '_'")
    return batch_id


def unreachable(broker: Broker, error: BaseException, *, sent: bool = False) -> Unanswered:
    """That RabbitMQ is not there or refused something, and what to do."""
    mask, refused = Secrets(urls=[broker.url]).mask, broker.refusal(error)
    if refused is not None:
        return Unanswered(mask(refused), sent=sent)
    inner, place = innermost(error), masked_url(broker.url)
    reason = mask(str(inner)) or type(inner).__name__
    return Unanswered(f"RabbitMQ at {place} can't be reached: {reason}; see that it runs, and AMQP_URL", sent=sent)


def unanswered(broker: Broker, what: str, seconds: float, *, queued: bool = False) -> Unanswered:
    """That nobody answered, and what to do."""
    place = masked_url(broker.url)
    if queued:
        return Unanswered(
            f"no service is listening at the RabbitMQ at {place}: {what} is queued, and obeyed when `sora-batch serve` "
            "starts there",
            sent=True,
            queued=True,
        )
    return Unanswered(
        f"no answer within {seconds:g} s to {what}: is `sora-batch serve` running with the RabbitMQ at {place}? "
        "The command waits there until a service takes it",
        sent=True,
    )


class OutgoingCommand:
    """A command to send: the same one, however often it is sent.

    Raises:
        InvalidRequest: it can't be written as JSON.
    """

    def __init__(self, name: str, data: Mapping[str, Any], source: str = SOURCE) -> None:
        self.name, self.id = name, str(uuid.uuid4())
        document = {"specversion": "1.0", "id": self.id, "source": source, "type": f"sora-batch.{name}.v1"}
        try:
            self.body = json.dumps({**document, "data": data}, default=_plain).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidRequest(f"the request can't be written as JSON: {error}") from None


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is no type of JSON")


@dataclass(frozen=True, slots=True)
class Received:
    """A message that came."""

    key: str
    document: dict[str, Any]

    @property
    def name(self) -> str:
        """`batch.completed`, `command.accepted`, ..."""
        return ".".join(self.key.split(".")[:2])

    @property
    def answers(self) -> str | None:
        """The id of the command that it answers, if it answers one."""
        return self.document.get("correlationid")


class RpcConnection:
    """Not for two threads at a time. Any method may raise one of `LOST`; then it is of no more use."""

    @hush()
    def __init__(self, broker: Broker, *bindings: tuple[str, str]) -> None:
        """Connect; `bindings`: pairs of an exchange and a key, of what to receive."""
        self._process = os.getpid()
        parameters = topology.connection_parameters(broker.url)
        parameters.blocked_connection_timeout = _BLOCKED_SECONDS
        self._connection = pika.BlockingConnection(parameters)
        self._undeclared: ChannelClosedByBroker | None = None
        """Why nothing was declared: what is missing then, is missing for this."""
        try:
            self._channel = self._open(broker.queue_type)
            self._queue = self._channel.queue_declare("", exclusive=True).method.queue
            for exchange, key in bindings:
                self.bind(exchange, key)
            self._received: deque[tuple[str, bytes]] = deque()
            self._cancelled: str | None = None
            self._channel.add_on_cancel_callback(self._cancel)
            self._channel.basic_consume(self._queue, self._take, auto_ack=True)
        except BaseException:
            self.close()
            raise

    def _open(self, queue_type: str) -> Any:
        channel = self._connection.channel()
        try:
            topology.declare(channel, queue_type)
        except ChannelClosedByBroker as error:
            # Its operators have declared it in their way, or this user must not: it may be there all the same.
            self._undeclared = error
            channel = self._connection.channel()
        channel.confirm_delivery()
        return channel

    @hush()
    def bind(self, exchange: str, key: str) -> None:
        """Receive what is published there with this key."""
        self._channel.queue_bind(self._queue, exchange, key)

    @hush()
    def unbind(self, exchange: str, key: str) -> None:
        """Receive it no more."""
        self._channel.queue_unbind(self._queue, exchange, key)

    @hush()
    def send(self, order: OutgoingCommand) -> None:
        """Send a command, and wait until the broker has it in a queue."""
        properties = event_properties(order.id, f"sora-batch.{order.name}.v1", time.time())
        try:
            self._channel.basic_publish(topology.COMMANDS, order.name, order.body, properties, mandatory=True)
        except UnroutableError as error:
            raise self._undeclared or error from None

    @hush()
    def consumers(self, command: str) -> int:
        """How many consumers such commands have: none where they have no queue."""
        channel = self._connection.channel()
        try:
            queue = topology.CANCELS if command == "cancel" else topology.COMMANDS
            return int(channel.queue_declare(queue, passive=True).method.consumer_count)
        except ChannelClosedByBroker as error:
            if error.reply_code != NOT_FOUND:
                raise
            return 0
        finally:
            if channel.is_open:
                channel.close()

    @hush()
    def receive(self, seconds: float) -> Received | None:
        """The next message; None: none came for so long."""
        deadline = time.monotonic() + seconds
        while True:
            while self._received:
                told = _read(*self._received.popleft())
                if told is not None:
                    return told
            if self._cancelled is not None:
                raise ConsumerCancelled(self._cancelled)
            left = deadline - time.monotonic()
            self._connection.process_data_events(max(0.0, left))
            if left <= 0 and not self._received:
                return None

    @hush()
    def close(self) -> None:
        """Let go of the connection; what its queue still holds is dropped."""
        if self._connection.is_open and not self.inherited:
            with suppress(*LOST):
                self._connection.close()

    @property
    def inherited(self) -> bool:
        """Whether the process was forked since: the connection is the other process's."""
        return self._process != os.getpid()

    def _take(self, _: Any, method: Any, __: Any, body: bytes) -> None:
        self._received.append((method.routing_key, body))

    def _cancel(self, method: Any) -> None:
        self._cancelled = f"the broker has ended the queue {method.consumer_tag}"


def _read(key: str, body: bytes) -> Received | None:
    """Others may publish on these exchanges too."""
    try:
        document = json.loads(body)
        if isinstance(document, dict) and isinstance(document.get("data"), dict):
            return Received(key, document)
    except (ValueError, RecursionError):
        pass
    logger.warning("dropped a message that is no event: routing key %r", key)
    return None
