"""A program that uses the service through RabbitMQ alone: it knows pika, JSON and the names at the broker."""

import json
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any, Self

import pika

from actors.rabbitmq import topology
from tests.docs.described import check_described
from tests.integration.support import PATIENCE, until


@dataclass(frozen=True)
class Received:
    key: str
    document: dict[str, Any]

    def __post_init__(self) -> None:
        check_described(self.document)

    @property
    def name(self) -> str:
        return ".".join(self.key.split(".")[:2])

    @property
    def data(self) -> dict[str, Any]:
        return dict(self.document["data"])


class Application:
    """Publishes commands and hears all that is told. Its queue outlives a restart of the broker, as it does itself."""

    def __init__(self, url: str) -> None:
        self.url, self._parameters = url, pika.URLParameters(url)
        self.queue = f"application-{uuid.uuid4()}"
        self._heard: dict[str, Received] = {}
        self._connect()
        for name in (topology.COMMANDS, topology.CANCELS, topology.WAITING, topology.UNREADABLE):
            self._empty(name)

    def _empty(self, name: str) -> None:
        """Make a queue as new. Not by deleting it: a node that is killed soon after would find the old one again."""
        until(lambda: self.channel.queue_declare(name, passive=True).method.consumer_count == 0)
        self.channel.queue_purge(name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.queue_delete(self.queue)
        self._connection.close()

    def _connect(self) -> None:
        self._connection = pika.BlockingConnection(self._parameters)
        self.channel = self._connection.channel()
        topology.declare(self.channel)
        self.channel.confirm_delivery()
        self.channel.queue_declare(self.queue, durable=True)
        for exchange in (topology.EVENTS, topology.REPLAYS):
            self.channel.queue_bind(self.queue, exchange, "#")

    def reconnect(self) -> None:
        with suppress(pika.exceptions.AMQPError):
            self._connection.close()
        with suppress(Exception):
            self._connection._impl.ioloop.close()  # a lost connection leaves it open
        self._connect()

    def send(self, name: str, data: dict[str, Any], command_id: str | None = None, **more: Any) -> str:
        """Publish a command; return its id."""
        command_id = command_id or str(uuid.uuid4())
        document = {"specversion": "1.0", "id": command_id, "source": "/application", "data": data}
        self.publish(json.dumps({**document, "type": f"sora-batch.{name}.v1", **more}).encode(), name)
        return command_id

    def publish(self, body: bytes, routing_key: str, properties: Any = None) -> None:
        given = properties or pika.BasicProperties(content_type="application/cloudevents+json", delivery_mode=2)
        self.channel.basic_publish(topology.COMMANDS, routing_key, body, given)

    def hear(self, patience: float = PATIENCE) -> Iterator[Received]:
        """What is told, as it comes; ends when nothing came for so long."""
        for method, _, body in self.channel.consume(self.queue, auto_ack=True, inactivity_timeout=patience):
            if method is None:
                break
            yield Received(method.routing_key, json.loads(body))
        self.channel.cancel()

    def answer(self, command_id: str) -> Received:
        """The answer to a command. (Others that come meanwhile are kept.)"""
        deadline = monotonic() + PATIENCE
        while command_id not in self._heard:
            method, _, body = self.channel.basic_get(self.queue, auto_ack=True)
            if method is None:
                if monotonic() > deadline:
                    raise TimeoutError(f"the command {command_id} was not answered within {PATIENCE} s")
                self._connection.process_data_events(0.01)
                continue
            received = Received(method.routing_key, json.loads(body))
            if received.name.startswith("command."):
                self._heard[received.document["correlationid"]] = received
        return self._heard.pop(command_id)

    def ask(self, name: str, data: dict[str, Any], **more: Any) -> Received:
        return self.answer(self.send(name, data, **more))

    def aside(self) -> list[tuple[Any, bytes]]:
        """Properties and bodies of what was put aside so far."""
        letters = []
        while True:
            method, properties, body = self.channel.basic_get(topology.UNREADABLE, auto_ack=True)
            if method is None:
                return letters
            letters.append((properties, body))

    def count(self, queue: str) -> int:
        return int(self.channel.queue_declare(queue, passive=True).method.message_count)
