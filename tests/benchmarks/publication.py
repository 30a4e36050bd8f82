"""How fast events are published, beside pika alone in the same run: `python -m tests.benchmarks.publication`.

Starts a RabbitMQ node of its own, on loopback, and ends it. Prints a table:

- latency: from an event's COMMIT (for pika alone: from the publish) to its arrival at a subscriber, at 50 a second;
- rate: how many events a second are published and confirmed, of the same size, with as many unconfirmed messages.
"""

from __future__ import annotations

import json
import queue
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

import pika

from actors.rabbitmq import topology
from actors.rabbitmq.connection import Connection, State
from actors.rabbitmq.outgoing import properties_of
from actors.rabbitmq.publisher import EventPublisher
from storage.database import Database
from storage.recorder import Recorder
from storage.records import EventRecord
from storage.storage import Storage
from tests.servers.rabbitmq import RabbitMQ

LATENCY_EVENTS, PER_SECOND = 500, 50
RATE_EVENTS = 20_000
PADDING = "x" * 700


def event(batch_id: str, sequence: int) -> EventRecord:
    document = {"id": f"{batch_id}:{sequence:010d}", "data": {"batch_id": batch_id, "padding": PADDING}}
    return EventRecord(
        batch_id=batch_id, sequence=sequence, type="job.progressed", key=f"job.progressed.{batch_id}.{batch_id}-01",
        body=json.dumps(document), created_at=time.time(),
    )  # fmt: skip


class Subscriber:
    """Notes when each message arrives, in a thread of its own."""

    def __init__(self, url: str) -> None:
        self.arrived: dict[str, float] = {}
        self._ready = threading.Event()
        self._url = url
        threading.Thread(target=self._run, daemon=True).start()
        self._ready.wait()

    def _run(self) -> None:
        channel = pika.BlockingConnection(pika.URLParameters(self._url)).channel()
        topology.declare(channel)
        name = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(name, topology.EVENTS, "#")
        self._ready.set()
        with suppress(pika.exceptions.AMQPError):  # the node ends with the benchmark
            for method, properties, _ in channel.consume(name, auto_ack=True):
                if method is not None:
                    self.arrived[properties.message_id] = time.perf_counter()

    def wait_for(self, count: int) -> None:
        pause, deadline = threading.Event(), time.monotonic() + 120
        while len(self.arrived) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(self.arrived)} of {count} arrived")
            pause.wait(0.005)


class Ours:
    """The journal, its recorder and its publisher."""

    def __init__(self, url: str, folder: Path) -> None:
        self.database = Database(f"sqlite:///{folder}/test.db")
        self.database.open()
        self.storage, self.recorder = Storage(self.database), Recorder(self.database)
        self.recorder.write(lambda: self.storage.publications.begin(backlog=False)).result()
        self.connection = Connection(url)
        self.publisher = EventPublisher(self.connection, self.storage, self.recorder)
        self.publisher.start()
        pause = threading.Event()
        while self.connection.state is not State.OPEN:  # what is recorded before is found by its batch's row: none here
            pause.wait(0.01)

    def record(self, events: list[EventRecord]) -> Future[None]:
        return self.recorder.write(lambda: self.storage.journal.append(events))

    def close(self) -> None:
        self.publisher.close(10)
        self.connection.close()
        self.recorder.close()
        self.database.close()


def at_a_pace(act: Callable[[int], float]) -> dict[int, float]:
    """Do something 50 times a second; give the moments that it tells."""
    pause, began, moments = threading.Event(), time.perf_counter(), {}
    for number in range(1, LATENCY_EVENTS + 1):
        pause.wait(max(0.0, began + number / PER_SECOND - time.perf_counter()))
        moments[number] = act(number)
    return moments


def latencies(subscriber: Subscriber, prefix: str, moments: dict[int, float]) -> tuple[float, float]:
    subscriber.wait_for(len(moments))
    waits = sorted(1000 * (subscriber.arrived[f"{prefix}:{n:010d}"] - moment) for n, moment in moments.items())
    return statistics.median(waits), waits[int(len(waits) * 0.99) - 1]


def pika_latency(url: str) -> tuple[float, float]:
    subscriber, connection = Subscriber(url), Connection(url)
    connection.start()

    def publish(number: int) -> float:
        one = event("pika", number)
        moment = time.perf_counter()
        properties = pika.BasicProperties(message_id=f"pika:{number:010d}", delivery_mode=2)
        connection.publish(topology.EVENTS, one.key, one.body.encode(), properties)
        return moment

    try:
        return latencies(subscriber, "pika", at_a_pace(publish))
    finally:
        connection.close()


def our_latency(url: str, folder: Path) -> tuple[float, float]:
    subscriber, ours = Subscriber(url), Ours(url, folder)

    def record(number: int) -> float:
        ours.record([event("ours", number)]).result()
        return time.perf_counter()

    try:
        return latencies(subscriber, "ours", at_a_pace(record))
    finally:
        ours.close()


def pika_rate(url: str, window: int) -> float:
    """One SelectConnection that keeps `window` messages unconfirmed, and does nothing else."""
    done: queue.SimpleQueue[float] = queue.SimpleQueue()
    one = event("pika", 1)
    body, properties = one.body.encode(), properties_of(one)
    state = {"sent": 0, "confirmed": 0, "began": 0.0}

    def opened(channel: Any) -> None:
        def pump() -> None:
            while state["sent"] < RATE_EVENTS and state["sent"] - state["confirmed"] < window:
                state["sent"] += 1
                channel.basic_publish(topology.EVENTS, one.key, body, properties)

        def confirmed(frame: Any) -> None:
            state["confirmed"] = frame.method.delivery_tag
            if state["confirmed"] >= RATE_EVENTS:
                done.put(time.perf_counter() - state["began"])
                channel.connection.ioloop.stop()
            pump()

        channel.confirm_delivery(confirmed)
        state["began"] = time.perf_counter()
        pump()

    connection = pika.SelectConnection(
        pika.URLParameters(url), on_open_callback=lambda it: it.channel(on_open_callback=opened)
    )
    connection.ioloop.start()
    return RATE_EVENTS / done.get()


def our_rate(url: str, folder: Path) -> float:
    """Events that lie in the journal, until all are marked."""
    ours = Ours(url, folder)
    try:
        began = time.perf_counter()
        for start in range(0, RATE_EVENTS, 1000):
            ours.record([event(f"b{start}", number) for number in range(1, 1001)]).result()
        recorded = time.perf_counter() - began
        pause = threading.Event()
        while (marked := _marked(ours)) < RATE_EVENTS:
            pause.wait(0.01)
        print(f"  (recording took {recorded:.2f} s of {time.perf_counter() - began:.2f} s, {marked} marked)")
        return RATE_EVENTS / (time.perf_counter() - began)
    finally:
        ours.close()


def _marked(ours: Ours) -> int:
    sql = "SELECT COALESCE(SUM(published), 0) FROM publications"
    return int(ours.database.read(lambda: ours.database.execute(sql).fetchone()[0]))


def main() -> int:
    with RabbitMQ() as node, tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        alone, ours = pika_latency(node.url), our_latency(node.url, Path(first))
        print(f"latency at {PER_SECOND}/s, median and 99 %: pika alone {alone[0]:.1f} and {alone[1]:.1f} ms, ", end="")
        print(f"ours {ours[0]:.1f} and {ours[1]:.1f} ms ({ours[0] / alone[0]:.1f} x, {ours[1] / alone[1]:.1f} x)")
        bare, own = pika_rate(node.url, 200), our_rate(node.url, Path(second))
        print(f"rate, 200 unconfirmed: pika alone {bare:.0f}/s, ours {own:.0f}/s ({own / bare:.0%})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
