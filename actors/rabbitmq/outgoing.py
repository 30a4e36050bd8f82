"""Outgoing messages: sent many at a time; which of a connection's, and of a batch's events, are confirmed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pika
from pika.exceptions import AMQPError

from actors.rabbitmq.refusals import ConnectionGone, Nacked, Unroutable
from storage.records import EventRecord
from storage.timing import backoff

WINDOW = 200
"""Unconfirmed messages."""
_FIRST_BACK_OFF, _LONGEST_BACK_OFF = 1.0, 60.0
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


def properties_of(event: EventRecord, correlation: str | None = None) -> pika.BasicProperties:
    """The AMQP properties of an event; `correlation`: the id of the command that requested it, if any."""
    identity, kind = f"{event.batch_id}:{event.sequence:010d}", f"sora-batch.{event.type}.v1"
    return event_properties(identity, kind, event.created_at, correlation or event.batch_id)


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


class SelectConnection(pika.SelectConnection):  # type: ignore[misc]
    """pika's, but publishes a group in one system call: these calls are a third of the cost of publishing."""

    _held: list[bytes] | None = None

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Hold back all frames until the end."""
        self._held = []
        try:
            yield
        finally:
            held, self._held = self._held, None
            if held and not (self.is_closing or self.is_closed):
                super()._output_marshaled_frames([b"".join(held)])

    def drop(self) -> None:
        """Drop it without telling the broker, as pika drops a dead one."""
        self._terminate_stream(ConnectionGone("the connection was dropped"))

    def _output_marshaled_frames(self, marshaled_frames: list[bytes]) -> None:
        # Private to pika: if it were renamed, messages would just go out one by one.
        if self._held is None:
            super()._output_marshaled_frames(marshaled_frames)
        else:
            self._held += marshaled_frames


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


@dataclass(slots=True)
class BatchCursor:
    """How far a batch's events are published, as this process knows."""

    batch_id: str
    sent: int
    confirmed: int
    marked: int
    early: set[int] = field(default_factory=set)
    """Confirmed out of order."""
    run: int = 0
    """Incremented when it restarts at its watermark: confirms of an earlier run no longer count."""
    refusals: int = 0
    resting: bool = False

    @property
    def idle(self) -> bool:
        """Whether nothing is left to do for it."""
        return self.sent == self.marked and not self.resting

    def settle(self, sequence: int, *, refused: bool) -> None:
        """An event was confirmed, or refused so often that it counts as published."""
        if sequence == self.confirmed + 1:
            self.confirmed = sequence
            while self.confirmed + 1 in self.early:
                self.confirmed += 1
                self.early.discard(self.confirmed)
            if not self.early and not refused and self.confirmed == self.sent:
                self.refusals = 0
        elif sequence > self.confirmed:
            self.early.add(sequence)

    def restart(self) -> float:
        """Send again from the watermark on, after a pause of so many seconds; see `resting`."""
        pause = backoff(self.refusals, _FIRST_BACK_OFF, _LONGEST_BACK_OFF)
        self.refusals += 1
        self.run += 1
        self.sent, self.resting = self.confirmed, True
        self.early.clear()
        return pause
