"""Connection: one to RabbitMQ, remade whenever it is lost. The publisher, the consumers and the client share its loop.

The publisher's runs in a thread of its own (`start`); consumers and the client run theirs in their own threads (`run`).
What each does on a new channel is handed in. Callbacks, and what is handed to `call`, must not block.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from enum import Enum
from functools import partial
from typing import Any

import pika
from pika.adapters.select_connection import IOLoop
from pika.exceptions import ChannelClosedByBroker

from actors.rabbitmq import topology
from actors.rabbitmq.outgoing import Item, Outgoing, Settled
from actors.rabbitmq.refusals import ACCESS_REFUSED, Attempts, ConnectionGone, Standing, hush

logger = logging.getLogger(__name__)
_CLOSE_SECONDS = 3.0
_BLOCKED_SECONDS = 0.2


class State(Enum):
    """Where a connection stands."""

    CONNECTING = "connecting"
    OPEN = "open"
    AWAY = "away"
    CLOSED = "closed"


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

    def drop(self) -> None:
        """End it without a word to the broker, as pika ends one that it takes for dead."""
        self._terminate_stream(ConnectionGone("the connection was dropped"))

    def _output_marshaled_frames(self, marshaled_frames: list[bytes]) -> None:
        # Private to pika: were it called otherwise one day, messages would only go out one by one.
        if self._held is None:
            super()._output_marshaled_frames(marshaled_frames)
        else:
            self._held += marshaled_frames


class Connection:
    """See the module. Connects with the first use; publishing never waits for the broker.

    Attributes:
        standing: what was logged about the broker, to be shared by the connections of a process.
        on_open: called in its thread whenever it opens, before anything is published over it.
        on_lost: called in its thread when it is lost, before anybody is told what became of a message.
        why: why the last one was lost, until the next one opens.
        undeclared: why the broker refused our declarations, if it did and we went on without them.
    """

    def __init__(
        self,
        url: str,
        queue_type: str = topology.QUORUM,
        *,
        who: str = "publisher",
        standing: Standing | None = None,
        begin: Callable[[Any], object] = lambda _: None,
        needs: tuple[Iterable[str], Iterable[str]] | None = ((topology.EVENTS, topology.REPLAYS), ()),
        blocked_seconds: float | None = None,
    ) -> None:
        """The defaults are the publisher's.

        Args:
            url: of the broker.
            queue_type: of the queues, `quorum` or `classic`.
            who: its name in the log.
            standing: what was logged about the broker so far; without it, its own.
            begin: called with each new channel, to subscribe for example.
            needs: the exchanges and queues that must exist where this user may not declare them; None: go on whatever
                the broker answers to our declarations.
            blocked_seconds: how long the broker may block it before it counts as lost; None: for ever.
        """
        self._parameters = topology.connection_parameters(url)
        self._parameters.blocked_connection_timeout = blocked_seconds
        self._queue_type, self._who, self._begin, self._needs = queue_type, who, begin, needs
        self.standing = standing or Standing()
        self._attempts = Attempts(who, self._parameters.credentials.username, self.standing)
        self.state = State.CONNECTING
        self.on_open: list[Callable[[], object]] = []
        self.on_lost: list[Callable[[], object]] = []
        self.why: BaseException | None = None
        self.undeclared: ChannelClosedByBroker | None = None
        self._outgoing = Outgoing(self.call)
        self._connection: Any = None
        self.channel: Any = None
        self._process = os.getpid()
        self._next_try = 0.0
        self._given_up: Any = None
        """Why we, or the broker on our channel, end a connection: its own end does not say it."""
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._patience = _CLOSE_SECONDS
        self._thread: threading.Thread | None = None
        self._blocked = self._leaving = False

    # --- from any thread

    @property
    def started(self) -> bool:
        """Whether anybody has used its thread."""
        return self._thread is not None

    @property
    def takes_messages(self) -> bool:
        """Whether what is sent now may soon be confirmed: it is open, or may be in a moment."""
        return self.state in (State.CONNECTING, State.OPEN) and not self._blocked

    @property
    def is_open(self) -> bool:
        """Whether it is open, and this process's own: after a fork it is the other one's."""
        return self.state is State.OPEN and self._process == os.getpid()

    def start(self) -> None:
        """Connect, and stay connected, in a thread of its own. Twice is once."""
        with self._lock:
            if self._thread is None and not self._closing.is_set():
                self._thread = threading.Thread(target=self._stay_connected, name="sora-amqp", daemon=True)
                self._thread.start()

    def publish(self, exchange: str, routing_key: str, body: bytes, properties: Any) -> Future[None]:
        """Publish; again over the next connection, if this one is lost.

        Returns:
            Done when the broker has confirmed it; fails with `Nacked`, or with `ConnectionGone` when it is closed.
        """
        done: Future[None] = Future()

        def settled(error: Exception | None) -> None:
            done.set_exception(error) if error is not None else done.set_result(None)

        self._outgoing.add(Item(exchange, routing_key, body, properties, settled, lasting=True))
        self.start()
        self.call(self._outgoing.flush)
        if self.state is State.CLOSED:  # nobody else tells
            self._outgoing.fail(ConnectionGone("the connection to RabbitMQ is closed"), lasting=True)
        return done

    def call(self, function: Callable[[], object]) -> None:
        """Have a function called in the thread, if there is a connection."""
        connection = self._connection
        if connection is not None:
            with suppress(Exception):  # it is being made anew
                connection.ioloop.add_callback_threadsafe(function)

    def close(self, seconds: float = _CLOSE_SECONDS) -> None:
        """Publish what was handed over, for as long as the broker is there, then end. What is left fails."""
        with self._lock:
            self._patience = seconds
            self._closing.set()
        if self._thread is None:
            self.disconnect(seconds)
        else:
            self.call(lambda: None)  # it looks up
            self._thread.join(2 * seconds)
        self.state = State.CLOSED
        self._outgoing.fail(
            ConnectionGone("the connection was closed before RabbitMQ confirmed the message"), lasting=True
        )

    # --- in the thread that uses it

    @hush()
    def run(self, seconds: float = math.inf, until: Callable[[], object] = lambda: False) -> None:
        """Connect once the pause is over, receive, and send, in the thread that calls this.

        Returns after so many seconds, once `until` is true, or when the connection was lost or could not be made.
        """
        deadline = time.monotonic() + seconds
        if self._connection is None or self._process != os.getpid():
            pause = self._next_try - time.monotonic()
            if pause > 0 and (self._closing.wait(min(pause, seconds)) or pause > seconds):
                return
            self._connect()
        connection, timer = self._connection, None
        if seconds < math.inf:
            timer = connection.ioloop.call_later(max(0.0, deadline - time.monotonic()), lambda: None)
        while self._connection is not None and not until():
            self._turn(connection)
            if time.monotonic() >= deadline:
                break
        if self._connection is None:
            connection.ioloop.close()
        elif timer is not None:
            connection.ioloop.remove_timeout(timer)

    def send(
        self, exchange: str, key: str, body: bytes, properties: Any, settled: Settled, *, mandatory: bool = False
    ) -> None:
        """Publish over this very connection, with the next `flush`; `mandatory`: it has to come into a queue."""
        self._outgoing.add(Item(exchange, key, body, properties, settled, mandatory=mandatory))

    def flush(self) -> None:
        """Have what was sent go out."""
        self._outgoing.flush()

    def call_later(self, seconds: float, function: Callable[[], object]) -> None:
        """Have a function called after a while. Lost with the connection."""
        if self._connection is not None:
            self._connection.ioloop.call_later(seconds, function)

    def open_channel(self, begin: Callable[[Any], object]) -> None:
        """Open another channel, for a question that the broker may answer by closing it."""
        self._connection.channel(on_open_callback=begin)

    def give_up(self, why: Any) -> None:
        """Take it for lost, and close it."""
        self._given_up = self._given_up or why
        if not self._leaving:
            self.state = State.AWAY
        # One that is being opened is broken off; in either case it is told as gone.
        if self._connection is not None and not (self._connection.is_closing or self._connection.is_closed):
            self._connection.close()

    @hush()
    def disconnect(self, seconds: float = _CLOSE_SECONDS) -> None:
        """Wait for the confirms of what was sent, while the broker is there; then close. `run` would connect anew."""
        if self._connection is None or self._process != os.getpid():
            return
        self._leaving, called = True, list[bool]()
        self.call(lambda: called.append(True))  # behind what other threads have handed over
        if self.state is State.OPEN:
            self.run(seconds, lambda: self._blocked or (called and not self._outgoing))
        if self._connection is not None:
            self.give_up(None)
            self.run(_BLOCKED_SECONDS if self._blocked else seconds)
        if self._connection is not None:  # a broker in an alarm does not even read that we leave
            self._connection.drop()
            self.run(seconds)
        self._leaving = False
        self.state = State.CLOSED if self._closing.is_set() else State.CONNECTING

    def _stay_connected(self) -> None:
        while not self._closing.is_set():
            self.run(until=self._closing.is_set)
        self.disconnect(self._patience)

    def _connect(self) -> None:
        if self._process != os.getpid():  # the connection is the other process's
            self._forget()
            self._outgoing.lost()
            self.state = State.CONNECTING
        ioloop = IOLoop()
        ioloop.activate_poller()
        self._connection = _SelectConnection(
            self._parameters,
            on_open_callback=lambda _: self.open_channel(partial(self._set_up, declares=True)),
            on_open_error_callback=self._on_gone,
            on_close_callback=self._on_gone,
            custom_ioloop=ioloop,
        )
        self._connection.add_on_connection_blocked_callback(lambda *_: self._on_blocked(now=True))
        self._connection.add_on_connection_unblocked_callback(lambda *_: self._on_blocked(now=False))

    def _turn(self, connection: Any) -> None:
        try:
            connection.ioloop.poll()
            connection.ioloop.process_timeouts()
        except Exception as error:
            # Closed in the middle of its opening, pika fails after it has closed the socket; and a socket that is
            # reset in that moment it takes for a mistake of ours.
            reset = isinstance(error.__context__, OSError)
            if not (reset or self._leaving):
                logger.exception("the connection to RabbitMQ failed", extra={"action": "broker_failed"})
            self._on_gone(connection, error)

    def _set_up(self, channel: Any, *, declares: bool) -> None:
        channel.add_on_close_callback(partial(self._on_channel_closed, declares=declares))
        if declares:
            topology.declare(channel, self._queue_type)
        else:
            topology.expect(channel, *(self._needs or ()))
        self._begin(channel)
        channel.add_on_return_callback(self._outgoing.returned)
        channel.confirm_delivery(self._on_confirm, lambda _: self._on_ready(channel))

    def _on_channel_closed(self, channel: Any, why: Any, *, declares: bool) -> None:
        refused = declares and channel is not self.channel and isinstance(why, ChannelClosedByBroker)
        if refused and (self._needs is None or why.reply_code == ACCESS_REFUSED):
            # This user must not declare, or others have declared it in their way: it may be there all the same.
            self.undeclared = why
            self.open_channel(partial(self._set_up, declares=False))
        else:
            self.give_up(why)

    def _on_ready(self, channel: Any) -> None:
        """The broker has answered, so all before it is as it should be."""
        self.channel, self.why = channel, None
        self._attempts.opened()
        self.state = State.OPEN
        for tell in self.on_open:
            tell()
        self._outgoing.open(channel)

    def _on_confirm(self, frame: Any) -> None:
        self._attempts.lasts()
        self._outgoing.confirmed(frame.method)

    def _on_blocked(self, *, now: bool) -> None:
        self._blocked = now
        self.standing.blocked(self._who, now=now)

    def _on_gone(self, connection: Any, why: Any) -> None:
        if connection is not self._connection:
            return
        why = self._given_up or why
        self._forget()
        for tell in self.on_lost:
            tell()
        if not self._leaving:
            self.state, self.why = State.AWAY, why
            self._next_try = time.monotonic() + self._attempts.lost(why)
        self._outgoing.lost()
        logger.debug("not connected", extra={"action": "broker_away", "error": repr(why)})

    def _forget(self) -> None:
        self._connection = self.channel = self._given_up = self.undeclared = None
        self._blocked, self._process = False, os.getpid()
