"""A connection to RabbitMQ with a queue of its own: sends commands, receives answers and events."""

from __future__ import annotations

import json
import logging
import math
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pika.exceptions import AMQPError, ConsumerCancelled

from actors.errors import Conflict, ErrorCode, FieldError, InvalidRequest, NotFound, SoraBatchError
from actors.rabbitmq import topology
from actors.rabbitmq.connection import Connection
from actors.rabbitmq.outgoing import event_properties
from actors.rabbitmq.refusals import NOT_FOUND, ConnectionGone, Standing, Unroutable, hush

logger = logging.getLogger(__name__)
SOURCE = "/sora-batch/client"
ACCEPTED, REJECTED = "command.accepted", "command.rejected"
LOST = (AMQPError, OSError)
"""The exceptions of an unusable connection."""
_BLOCKED_SECONDS = 10.0
"""A broker in its memory or disk alarm blocks us: without a limit we would wait forever."""


class OutgoingCommand:
    """A command to send: it stays the same one, however often it is sent.

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
    raise TypeError(f"{type(value).__name__} is not a JSON type")


@dataclass(frozen=True, slots=True)
class Received:
    """A received message."""

    key: str
    document: dict[str, Any]

    @property
    def name(self) -> str:
        """`batch.completed`, `command.accepted`, ..."""
        return ".".join(self.key.split(".")[:2])

    @property
    def answers(self) -> str | None:
        """The id of the command that it answers, if any."""
        return self.document.get("correlationid")

    def result(self) -> dict[str, Any]:
        """The result of the command: the `data` of its answer or report.

        Raises:
            InvalidRequest, NotFound, Conflict, SoraBatchError: it was rejected.
        """
        data: dict[str, Any] = self.document["data"]
        if self.name != REJECTED:
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


class RpcConnection:
    """For one thread at a time. Any method may raise one of `LOST`; `open` reconnects."""

    def __init__(self, url: str, queue_type: str, *bindings: tuple[str, str], standing: Standing | None = None) -> None:
        """Connects with `open`.

        Args:
            url: of RabbitMQ.
            queue_type: of our queues, if they are not declared yet.
            bindings: pairs of an exchange and a key to receive from.
            standing: logs the state of the connection; without it, nothing is logged.
        """
        self._bindings, self._received = bindings, deque[tuple[str, bytes]]()
        self._connection = Connection(
            url, queue_type, who="stream", standing=standing or Standing(silent=True),
            begin=self._subscribe, needs=None, blocked_seconds=_BLOCKED_SECONDS,
        )  # fmt: skip

    def _subscribe(self, channel: Any) -> None:
        self._received.clear()
        # The broker names the queue; from here on `""` stands for it on this channel.
        channel.queue_declare("", exclusive=True, callback=lambda _: None)
        for exchange, key in self._bindings:
            channel.queue_bind("", exchange, key)
        channel.add_on_cancel_callback(lambda _: self._connection.give_up(ConsumerCancelled("its queue is gone")))
        channel.basic_consume("", self._take, auto_ack=True)

    def _take(self, _: Any, method: Any, __: Any, body: bytes) -> None:
        self._received.append((method.routing_key, body))

    def open(self, seconds: float = math.inf) -> bool:
        """Connect unless it is open, after the pause since the last attempt; returns whether it was closed.

        Raises:
            ConnectionGone: it could not be opened within so many seconds; its cause says why, if known.
        """
        if self._connection.is_open:
            return False
        self._connection.run(seconds, lambda: self._connection.is_open)
        self._check_open()
        return True

    def _check_open(self) -> None:
        if not self._connection.is_open:
            raise ConnectionGone("there is no connection to RabbitMQ") from self._connection.why

    @hush()
    def _ask(self, act: Callable[[Callable[[Any], object]], object]) -> Any:
        """Call something that takes a callback, and wait for the callback's argument."""
        self._check_open()
        answers = list[Any]()
        act(answers.append)
        self._connection.run(until=lambda: answers)
        self._check_open()
        return answers[0]

    def bind(self, exchange: str, key: str) -> None:
        """Start receiving what is published there with this key."""
        self._ask(lambda done: self._connection.channel.queue_bind("", exchange, key, callback=done))

    def unbind(self, exchange: str, key: str) -> None:
        """Stop receiving it."""
        self._ask(lambda done: self._connection.channel.queue_unbind("", exchange, key, callback=done))

    def send(self, order: OutgoingCommand) -> None:
        """Send a command, and wait until the broker has it in a queue."""
        properties = event_properties(order.id, f"sora-batch.{order.name}.v1", time.time())

        def publish(settled: Callable[[Exception | None], object]) -> None:
            self._connection.send(topology.COMMANDS, order.name, order.body, properties, settled, mandatory=True)
            self._connection.flush()

        error = self._ask(publish)
        if isinstance(error, Unroutable):  # the queue may be missing because we may not declare it
            error = self._connection.undeclared or error
        if error is not None:
            raise error

    def consumers(self, command: str) -> int:
        """The number of consumers for such commands; 0 if their queue does not exist."""
        queue = topology.CANCELS if command == "cancel" else topology.COMMANDS

        def look(told: Callable[[Any], object]) -> None:
            def opened(channel: Any) -> None:
                channel.add_on_close_callback(lambda _, why: told(why))
                channel.queue_declare(queue, passive=True, callback=lambda frame: (told(frame), channel.close()))

            self._connection.open_channel(opened)

        told = self._ask(look)
        if not isinstance(told, Exception):
            return int(told.method.consumer_count)
        if getattr(told, "reply_code", None) != NOT_FOUND:
            raise told
        return 0

    def receive(self, seconds: float) -> Received | None:
        """The next message; None: none came in time."""
        deadline = time.monotonic() + seconds
        while True:
            while self._received:
                told = _read(*self._received.popleft())
                if told is not None:
                    return told
            self._check_open()
            left = deadline - time.monotonic()
            self._connection.run(max(0.0, left), lambda: self._received)
            if left <= 0 and not self._received:
                return None

    def give_up(self, why: BaseException) -> None:
        """Treat the connection as lost: the next `open` makes a new one, after a pause."""
        if self._connection.is_open:
            self._connection.give_up(why)

    def close(self) -> None:
        """Close the connection; what its queue still holds is dropped."""
        self._connection.disconnect()


def _read(key: str, body: bytes) -> Received | None:
    """The message as a CloudEvent; None: others may publish anything on these exchanges."""
    try:
        document = json.loads(body)
        if isinstance(document, dict) and isinstance(document.get("data"), dict):
            return Received(key, document)
    except (ValueError, RecursionError):
        pass
    logger.warning("dropped a message that is not an event: routing key %r", key)
    return None
