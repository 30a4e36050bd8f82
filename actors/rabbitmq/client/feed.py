"""Events as they arrive: an iterator over a connection that reconnects, and the feed of all that match some keys."""

from __future__ import annotations

import math
import threading
from abc import abstractmethod
from collections import OrderedDict
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from actors.rabbitmq.client.calls import Broker
from actors.rabbitmq.client.rpc import LOST, Received, RpcConnection
from actors.rabbitmq.refusals import Standing
from actors.rabbitmq.topology import EVENTS

T = TypeVar("T")
TICK = 0.5
"""Seconds: how often one that waits looks whether it was closed."""
_REMEMBERED = 10_000


class Source(Generic[T]):
    """An iterator and context manager over a connection that reconnects whenever it is lost."""

    def __init__(self, broker: Broker, bindings: list[tuple[str, str]]) -> None:
        self._broker = broker
        self._line = RpcConnection(broker.url, broker.queue_type, *bindings, standing=Standing())
        self._lock = threading.Lock()
        self._closed = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. A `next` that waits in another thread ends soon."""
        self._closed.set()
        with self._lock:
            self._line.close()

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self._closed.is_set()

    @abstractmethod
    def next(self, timeout: float) -> T | None:
        """The next item; None: none came within the timeout."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        while not self._closed.is_set():
            item = self.next(TICK)
            if item is not None:
                return item
        raise StopIteration

    def _connect(self) -> None:
        """The first connection.

        Raises:
            Unanswered: the broker is unreachable.
        """
        try:
            self._open()
        except LOST as error:
            raise self._broker.unreachable(error) from error

    def _open(self, seconds: float = math.inf) -> None:
        """Connect if needed; subclasses add what to send over each new connection."""
        self._line.open(seconds)

    def _receive(self, seconds: float) -> Received | None:
        """The next message; None: none came in time, or the broker is unreachable."""
        try:
            self._open(seconds)
            return self._line.receive(seconds)
        except LOST as error:
            self._line.give_up(error)
            return None


class EventFeed(Source[dict[str, Any]]):
    """All events that match some keys, as they arrive: CloudEvents documents. Begins now; never ends by itself.

    Repeated events are dropped; events published while the connection is lost are missed.
    """

    def __init__(self, broker: Broker, *keys: str) -> None:
        """Subscribe.

        Args:
            broker: RabbitMQ.
            keys: as in the bindings of a topic exchange: `batch.completed.#`.

        Raises:
            Unanswered: RabbitMQ is unreachable.
        """
        super().__init__(broker, [(EVENTS, key) for key in keys])
        self._known: OrderedDict[str, None] = OrderedDict()
        self._connect()

    def next(self, timeout: float) -> dict[str, Any] | None:
        """The next item; None: none came within the timeout."""
        with self._lock:
            told = None if self._closed.is_set() else self._receive(timeout)
        return told.document if told is not None and self._is_new(str(told.document.get("id"))) else None

    def _is_new(self, identity: str) -> bool:
        if identity in self._known:
            return False
        self._known[identity] = None
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return True
