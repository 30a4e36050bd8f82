"""A subscriber: a durable queue on the events' exchange, and what came through it in the order of its arrival."""

from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any, Self

import pika

from actors.rabbitmq.topology import EVENTS
from actors.service import BatchService
from tests.integration.support import PATIENCE

ENDS = {"batch.completed", "batch.partial", "batch.failed", "batch.cancelled"}


@dataclass(frozen=True)
class Arrival:
    key: str
    body: bytes
    properties: Any

    @property
    def batch_id(self) -> str:
        return self.key.split(".")[2]

    @property
    def name(self) -> str:
        return ".".join(self.key.split(".")[:2])

    @property
    def sequence(self) -> int:
        return int(self.properties.message_id.rpartition(":")[2])


class Subscriber:
    """Acknowledges what it has noted, so that it loses nothing with a connection; its queue outlives the node."""

    def __init__(self, url: str, queue: str = "subscriber", key: str = "#", **arguments: Any) -> None:
        self.arrivals: list[Arrival] = []
        self._newest: dict[str, int] = {}
        self._url, self._queue, self._key = url, queue, key
        self._arguments = {name.replace("_", "-"): value for name, value in arguments.items()}
        self._connection: Any = None
        self._connect(monotonic() + PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(pika.exceptions.AMQPError):
            self._connection.close()

    def _connect(self, deadline: float) -> None:
        while True:
            try:
                self._connection = pika.BlockingConnection(pika.URLParameters(self._url))
                self._channel = self._connection.channel()
                self._channel.exchange_declare(EVENTS, "topic", durable=True)
                self._channel.queue_declare(self._queue, durable=True, arguments=self._arguments)
                self._channel.queue_bind(self._queue, EVENTS, self._key)
            except (pika.exceptions.AMQPError, OSError):
                if monotonic() > deadline:
                    raise
            else:
                return

    def hear_until(self, enough: Callable[[], bool], patience: float = PATIENCE) -> None:
        """Take what comes until it is enough, over as many connections as that needs."""
        deadline = monotonic() + patience
        while not enough():
            if monotonic() > deadline:
                counts = {batch_id: (len(told), told[-1]) for batch_id, told in self.sequences().items()}
                raise TimeoutError(f"not enough came within {patience} s; of each batch (count, last): {counts}")
            try:
                self._take(enough, deadline)
            except (pika.exceptions.AMQPError, OSError):
                self._connect(deadline)

    def _take(self, enough: Callable[[], bool], deadline: float) -> None:
        self._channel.basic_qos(prefetch_count=500)
        for method, properties, body in self._channel.consume(self._queue, inactivity_timeout=0.1):
            if method is not None:
                self._note(Arrival(method.routing_key, body, properties))
                self._channel.basic_ack(method.delivery_tag)
            if enough() or monotonic() > deadline:
                break
        self._channel.cancel()

    def _note(self, arrival: Arrival) -> None:
        self.arrivals.append(arrival)
        self._newest[arrival.batch_id] = max(arrival.sequence, self._newest.get(arrival.batch_id, 0))

    def hear_ends(self, *batch_ids: str, patience: float = PATIENCE) -> None:
        """Take what comes until these batches have ended."""
        self.hear_until(lambda: set(batch_ids) <= self.ended(), patience)

    def hear_all(self, last: dict[str, int], patience: float = PATIENCE) -> None:
        """Take what comes until each batch's event of this number was there."""
        self.hear_until(lambda: all(self._newest.get(each, 0) >= last[each] for each in last), patience)

    def ended(self) -> set[str]:
        return {each.batch_id for each in self.arrivals if each.name in ENDS}

    def sequences(self) -> dict[str, list[int]]:
        """Of each batch, the numbers as they came."""
        told = defaultdict(list)
        for each in self.arrivals:
            told[each.batch_id].append(each.sequence)
        return dict(told)


def first_appearances(told: list[int]) -> list[int]:
    return list(dict.fromkeys(told))


def check_told(subscriber: Subscriber, service: BatchService, *batch_ids: str) -> None:
    """All that is recorded of these batches was told: first appearances in order, without a gap, byte for byte."""
    sequences = subscriber.sequences()
    for batch_id in batch_ids:
        recorded = service.recorded(batch_id)
        assert first_appearances(sequences[batch_id]) == [event.sequence for event in recorded]
        bodies = {event.sequence: event.body.encode() for event in recorded}
        for arrival in subscriber.arrivals:
            if arrival.batch_id == batch_id:
                assert arrival.body == bodies[arrival.sequence]
