"""Connection to RabbitMQ that reconnects whenever it is lost. Publisher, consumers and client share its loop.

The publisher's runs in a thread of its own (`start`); consumers and the client run theirs in their own threads (`run`).
Each passes in what to do on a new channel. Callbacks, and functions given to `call`, must not block.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from enum import Enum
from functools import partial
from typing import Any

from pika.adapters.select_connection import IOLoop
from pika.exceptions import ChannelClosedByBroker

from actors.rabbitmq import topology
from actors.rabbitmq.outgoing import Item, Outgoing, SelectConnection, Settled
from actors.rabbitmq.refusals import ACCESS_REFUSED, Attempts, ConnectionGone, Standing, hush

logger = logging.getLogger(__name__)
_CLOSE_SECONDS = 3.0
_BLOCKED_SECONDS = 0.2


class State(Enum):
    """The state of a connection."""

    CONNECTING = "connecting"
    OPEN = "open"
    AWAY = "away"
    CLOSED = "closed"


class Connection:
    """See the module. Connects on first use; publishing never waits for the broker.

    Attributes:
        standing: what was logged about the broker, shared by the connections of a process.
        on_open: called in its thread whenever it opens, before anything is published over it.
        on_lost: called in its thread when it is lost, before the outcome of any message is reported.
        why: why the last connection was lost, until the next one opens.
        undeclared: why the broker refused our declarations, if we continued without them.
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
            standing: what was logged about the broker so far; by default its own.
            begin: called with each new channel, to subscribe for example.
            needs: the exchanges and queues that must exist if this user may not declare them; None: continue whatever
                the broker answers to our declarations.
            blocked_seconds: how long the broker may block it before it counts as lost; None: forever.
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
        """Why we, or the broker on our channel, end a connection, which the closing itself does not say."""
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._patience = _CLOSE_SECONDS
        self._thread: threading.Thread | None = None
        self._blocked = self._leaving = False

    # --- from any thread

    @property
    def started(self) -> bool:
        """Whether its thread has been started."""
        return self._thread is not None

    @property
    def takes_messages(self) -> bool:
        """Whether a message sent now may soon be confirmed: it is open, or about to be."""
        return self.state in (State.CONNECTING, State.OPEN) and not self._blocked

    @property
    def is_open(self) -> bool:
        """Whether it is open and belongs to this process: after a fork it is the parent's."""
        return self.state is State.OPEN and self._process == os.getpid()

    def start(self) -> None:
        """Connect, and stay connected, in a thread of its own. Idempotent."""
        with self._lock:
            if self._thread is None and not self._closing.is_set():
                self._thread = threading.Thread(target=self._stay_connected, name="sora-amqp", daemon=True)
                self._thread.start()

    def publish(self, exchange: str, routing_key: str, body: bytes, properties: Any) -> Future[None]:
        """Publish; if this connection is lost, again over the next one.

        Returns:
            Done when the broker has confirmed it; fails with `Nacked`, or with `ConnectionGone` when it is closed.
        """
        done: Future[None] = Future()

        def settled(error: Exception | None) -> None:
            done.set_exception(error) if error is not None else done.set_result(None)

        self._outgoing.add(Item(exchange, routing_key, body, properties, settled, lasting=True))
        self.start()
        self.call(self._outgoing.flush)
        if self.state is State.CLOSED:  # nobody else would report it
            self._outgoing.fail(ConnectionGone("the connection to RabbitMQ is closed"), lasting=True)
        return done

    def call(self, function: Callable[[], object]) -> None:
        """Call a function in its thread, if there is a connection."""
        connection = self._connection
        if connection is not None:
            with suppress(Exception):  # it is reconnecting
                connection.ioloop.add_callback_threadsafe(function)

    def close(self, seconds: float = _CLOSE_SECONDS) -> None:
        """Publish what is pending while the broker is reachable, then end. The rest fails."""
        with self._lock:
            self._patience = seconds
            self._closing.set()
        if self._thread is None:
            self.disconnect(seconds)
        else:
            self.call(lambda: None)  # wakes it
            self._thread.join(2 * seconds)
        self.state = State.CLOSED
        self._outgoing.fail(
            ConnectionGone("the connection was closed before RabbitMQ confirmed the message"), lasting=True
        )

    # --- in the thread that uses it

    @hush()
    def run(self, seconds: float = math.inf, until: Callable[[], object] = lambda: False) -> None:
        """Connect after the pause, then receive and send, in the calling thread.

        Returns after so many seconds, when `until` is true, or when the connection is lost or could not be made.
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
        """Publish over this connection only, with the next `flush`; `mandatory`: it must reach a queue."""
        self._outgoing.add(Item(exchange, key, body, properties, settled, mandatory=mandatory))

    def flush(self) -> None:
        """Send what is pending."""
        self._outgoing.flush()

    def call_later(self, seconds: float, function: Callable[[], object]) -> None:
        """Call a function later. Dropped with the connection."""
        if self._connection is not None:
            self._connection.ioloop.call_later(seconds, function)

    def open_channel(self, begin: Callable[[Any], object]) -> None:
        """Open another channel, for a request that the broker may answer by closing it."""
        self._connection.channel(on_open_callback=begin)

    def give_up(self, why: Any) -> None:
        """Treat it as lost, and close it."""
        self._given_up = self._given_up or why
        if not self._leaving:
            self.state = State.AWAY
        # One that is being opened is aborted; either way it is reported as gone.
        if self._connection is not None and not (self._connection.is_closing or self._connection.is_closed):
            self._connection.close()

    @hush()
    def disconnect(self, seconds: float = _CLOSE_SECONDS) -> None:
        """Wait for pending confirms while the broker is reachable, then close. `run` would reconnect."""
        if self._connection is None or self._process != os.getpid():
            return
        self._leaving, called = True, list[bool]()
        self.call(lambda: called.append(True))  # after what other threads have handed over
        if self.state is State.OPEN:
            self.run(seconds, lambda: self._blocked or (called and not self._outgoing))
        if self._connection is not None:
            self.give_up(None)
            self.run(_BLOCKED_SECONDS if self._blocked else seconds)
        if self._connection is not None:  # a broker in an alarm does not even read our closing
            self._connection.drop()
            self.run(seconds)
        self._leaving = False
        self.state = State.CLOSED if self._closing.is_set() else State.CONNECTING

    def _stay_connected(self) -> None:
        while not self._closing.is_set():
            self.run(until=self._closing.is_set)
        self.disconnect(self._patience)

    def _connect(self) -> None:
        if self._process != os.getpid():  # the connection belongs to the parent process
            self._forget()
            self._outgoing.lost()
            self.state = State.CONNECTING
        ioloop = IOLoop()
        ioloop.activate_poller()
        self._connection = SelectConnection(
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
            # When closed while opening, pika fails after it has closed the socket; and it takes a socket that is
            # reset at that moment for our mistake.
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
            # This user must not declare, or others declared it differently: it may exist all the same.
            self.undeclared = why
            self.open_channel(partial(self._set_up, declares=False))
        else:
            self.give_up(why)

    def _on_ready(self, channel: Any) -> None:
        """The broker has answered, so everything before this is in place."""
        self.channel, self.why = channel, None
        self._attempts.opened()
        self.state = State.OPEN
        for tell in self.on_open:
            tell()
        self._outgoing.open(channel)

    def _on_confirm(self, frame: Any) -> None:  # crash point: confirm
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
