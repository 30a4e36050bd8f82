"""Outgoing: the messages to publish over a connection, and which of them are confirmed. Many at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pika
from pika.exceptions import AMQPError

from actors.rabbitmq.refusals import ConnectionGone, Nacked, Unroutable

WINDOW = 200
"""Unconfirmed messages."""
Settled = Callable[[Exception | None], object]
"""Called once, in the connection's thread: with None when the broker has confirmed a message, else with the error."""


def event_properties(identity: str, kind: str, at: float, correlation: str | None = None) -> pika.BasicProperties:
    """The AMQP properties of a CloudEvent (an event of a batch, a command, an answer), as a persistent message.

    Args:
        identity: the event's id.
        kind: its type, such as `sora-batch.job.completed.v1`.
        at: when it happened, in seconds since 1970.
        correlation: the id of the command or the batch that it belongs to.
    """
    return pika.BasicProperties(
        content_type="application/cloudevents+json", delivery_mode=2, message_id=identity, type=kind,
        timestamp=int(at), app_id="sora-batch", correlation_id=correlation,
    )  # fmt: skip


@dataclass(slots=True)
class Item:
    """A message, and the callback for its outcome."""

    exchange: str
    routing_key: str
    body: bytes
    properties: Any
    settled: Settled
    lasting: bool = False
    """Whether it is published again over the next connection; otherwise its callback gets `ConnectionGone`."""
    mandatory: bool = False
    """Whether it must reach a queue."""
    returned: bool = False


class Outgoing:
    """See the module. All methods but `add` are called in the connection's thread."""

    def __init__(self, later: Callable[[Callable[[], object]], object]) -> None:
        """`later`: calls a function in the connection's thread, after what has come in."""
        self._later = later
        self._todo: deque[Item] = deque()
        self._flying: dict[int, Item] = {}
        self._tag = 0
        self._channel: Any = None
        self._pumping = False

    def __bool__(self) -> bool:
        return bool(self._todo or self._flying)

    def add(self, item: Item) -> None:
        """Queue it for the next `flush`. From any thread."""
        self._todo.append(item)

    def open(self, channel: Any) -> None:
        """Publish over this channel from now on."""
        self._channel, self._tag = channel, 0
        self.flush()

    def lost(self) -> None:
        """The channel is gone: unconfirmed messages wait for the next one, or their callbacks are called."""
        self._channel = None
        self._todo.extendleft(reversed(self._flying.values()))
        self._flying = {}
        self.fail(ConnectionGone("the connection to RabbitMQ was lost"), lasting=False)

    def fail(self, error: Exception, *, lasting: bool) -> None:
        """Fail what is not published over the next connection (`lasting`: there is no next one)."""
        for _ in range(len(self._todo)):  # in place: others append to it
            item = self._todo.popleft()
            if lasting or not item.lasting:
                item.settled(error)
            else:
                self._todo.append(item)

    def flush(self) -> None:
        """Send what was added, up to the limit of unconfirmed messages."""
        self._pumping = False
        if self._channel is not None and self._todo:
            self._send()

    def _send(self) -> None:  # crash point: publish
        with suppress(AMQPError), self._channel.connection.at_once():  # just lost: that is noticed in a moment
            while self._channel is not None and self._todo and len(self._flying) < WINDOW:
                item = self._todo.popleft()
                self._tag += 1
                self._flying[self._tag] = item
                self._channel.basic_publish(
                    item.exchange, item.routing_key, item.body, item.properties, mandatory=item.mandatory
                )

    def returned(self, _: Any, method: Any, __: Any, body: bytes) -> None:
        """The broker has no queue for one of them; it confirms the message all the same."""
        wanted = (method.exchange, method.routing_key, body)
        for item in self._flying.values():
            if item.mandatory and not item.returned and (item.exchange, item.routing_key, item.body) == wanted:
                item.returned = True
                return

    def confirmed(self, method: Any) -> None:
        """The broker has answered one or several: `Basic.Ack` or `Basic.Nack`."""
        tags = [tag for tag in self._flying if tag <= method.delivery_tag] if method.multiple else [method.delivery_tag]
        acknowledged = isinstance(method, pika.spec.Basic.Ack)
        for tag in tags:
            item = self._flying.pop(tag, None)
            if item is None:
                continue
            if item.returned:
                item.settled(Unroutable("no queue is bound for it"))
            else:
                item.settled(None if acknowledged else Nacked("a full queue refused it"))
        if self._todo and not self._pumping:  # after the confirms that came with this one
            self._pumping = True
            self._later(self.flush)
