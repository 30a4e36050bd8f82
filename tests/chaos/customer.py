"""Programs that use the service through RabbitMQ alone, with no code of it: one sends commands, one hears all events.

They are connected to the node itself. When it dies they connect again, and a command that was not confirmed is sent
again as it was.
"""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Self

import pika

COMMANDS, EVENTS = "sora.batch.commands", "sora.batch.events"
QUEUE = "chaos"
ENDS = frozenset({"completed", "partial", "failed", "cancelled"})
_PATIENCE = 120.0
_PAUSE = 0.2
_BROKEN = (pika.exceptions.AMQPError, OSError)


@dataclass(slots=True)
class Command:
    """A command that was sent, perhaps more than once."""

    id: str
    name: str
    batch_id: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Arrival:
    """What came to the subscriber."""

    key: str
    id: str
    body: bytes

    @property
    def words(self) -> list[str]:
        """Entity, event, batch id and, for a job's event, the job's id."""
        return self.key.split(".")


class _Connected:
    """A connection that is made anew for as long as somebody has patience."""

    def __init__(self, url: str) -> None:
        self._parameters = pika.URLParameters(url)
        self._parameters.client_properties = {"connection_name": "chaos"}
        self._parameters.socket_timeout = self._parameters.stack_timeout = 5
        self._connection: Any = None
        self.channel: Any = None

    def connect(self, prepare: Callable[[Any], None]) -> None:
        """Connect anew.

        Raises:
            pika.exceptions.AMQPError, OSError: the node is away.
        """
        self.close()
        self._connection = pika.BlockingConnection(self._parameters)
        self.channel = self._connection.channel()
        prepare(self.channel)

    def close(self) -> None:
        if self._connection is not None:
            with suppress(Exception):
                self._connection.close()
            with suppress(Exception):  # a lost connection leaves it open
                self._connection._impl.ioloop.close()
            self._connection = self.channel = None


class Sender:
    """Sends commands, each until the node has confirmed it."""

    def __init__(self, url: str) -> None:
        self._connected = _Connected(url)
        self.commands: list[Command] = []
        self._waiting = threading.Event()
        """Never set: it is how time passes."""

    def send(self, name: str, data: dict[str, Any], command_id: str) -> Command:
        """Send a new command."""
        document = {
            "specversion": "1.0", "id": command_id, "source": "/chaos", "type": f"sora-batch.{name}.v1", "data": data,
        }  # fmt: skip
        batch_id = str(data.get("batch_id") or data.get("id"))
        command = Command(command_id, name, batch_id, json.dumps(document).encode())
        self.commands.append(command)
        self.deliver(command)
        return command

    def deliver(self, command: Command) -> None:
        """Send a command, be it again."""
        deadline = monotonic() + _PATIENCE
        properties = pika.BasicProperties(content_type="application/cloudevents+json", delivery_mode=2)
        while True:
            try:
                if self._connected.channel is None:
                    self._connected.connect(self._prepare)
                self._connected.channel.basic_publish(COMMANDS, command.name, command.body, properties)
            except _BROKEN:
                if monotonic() > deadline:
                    raise
                self._connected.close()
                self._waiting.wait(_PAUSE)
            else:
                return

    @staticmethod
    def _prepare(channel: Any) -> None:
        channel.exchange_declare(COMMANDS, "topic", passive=True)  # the services make it
        channel.confirm_delivery()

    def close(self) -> None:
        self._connected.close()


@dataclass(slots=True)
class Heard:
    """What is known from the events alone."""

    arrivals: list[Arrival] = field(default_factory=list)
    newest: dict[str, int] = field(default_factory=dict)
    """Of each batch, the highest number that came."""
    ended: dict[str, str] = field(default_factory=dict)
    """Batches that have ended, and how."""
    answers: dict[str, set[bytes]] = field(default_factory=lambda: defaultdict(set))
    """Of each command, by its id."""

    def note(self, arrival: Arrival) -> None:
        self.arrivals.append(arrival)
        entity, event, batch_id = arrival.words[:3]
        if entity == "command":
            self.answers[json.loads(arrival.body)["correlationid"]].add(arrival.body)
            return
        number = int(arrival.id.rpartition(":")[2])
        if number <= self.newest.get(batch_id, 0):
            return
        self.newest[batch_id] = number
        if entity == "batch" and event in ENDS:
            self.ended[batch_id] = event
        elif entity == "batch" and event == "retried":
            self.ended.pop(batch_id, None)


class Listener:
    """Hears everything over a durable queue, in a thread; acknowledges what it has noted."""

    def __init__(self, url: str) -> None:
        self.heard = Heard()
        self._connected = _Connected(url)
        self._closing = threading.Event()
        self._connected.connect(self._prepare)  # what is told from here on goes into the queue
        self._thread = threading.Thread(target=self._listen, name="listener", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @staticmethod
    def _prepare(channel: Any) -> None:
        channel.exchange_declare(EVENTS, "topic", durable=True)
        channel.queue_declare(QUEUE, durable=True)
        channel.queue_bind(QUEUE, EVENTS, "#")
        channel.basic_qos(prefetch_count=200)

    def _listen(self) -> None:
        while not self._closing.is_set():
            try:
                if self._connected.channel is None:
                    self._connected.connect(self._prepare)
                for method, properties, body in self._connected.channel.consume(QUEUE, inactivity_timeout=0.2):
                    if method is not None:
                        self.heard.note(Arrival(method.routing_key, properties.message_id, body))
                        self._connected.channel.basic_ack(method.delivery_tag)
                    if self._closing.is_set():
                        break
            except _BROKEN:
                self._connected.close()
                self._closing.wait(_PAUSE)
        self._connected.close()

    def close(self) -> None:
        """Stop to listen. What was not noted stays in the queue."""
        self._closing.set()
        self._thread.join(_PATIENCE)
