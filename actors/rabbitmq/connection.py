"""Connection: publishes with confirms over one connection to RabbitMQ, many messages at a time.

Owns a thread and pika's loop in it; the connection is made anew whenever it is lost. What its users do in that thread
(`call`, the callbacks) must not block. Knows nothing of what it publishes.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any

import pika
from pika.exceptions import AMQPError

from actors.rabbitmq import topology
from actors.rabbitmq.quiet import hush
from actors.rabbitmq.refusals import ACCESS_REFUSED, Attempts, Standing

logger = logging.getLogger(__name__)
WINDOW = 200
"""Unconfirmed messages."""
_CLOSE_SECONDS = 3.0
_BLOCKED_SECONDS = 0.2


class Nacked(Exception):
    """The broker refused a message: a queue that it should have gone into is full."""


class ConnectionGone(Exception):
    """The connection was lost, or closed, before the message was confirmed: it may have been taken."""


class State(Enum):
    """Where a connection stands."""

    CONNECTING = "connecting"
    OPEN = "open"
    AWAY = "away"
    CLOSED = "closed"


Settled = Callable[[Exception | None], object]
"""Told once, in the connection's thread: None when the broker has confirmed a message, else why it has not."""


@dataclass(slots=True)
class _Item:
    exchange: str
    routing_key: str
    body: bytes
    properties: Any
    settled: Settled
    lasting: bool
    """Whether it is published again over the next connection; else its owner is told that this one is gone."""


class _SelectConnection(pika.SelectConnection):  # type: ignore[misc]
    """pika's, but what is published at once goes out in one system call: they are a third of what publishing takes."""

    _held: list[bytes] | None = None

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Hold back what is sent until the end."""
        self._held = []
        try:
            yield
        finally:
            held, self._held = self._held, None
            if held and not (self.is_closing or self.is_closed):
                super()._output_marshaled_frames([b"".join(held)])

    def _output_marshaled_frames(self, marshaled_frames: list[bytes]) -> None:
        # Private to pika: were it called otherwise one day, messages would only go out one by one.
        if self._held is None:
            super()._output_marshaled_frames(marshaled_frames)
        else:
            self._held += marshaled_frames


class Connection:
    """See the module. Starts with the first use; publishing never waits for the broker.

    Attributes:
        standing: what it has logged of the broker; for others in this process who would log the same.
    """

    def __init__(self, url: str, queue_type: str = topology.QUORUM) -> None:
        self._queue_type = queue_type
        self._parameters = topology.connection_parameters(url)
        self.standing = Standing()
        self.state = State.CONNECTING
        self.on_open: list[Callable[[], object]] = []
        """Called in the thread whenever it is open, before anything is published over it."""
        self.on_lost: list[Callable[[], object]] = []
        """Called in the thread when it is lost, before anybody is told of his message."""
        self._todo: deque[_Item] = deque()
        self._flying: dict[int, _Item] = {}
        self._tag = 0
        self._connection: Any = None
        self._channel: Any = None
        self._closing = threading.Event()
        self._attempts = Attempts("publisher", self._parameters.credentials.username, self.standing)
        self._pause = 0.0
        self._why: Any = None
        """Why the broker has closed our channel: the connection's own end does not say it."""
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._blocked = self._pumping = False

    @property
    def started(self) -> bool:
        """Whether anybody has used it."""
        return self._thread is not None

    @property
    def takes_messages(self) -> bool:
        """Whether what is sent now may soon be confirmed: it is open, or may be in a moment."""
        return self.state in (State.CONNECTING, State.OPEN) and not self._blocked

    def start(self) -> None:
        """Connect, and stay connected. Twice is once."""
        with self._lock:
            if self._thread is None and not self._closing.is_set():
                self._thread = threading.Thread(target=self._run, name="sora-amqp", daemon=True)
                self._thread.start()

    def publish(self, exchange: str, routing_key: str, body: bytes, properties: Any) -> Future[None]:
        """Publish, from any thread; again over the next connection, if this one is lost.

        Returns:
            Done when the broker has confirmed it; fails with `Nacked`, or with `ConnectionGone` when it is closed.
        """
        done: Future[None] = Future()
        item = _Item(exchange, routing_key, body, properties, partial(_settle, done), lasting=True)
        if self._closing.is_set():
            _settle(done, ConnectionGone("the connection to RabbitMQ is closed"))
            return done
        self._todo.append(item)
        self.start()
        self.call(self._pump)
        if self.state is State.CLOSED:  # in this moment: nobody else would tell
            self._fail(ConnectionGone("the connection to RabbitMQ is closed"), lasting=True)
        return done

    def send(self, exchange: str, routing_key: str, body: bytes, properties: Any, settled: Settled) -> None:
        """Publish over this very connection; in its thread only."""
        self._todo.append(_Item(exchange, routing_key, body, properties, settled, lasting=False))

    def flush(self) -> None:
        """Have what was sent go out; in the thread only."""
        self._pump()

    def call(self, function: Callable[[], object]) -> None:
        """Have a function called in the thread, if there is a connection."""
        connection = self._connection
        if connection is not None:
            with suppress(Exception):  # it is being made anew
                connection.ioloop.add_callback_threadsafe(function)

    def call_later(self, seconds: float, function: Callable[[], object]) -> None:
        """The same after a while; in the thread only. Lost with the connection."""
        self._connection.ioloop.call_later(seconds, function)

    def close(self, seconds: float = _CLOSE_SECONDS) -> None:
        """Publish what was handed over, for as long as the broker is there, then end. What is left fails."""
        if self.state is State.OPEN and not self._blocked and (self._todo or self._flying):
            empty = threading.Event()
            self.call(partial(self._when_empty, empty))
            empty.wait(seconds)
        with self._lock:
            self._closing.set()
        self.call(self._close_connection)
        if self._thread is not None:
            # A broker in an alarm does not even read that we leave: the thread ends when it does.
            self._thread.join(_BLOCKED_SECONDS if self._blocked else seconds)
        self.state = State.CLOSED
        self._fail(ConnectionGone("the connection was closed before the broker confirmed this"), lasting=True)

    # --- in the thread

    def _when_empty(self, empty: threading.Event) -> None:
        if self._todo or self._flying:
            self.call_later(0.01, partial(self._when_empty, empty))
        else:
            empty.set()

    def _run(self) -> None:
        with hush():
            self._stay_connected()

    def _stay_connected(self) -> None:
        while not self._closing.is_set():
            self._connection = _SelectConnection(
                self._parameters,
                on_open_callback=lambda connection: connection.channel(on_open_callback=self._on_channel),
                on_open_error_callback=self._on_gone,
                on_close_callback=self._on_gone,
            )
            self._connection.add_on_connection_blocked_callback(lambda *_: self._on_blocked())
            self._connection.add_on_connection_unblocked_callback(lambda *_: self._on_unblocked())
            try:
                self._connection.ioloop.start()
            except Exception as error:
                # Closed in the middle of its opening, pika fails after it has closed the socket; and a socket that is
                # reset in that moment it takes for a mistake of ours.
                reset = isinstance(error.__context__, OSError)
                if not (reset or self._closing.is_set()):
                    logger.exception("the connection to RabbitMQ failed", extra={"action": "broker_failed"})
                self._on_gone(self._connection, error)
            finally:
                self._connection.ioloop.close()
            self._closing.wait(self._pause)

    def _on_channel(self, channel: Any) -> None:
        channel.add_on_close_callback(self._on_declaration_refused)
        topology.declare(channel, self._queue_type)
        channel.confirm_delivery(self._on_confirm, partial(self._on_declared, channel))

    def _on_declaration_refused(self, channel: Any, why: Any) -> None:
        if channel is self._channel or getattr(why, "reply_code", None) != ACCESS_REFUSED:
            self._on_channel_closed(channel, why)
            return
        # This user must not declare: what is published to may be there all the same.
        self._connection.channel(on_open_callback=self._on_plain_channel)

    def _on_plain_channel(self, channel: Any) -> None:
        channel.add_on_close_callback(self._on_channel_closed)
        topology.expect(channel, (topology.EVENTS, topology.REPLAYS))
        channel.confirm_delivery(self._on_confirm, partial(self._on_declared, channel))

    def _on_channel_closed(self, _: Any, why: Any) -> None:
        self._why = why
        self._close_connection()

    def _on_declared(self, channel: Any, _: Any) -> None:
        """The broker has answered, so all before it is as it should be."""
        self._channel, self._tag = channel, 0
        self._attempts.opened()
        self.state = State.OPEN
        for tell in self.on_open:
            tell()
        self._pump()

    def _on_blocked(self) -> None:
        self._blocked = True
        self._say("blocked", "blocked by RabbitMQ: its memory or its disk is low")

    def _on_unblocked(self) -> None:
        self._blocked = False
        self._say("open", "RabbitMQ takes messages again")

    def _on_gone(self, connection: Any, why: Any) -> None:
        self._channel, self._blocked = None, False
        for tell in self.on_lost:
            tell()
        why, self._why = self._why or why, None
        if not self._closing.is_set():
            self.state = State.AWAY
            self._pause = self._attempts.lost(why)
        self._todo.extendleft(reversed(self._flying.values()))
        self._flying = {}
        self._fail(ConnectionGone("the connection to RabbitMQ was lost"), lasting=False)
        logger.debug("not connected", extra={"action": "broker_away", "error": repr(why)})
        connection.ioloop.stop()

    def _fail(self, error: Exception, *, lasting: bool) -> None:
        """Tell the owners of what is not published over the next connection (`lasting`: there is no next one)."""
        for _ in range(len(self._todo)):  # in place: others append to it
            item = self._todo.popleft()
            if lasting or not item.lasting:
                item.settled(error)
            else:
                self._todo.append(item)

    def _on_confirm(self, frame: Any) -> None:
        method = frame.method
        self._attempts.lasts()
        tags = [tag for tag in self._flying if tag <= method.delivery_tag] if method.multiple else [method.delivery_tag]
        error = None if isinstance(method, pika.spec.Basic.Ack) else Nacked("a full queue refused it")
        for tag in tags:
            item = self._flying.pop(tag, None)
            if item is not None:
                item.settled(error)
        if self._todo and not self._pumping:  # after the confirms that came with this one
            self._pumping = True
            self.call(self._pump)

    def _pump(self) -> None:
        self._pumping = False
        if self._channel is None or not self._todo:
            return
        with suppress(AMQPError), self._connection.at_once():  # lost just now: it is noticed in a moment
            while self._channel is not None and self._todo and len(self._flying) < WINDOW:
                item = self._todo.popleft()
                self._tag += 1
                self._flying[self._tag] = item
                self._channel.basic_publish(item.exchange, item.routing_key, item.body, item.properties)

    def _close_connection(self) -> None:
        # One that is being opened is broken off; in either case it is told as gone.
        if not (self._connection.is_closing or self._connection.is_closed):
            self._connection.close()

    def _say(self, state: str, text: str) -> None:
        level = logging.WARNING if state != "open" else logging.INFO
        logger.log(level, text, extra={"action": f"broker_{state}"})


def _settle(done: Future[None], error: Exception | None) -> None:
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)
