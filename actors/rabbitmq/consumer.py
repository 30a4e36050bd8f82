"""Commands from RabbitMQ, consumed by dramatiq's workers: four threads for commands, one for cancellations alone.

No message is in dramatiq's format, and nothing in a message decides where it goes: the broker and its consumer below
take the bytes as they are, and give them to the task of the queue that they came from. A message is acknowledged
when it is answered; what can't be read is put aside, confirmed, before that. Nothing that arrives ends a thread.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import dramatiq
import dramatiq.worker
import pika
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.errors import ConnectionClosed
from pika.exceptions import AMQPError, ChannelClosedByBroker

from actors.rabbitmq import topology
from actors.rabbitmq.codec import Message
from actors.rabbitmq.handler import Postpone, Requeue, Unreadable
from actors.rabbitmq.refusals import ACCESS_REFUSED, Attempts, Standing

logger = logging.getLogger(__name__)
Handle = Callable[[Message, float | None], None]

THREADS = {topology.COMMANDS: 4, topology.CANCELS: 1}
ERROR_HEADER = "x-sora-batch-error"
SINCE_HEADER = "x-sora-batch-since"
"""On a message that waits for its batch's creation: since when, in milliseconds since 1970."""
_WAKE_MILLISECONDS = 500
"""How often an idle thread looks whether it shall stop: more often costs the process more than 1 % of a core."""
_RESTART_SECONDS = 1.0
_STOP_MILLISECONDS = 1000
_CLOSE_SECONDS = 2.0
_ERROR_MAX = 1000
_GIVEN_UP = (
    f"it went back to its queue {topology.DELIVERY_LIMIT} times: its service ended each time, or could not obey it"
)
_RETURNS = "x-delivery-count"
_OF_THE_BROKER = (
    _RETURNS,
    "x-death",
    "x-first-death-exchange",
    "x-first-death-queue",
    "x-first-death-reason",
)


class Properties(pika.BasicProperties):  # type: ignore[misc]
    """The properties of a message, whatever a publisher made of them.

    pika fails to read some that a broker passes on (a timestamp in milliseconds, a NaN), and its connection with it:
    the message would come back and end the next one.
    """

    damage: str | None = None

    def decode(self, encoded: bytes, offset: int = 0) -> Any:
        """Read them; what can't be read is left out."""
        try:
            return super().decode(encoded, offset)
        except Exception as error:  # noqa: BLE001  (struct, Unicode, date, recursion: anything)
            self.__init__()  # type: ignore[misc]
            self.damage = f"{type(error).__name__}: {error}"
            return self


def own_process() -> None:
    """Set what pika and dramatiq have for the whole process: for a program that does nothing but serve."""
    dramatiq.worker.CONSUMER_RESTART_DELAY_SECS = _RESTART_SECONDS
    # Their lines are ours, told once: each try to connect would be a dozen of pika's and one of dramatiq's criticals.
    logging.getLogger("dramatiq").setLevel(logging.CRITICAL + 1)
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    # pika looks the class up here for whatever a frame brings.
    pika.spec.props[pika.BasicProperties.INDEX] = Properties


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message on its way through a task, and what is needed to settle it."""

    tag: int
    channel: Any = field(repr=False)
    routing_key: str
    exchange: str
    properties: Any = field(repr=False)
    body: bytes = field(repr=False)

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
        """How often it went back to its queue."""
        count = (self.properties.headers or {}).get(_RETURNS)
        return count if isinstance(count, int) else 0

    @property
    def since(self) -> float | None:
        """Since when it waits for its batch."""
        since = (self.properties.headers or {}).get(SINCE_HEADER)
        return since / 1000 if isinstance(since, int) else None


def _text(value: Any) -> str | None:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value


class CommandBroker(RabbitmqBroker):
    """dramatiq's broker with our consumer, our topology, and no way to send a message in dramatiq's format."""

    def __init__(self, url: str, queue_type: str, standing: Standing) -> None:
        super().__init__(middleware=[Verdict()], parameters=[])
        parameters = topology.connection_parameters(url)
        self.parameters, self._queue_type = parameters, queue_type
        user = parameters.credentials.username
        self._attempts = {name: Attempts(name, user, standing) for name in THREADS}
        self._pauses = dict.fromkeys(THREADS, 0.0)
        self.stopping = threading.Event()
        """Set when nobody shall wait for the broker any more."""

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> dramatiq.Consumer:
        """A consumer on a connection of its own, which has declared what it needs; once the broker is there.

        Raises:
            ConnectionClosed: we are to stop.
        """
        while not self.stopping.wait(self._pauses[queue_name]):
            lost = partial(self._lost, queue_name)
            try:
                consumer = CommandConsumer(self.parameters, self._queue_type, queue_name, prefetch, timeout, lost)
            except Exception as error:  # noqa: BLE001  (it has many faces)
                lost(error)
            else:
                self._pauses[queue_name] = 0.0
                self._attempts[queue_name].opened()
                return consumer
        raise _lost(ConnectionError("the service stops"))

    def _lost(self, queue_name: str, error: Exception) -> None:
        self._pauses[queue_name] = self._attempts[queue_name].lost(error)

    def declare_queue(self, queue_name: str, *, ensure: bool = False) -> None:  # noqa: ARG002  (dramatiq's signature)
        """Have the queue consumed. What is declared at the broker is the topology's business."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            self.emit_after("declare_queue", queue_name)

    def enqueue(self, message: dramatiq.Message[Any], *, delay: int | None = None) -> dramatiq.Message[Any]:
        """Refuse: commands are published by applications, as CloudEvents."""
        raise NotImplementedError("commands are published to the exchange, not through dramatiq")


class CommandConsumer(dramatiq.Consumer):
    """Takes messages off one queue, on a connection of its own, and settles them there."""

    def __init__(
        self, parameters: Any, queue_type: str, queue_name: str, prefetch: int, timeout: int,
        on_lost: Callable[[Exception], None],
    ) -> None:  # fmt: skip
        self._queue_name, self._on_lost = queue_name, on_lost
        self._connection = pika.BlockingConnection(parameters)
        try:
            self._aside = self._declared(queue_type)
            self._aside.confirm_delivery()
            self._channel = self._connection.channel()
            self._channel.basic_qos(prefetch_count=prefetch)
            self._deliveries = self._channel.consume(queue_name, inactivity_timeout=timeout / 1000)
        except BaseException:
            with suppress(Exception):
                self._connection.close()
            raise

    def _declared(self, queue_type: str) -> Any:
        """A channel, once all that is needed is there."""
        channel = self._connection.channel()
        try:
            topology.declare(channel, queue_type)
        except ChannelClosedByBroker as error:
            if error.reply_code != ACCESS_REFUSED:
                raise
            channel = self._connection.channel()  # this user must not declare: it may be there all the same
            topology.expect(channel, (topology.COMMANDS, topology.WAITING), topology.queues(queue_type))
        return channel

    def __next__(self) -> dramatiq.MessageProxy | None:
        """The next message, or None if none came for a while.

        Raises:
            ConnectionClosed: the connection is lost, or a message could not be put aside. It is made anew in a moment,
                and what was not settled comes again.
        """
        try:
            method, properties, body = next(self._deliveries)
        except Exception as error:  # noqa: BLE001  (a lost connection has many faces)
            self._on_lost(error)
            raise _lost(error) from None
        if method is None:
            return None
        delivery = Delivery(
            method.delivery_tag, self._channel, str(_text(method.routing_key)), str(_text(method.exchange)),
            properties, body,
        )  # fmt: skip
        given = {"delivery": delivery}
        message: dramatiq.Message[Any] = dramatiq.Message(self._queue_name, self._queue_name, (), given, {})
        proxy = dramatiq.MessageProxy(message)
        if method.redelivered and delivery.returns >= topology.DELIVERY_LIMIT:  # the broker would not bring it again
            proxy.verdict = Unreadable(_GIVEN_UP)  # type: ignore[attr-defined]
            self.nack(proxy)
            return None
        return proxy

    def ack(self, message: dramatiq.MessageProxy) -> None:
        """Acknowledge it: it was answered."""
        self._settle(message, lambda channel, tag: channel.basic_ack(tag))

    def nack(self, message: dramatiq.MessageProxy) -> None:
        """Put it where its verdict says: aside, back, or into the queue of those that wait for their batch."""
        delivery: Delivery = message.kwargs["delivery"]
        verdict = getattr(message, "verdict", None)
        if isinstance(verdict, Requeue):
            self._settle(message, lambda channel, tag: channel.basic_nack(tag, requeue=True))
        elif isinstance(verdict, Postpone):
            headers: dict[str, Any] = {SINCE_HEADER: int(verdict.since * 1000)}
            self._settle(message, partial(self._move, delivery, topology.WAITING, delivery.routing_key, headers))
        else:
            headers = {ERROR_HEADER: _reason(verdict)}
            self._settle(message, partial(self._move, delivery, "", topology.UNREADABLE, headers))

    def _settle(self, message: dramatiq.MessageProxy, settle: Callable[[Any, int], None]) -> None:
        delivery: Delivery = message.kwargs["delivery"]
        if delivery.channel is not self._channel:
            return  # it came over a connection that is lost: it comes again, and its number is another message's by now
        with suppress(AMQPError):  # lost just now: it comes again
            self._connection.add_callback_threadsafe(partial(settle, self._channel, delivery.tag))

    def _move(
        self, delivery: Delivery, exchange: str, routing_key: str, headers: dict[str, Any], channel: Any, tag: int
    ) -> None:
        """In the consumer's thread: publish it elsewhere, confirmed, then acknowledge it: never is it nowhere."""
        kept = {key: value for key, value in (delivery.properties.headers or {}).items() if key not in _OF_THE_BROKER}
        delivery.properties.headers = {**kept, **headers}
        delivery.properties.expiration = None  # it is kept until somebody looks at it
        try:
            self._aside.basic_publish(exchange, routing_key, delivery.body, delivery.properties, mandatory=True)
        except AMQPError:
            raise
        except Exception:  # noqa: BLE001  (pika can't write everything that it reads)
            plain = pika.BasicProperties(headers=headers, delivery_mode=2)
            self._aside.basic_publish(exchange, routing_key, delivery.body, plain, mandatory=True)
        channel.basic_ack(tag)

    def close(self) -> None:
        """Settle what is to be settled, and close the connection."""
        with suppress(Exception):
            settled = threading.Event()
            self._connection.add_callback_threadsafe(settled.set)
            while not settled.is_set():
                self._connection.process_data_events(time_limit=0)
        with suppress(Exception):
            self._connection.close()
        with suppress(Exception):  # a connection that was lost does not close its loop itself
            self._connection._impl.ioloop.close()  # noqa: SLF001


def _lost(error: Exception) -> ConnectionClosed:
    return ConnectionClosed(error)  # type: ignore[no-untyped-call]


def _reason(verdict: BaseException | None) -> str:
    text = (
        str(verdict) if isinstance(verdict, Unreadable) else f"the service failed: {type(verdict).__name__}: {verdict}"
    )
    return text.encode("utf-8", "backslashreplace").decode()[:_ERROR_MAX]


class Verdict(dramatiq.Middleware):
    """Tells the consumer why a task failed. Without it, a message whose task failed would be acknowledged and gone."""

    @property
    def actor_options(self) -> set[str]:
        """Which exceptions of a task are expected."""
        return {"throws"}

    def after_process_message(
        self, _broker: dramatiq.Broker, message: dramatiq.MessageProxy, *, result: Any = None,  # noqa: ARG002
        exception: BaseException | None = None,
    ) -> None:  # fmt: skip
        """Note it."""
        if exception is not None:
            if not isinstance(exception, Unreadable | Requeue | Postpone):
                logger.error("a command's task failed", exc_info=exception, extra={"action": "task_failed"})
            message.verdict = exception  # type: ignore[attr-defined]
            message.fail()


class CommandConsumers:
    """The threads that consume commands, from `start` to `stop`.

    Args:
        url: of the broker.
        handle: obeys one command; called from several threads.
        queue_type: of the queues, `quorum` or `classic`.
        standing: what this process has logged of the broker.
    """

    def __init__(
        self, url: str, handle: Handle, queue_type: str = topology.QUORUM, standing: Standing | None = None
    ) -> None:
        self._broker = CommandBroker(url, queue_type, standing or Standing())
        for queue_name in THREADS:
            self._declare(queue_name, handle)
        self._workers = [
            dramatiq.Worker(
                self._broker, queues={queue_name}, worker_threads=threads, worker_timeout=_WAKE_MILLISECONDS
            )
            for queue_name, threads in THREADS.items()
        ]

    def _declare(self, queue_name: str, handle: Handle) -> None:
        def task(delivery: Delivery) -> None:
            handle(delivery.message, delivery.since)

        declared = dramatiq.actor(
            broker=self._broker, actor_name=queue_name, queue_name=queue_name, throws=(Unreadable, Requeue, Postpone)
        )
        declared(task)

    def start(self) -> None:
        """Consume, as soon as the broker is there."""
        for worker in self._workers:
            worker.start()

    def stop(self) -> None:
        """Take nothing new, finish what is in hand; what takes too long goes back to the broker."""
        self._broker.stopping.set()
        stopping = [
            threading.Thread(target=worker.stop, kwargs={"timeout": _STOP_MILLISECONDS}, daemon=True)
            for worker in self._workers
        ]
        for thread in stopping:
            thread.start()
        for thread in stopping:
            thread.join(2 * _STOP_MILLISECONDS / 1000 + _CLOSE_SECONDS)
        self._broker.close()
