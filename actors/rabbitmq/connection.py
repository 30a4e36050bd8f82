"""ConfirmedPublisher: publishes over one connection, many messages at a time, each with its Future.

Owns a thread and a connection in it, which is made anew whenever it is lost; what was not confirmed by then is
published again, in its order. Knows nothing of what it publishes.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pika
from pika.exceptions import AMQPError

from actors.rabbitmq import topology

logger = logging.getLogger(__name__)
WINDOW = 200
_RECONNECT_SECONDS = 1.0
_CLOSE_SECONDS = 3.0


class NotTaken(Exception):
    """The broker refused a message: a queue that it should have gone into is full."""


class PublisherClosed(Exception):
    """The publisher was closed before the message was confirmed."""


@dataclass(slots=True)
class _Item:
    exchange: str
    routing_key: str
    body: bytes
    properties: Any
    done: Future[None] = field(default_factory=Future)


class ConfirmedPublisher:
    """See the module. Connects when it is started; publishing never waits for the broker."""

    def __init__(self, url: str) -> None:
        self._parameters = topology.connection_parameters(url)
        self._todo: deque[_Item] = deque()
        self._flying: dict[int, _Item] = {}
        self._tag = 0
        self._connection: Any = None
        self._channel: Any = None
        self._away = False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="amqp-publisher", daemon=True)

    def start(self) -> None:
        """Connect, and stay connected."""
        self._thread.start()

    def publish(self, exchange: str, routing_key: str, body: bytes, properties: Any) -> Future[None]:
        """Publish; from any thread.

        Returns:
            Done when the broker has confirmed it; fails with `NotTaken` or `PublisherClosed`.
        """
        item = _Item(exchange, routing_key, body, properties)
        if self._closing.is_set():
            item.done.set_exception(PublisherClosed("the publisher is closed"))
            return item.done
        self._todo.append(item)
        self._wake(self._pump)
        return item.done

    def close(self) -> None:
        """Publish what was handed over, for as long as the broker is there, then end. What is left fails."""
        waiting = [item.done for item in [*self._flying.values(), *self._todo]]
        if self._channel is not None:
            for done in waiting:
                with suppress(Exception):
                    done.result(_CLOSE_SECONDS)
        self._closing.set()
        self._wake(self._close_connection)
        if self._thread.is_alive():
            self._thread.join(_CLOSE_SECONDS)
        for item in [*self._flying.values(), *self._todo]:
            if not item.done.done():
                item.done.set_exception(PublisherClosed("the publisher was closed before the broker confirmed this"))

    # --- in the thread

    def _run(self) -> None:
        while not self._closing.is_set():
            self._connection = pika.SelectConnection(
                self._parameters,
                on_open_callback=lambda connection: connection.channel(on_open_callback=self._on_channel),
                on_open_error_callback=self._on_gone,
                on_close_callback=self._on_gone,
            )
            try:
                self._connection.ioloop.start()
            except Exception as error:
                logger.exception("the publisher's connection failed", extra={"action": "publisher_failed"})
                self._on_gone(self._connection, error)
            finally:
                self._connection.ioloop.close()
            self._closing.wait(_RECONNECT_SECONDS)

    def _on_channel(self, channel: Any) -> None:
        channel.add_on_close_callback(lambda *_: self._close_connection())
        topology.declare(channel)
        channel.confirm_delivery(self._on_confirm)
        self._channel, self._tag = channel, 0
        if self._away:
            self._away = False
            logger.info("RabbitMQ is back", extra={"action": "broker_back"})
        self._todo.extendleft(reversed(self._flying.values()))
        self._flying.clear()
        self._pump()

    def _on_gone(self, connection: Any, why: Any) -> None:
        self._channel = None
        if not self._away and not self._closing.is_set():
            self._away = True
            logger.warning("RabbitMQ is away; trying again", extra={"action": "broker_away", "error": repr(why)})
        connection.ioloop.stop()

    def _on_confirm(self, frame: Any) -> None:
        method = frame.method
        tags = [tag for tag in self._flying if tag <= method.delivery_tag] if method.multiple else [method.delivery_tag]
        for tag in tags:
            item = self._flying.pop(tag, None)
            if item is None:
                continue
            if isinstance(method, pika.spec.Basic.Ack):
                item.done.set_result(None)
            else:
                item.done.set_exception(NotTaken(f"the broker refused a message for {item.exchange!r}"))
        self._pump()

    def _pump(self) -> None:
        with suppress(AMQPError):  # lost just now: what flies is published again
            while self._channel is not None and self._todo and len(self._flying) < WINDOW:
                item = self._todo.popleft()
                self._tag += 1
                self._flying[self._tag] = item
                self._channel.basic_publish(item.exchange, item.routing_key, item.body, item.properties)

    def _close_connection(self) -> None:
        connection = self._connection
        if connection.is_open:
            connection.close()
        elif not connection.is_closing:
            connection.ioloop.stop()

    def _wake(self, call: Any) -> None:
        connection = self._connection
        if connection is not None:
            with suppress(Exception):  # it is being made anew: it looks when it is there
                connection.ioloop.add_callback_threadsafe(call)
