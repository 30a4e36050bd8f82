"""Commands from RabbitMQ, consumed by dramatiq's workers: four threads for commands, one for cancellations only.

Messages are not in dramatiq's format, and their content does not route them: the broker and consumer below pass the
raw bytes to the task of their queue. A message is acknowledged once it is answered; an unreadable one is first
published to its own queue and confirmed. No message can end a thread.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import dramatiq
import pika
from pika.exceptions import ConsumerCancelled

from actors.errors import encodable
from actors.rabbitmq import topology
from actors.rabbitmq.codec import Message
from actors.rabbitmq.connection import Connection
from actors.rabbitmq.handler import Postpone, Requeue, Unreadable
from actors.rabbitmq.refusals import ConnectionGone, Standing

logger = logging.getLogger(__name__)
Handle = Callable[[Message, float | None], None]

THREADS = {topology.COMMANDS: 4, topology.CANCELS: 1}
_WAKE_MILLISECONDS = 500
"""How often an idle thread checks whether to stop: more often would cost over 1 % of a core."""
_STOP_MILLISECONDS, _CLOSE_SECONDS, _ERROR_MAX = 1000, 2.0, 1000
_GIVEN_UP = f"returned to its queue {topology.DELIVERY_LIMIT} times: each time its service died or could not process it"


class Properties(pika.BasicProperties):  # type: ignore[misc]
    """The properties of a message, however malformed.

    pika fails on some that a broker passes on (a timestamp in milliseconds, a NaN), and its connection with it: the
    message would come back and end the next one.
    """

    damage: str | None = None

    def decode(self, encoded: bytes, offset: int = 0) -> Any:
        """Decode them; on an error they are empty and `damage` is set."""
        try:
            return super().decode(encoded, offset)
        except Exception as error:  # noqa: BLE001  (struct, Unicode, date, recursion: anything)
            self.__init__()  # type: ignore[misc]
            self.damage = f"{type(error).__name__}: {error}"
            return self


def own_process() -> None:
    """Change the process-wide settings of pika and dramatiq: for a program that only serves."""
    # We log the same, once: each attempt to connect would log a dozen lines of pika's and a critical of dramatiq's.
    logging.getLogger("dramatiq").setLevel(logging.CRITICAL + 1)
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    # pika looks up the class for the properties of any frame here.
    pika.spec.props[pika.BasicProperties.INDEX] = Properties


@dataclass(slots=True)
class Delivery:
    """A message in a task, with what is needed to settle it."""

    channel: Any = field(repr=False)
    method: Any
    properties: Any = field(repr=False)
    body: bytes = field(repr=False)
    verdict: BaseException | None = None
    """Why it was not answered."""

    @property
    def routing_key(self) -> str:
        """Its routing key, kept if it is returned."""
        return str(_text(self.method.routing_key))

    @property
    def message(self) -> Message:
        """What the handler reads."""
        given = self.properties
        return Message(
            self.body, self.routing_key, _text(given.content_type), _text(given.content_encoding),
            _text(given.message_id), getattr(given, "damage", None),
        )  # fmt: skip

    @property
    def returns(self) -> int:
        """How often it was returned to its queue."""
        count = (self.properties.headers or {}).get(topology.RETURNS_HEADER)
        return count if isinstance(count, int) else 0

    @property
    def since(self) -> float | None:
        """Since when it has waited for its batch."""
        since = (self.properties.headers or {}).get(topology.SINCE_HEADER)
        return since / 1000 if isinstance(since, int) else None


def _text(value: Any) -> str | None:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value


class CommandBroker(dramatiq.Broker):
    """A dramatiq broker with our consumer and topology, which never sends messages in dramatiq's format."""

    def __init__(self, url: str, queue_type: str, standing: Standing) -> None:
        super().__init__(middleware=[])
        needs = (topology.COMMANDS, topology.WAITING), topology.queues(queue_type)
        self._connection = partial(Connection, url, queue_type, standing=standing, needs=needs)

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> dramatiq.Consumer:
        """A consumer on a connection of its own."""
        return CommandConsumer(self._connection, queue_name, prefetch, timeout / 1000)

    def declare_queue(self, queue_name: str) -> None:
        """Consume the queue. `topology` declares it at the broker."""
        if queue_name not in self.queues:
            self.queues[queue_name] = None
            self.emit_after("declare_queue", queue_name)


class CommandConsumer(dramatiq.Consumer):
    """Consumes one queue on a connection of its own, and settles its messages there."""

    def __init__(self, connect: Callable[..., Connection], queue_name: str, prefetch: int, seconds: float) -> None:
        """`seconds`: how long to wait for a message."""
        self._queue_name, self._prefetch, self._seconds = queue_name, prefetch, seconds
        self._arrived: deque[Delivery] = deque()
        self._connection = connect(who=queue_name, begin=self._subscribe)

    def _subscribe(self, channel: Any) -> None:
        self._arrived.clear()
        channel.basic_qos(prefetch_count=self._prefetch)
        channel.add_on_cancel_callback(lambda _: self._connection.give_up(ConsumerCancelled("its queue is gone")))
        channel.basic_consume(self._queue_name, lambda *came: self._arrived.append(Delivery(*came)))

    def __next__(self) -> dramatiq.MessageProxy | None:
        """The next message, or None: none came in time, or the connection is lost and its messages will come again."""
        if not self._arrived:
            self._connection.run(self._seconds, lambda: self._arrived)
        if not self._arrived:
            return None
        delivery = self._arrived.popleft()
        name, given = self._queue_name, {"delivery": delivery}
        proxy = dramatiq.MessageProxy(dramatiq.Message(name, name, (), given, {}))
        if delivery.method.redelivered and delivery.returns >= topology.DELIVERY_LIMIT:  # it was the last time
            delivery.verdict = Unreadable(_GIVEN_UP)
            self.ack(proxy)
            return None
        return proxy

    def ack(self, message: dramatiq.MessageProxy) -> None:
        """Settle it, whatever its outcome."""
        delivery: Delivery = message.kwargs["delivery"]
        # Over its own channel: if that is lost the message comes again, and its tag belongs to another one.
        self._connection.call(lambda: self._settle(delivery) if delivery.channel.is_open else None)

    nack = ack

    def _settle(self, delivery: Delivery) -> None:
        """Acknowledge it, or move it by its verdict: back, to the waiting queue, or to the unreadable one."""
        match delivery.verdict:
            case None:
                delivery.channel.basic_ack(delivery.method.delivery_tag)  # crash point: acknowledge
            case Requeue():
                delivery.channel.basic_nack(delivery.method.delivery_tag)
            case Postpone(since=since):
                self._move(delivery, topology.WAITING, delivery.routing_key, {topology.SINCE_HEADER: int(since * 1000)})
            case verdict:
                failed = "" if isinstance(verdict, Unreadable) else f"the service failed: {type(verdict).__name__}: "
                reason = encodable(f"{failed}{verdict}")[:_ERROR_MAX]
                self._move(delivery, "", topology.UNREADABLE, {topology.ERROR_HEADER: reason})

    def _move(self, delivery: Delivery, exchange: str, key: str, headers: dict[str, Any]) -> None:
        """Publish it elsewhere, wait for the confirm, then acknowledge it: it is never lost."""
        properties = delivery.properties
        kept = {name: value for name, value in (properties.headers or {}).items() if name not in topology.OWN_HEADERS}
        properties.headers = kept | headers
        properties.expiration = None  # it is kept until somebody inspects it
        try:
            properties.encode()
        except Exception:  # noqa: BLE001  (pika can't write everything that it reads)
            properties = pika.BasicProperties(headers=headers, delivery_mode=2)
        # crash point: put elsewhere
        self._connection.send(exchange, key, delivery.body, properties, partial(self._moved, delivery), mandatory=True)
        self._connection.flush()

    def _moved(self, delivery: Delivery, error: Exception | None) -> None:
        if error is None and delivery.channel.is_open:
            delivery.channel.basic_ack(delivery.method.delivery_tag)  # crash point: moved
        elif error is not None and not isinstance(error, ConnectionGone):
            self._connection.give_up(error)  # it comes again, a little later

    def close(self) -> None:
        """Settle what is pending, and close the connection."""
        self._connection.disconnect(_CLOSE_SECONDS)


class CommandConsumers:
    """The threads that consume commands, from `start` to `stop`.

    Args:
        url: of the broker.
        handle: handles one command; called from several threads.
        queue_type: of the queues, `quorum` or `classic`.
        standing: what this process has logged about the broker.
    """

    def __init__(
        self, url: str, handle: Handle, queue_type: str = topology.QUORUM, standing: Standing | None = None
    ) -> None:
        self._broker = CommandBroker(url, queue_type, standing or Standing())
        for queue_name in THREADS:
            self._declare(queue_name, handle)
        self._workers = [
            dramatiq.Worker(self._broker, queues={name}, worker_threads=threads, worker_timeout=_WAKE_MILLISECONDS)
            for name, threads in THREADS.items()
        ]

    def _declare(self, queue_name: str, handle: Handle) -> None:
        def task(delivery: Delivery) -> None:
            try:
                handle(delivery.message, delivery.since)
            except BaseException as verdict:
                delivery.verdict = verdict
                if not isinstance(verdict, Unreadable | Requeue | Postpone):
                    logger.exception("the task of a command failed", extra={"action": "task_failed"})

        dramatiq.actor(broker=self._broker, actor_name=queue_name, queue_name=queue_name)(task)

    def start(self) -> None:
        """Consume, as soon as the broker is reachable."""
        for worker in self._workers:
            worker.start()

    def stop(self) -> None:
        """Take no new messages and finish current ones; those that take too long return to the broker."""
        stopping = [
            threading.Thread(target=worker.stop, args=(_STOP_MILLISECONDS,), daemon=True) for worker in self._workers
        ]
        for thread in stopping:
            thread.start()
        for thread in stopping:
            thread.join(2 * _STOP_MILLISECONDS / 1000 + _CLOSE_SECONDS)
