"""What readers of streams cost: `python -m tests.benchmarks.readers`.

Memory of a service with 1,000 readers of one batch, and how long after a COMMIT an event comes to a reader of its
stream, and to a subscriber of RabbitMQ.
"""

from __future__ import annotations

import json
import os
import socket
import tempfile
import threading
from pathlib import Path
from time import perf_counter
from typing import Any

import pika

from actors.service import BatchService
from actors.settings import Settings
from actors.web.listener import Listener
from tests.integration.support import until
from tests.servers.rabbitmq import RabbitMQ

READERS, EVENTS = 1000, 300
_PAUSE = 0.02


def reader(port: int) -> socket.socket:
    """A reader whose stream has begun, from the second event on."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    lines = (
        "GET /api/v1/batches/b/events HTTP/1.1",
        "Host: localhost",
        "Accept: text/event-stream",
        "Last-Event-ID: 1",
    )
    connection.sendall("\r\n".join((*lines, "", "")).encode())
    begun = b""
    while b":\n\n" not in begun:
        begun += connection.recv(65536)
    return connection


def memory() -> float:
    """MB of this process."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def cost_of_readers(port: int) -> float:
    """MB that the readers cost; their own ends are in a child."""
    before = memory()
    begun, end = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        readers = [reader(port) for _ in range(READERS)]
        os.write(begun[1], b"x")
        os.read(end[0], 1)
        os._exit(len(readers) != READERS)
    os.read(begun[0], 1)
    cost = memory() - before
    os.write(end[1], b"x")
    os.waitpid(child, 0)
    return cost


def read_stream(port: int, came: dict[int, float]) -> None:
    connection, rest = reader(port), b""
    while piece := connection.recv(65536):
        now = perf_counter()
        *blocks, rest = (rest + piece).split(b"\n\n")
        came.update({int(block.split(b"id: ")[1].split(b"\n")[0]): now for block in blocks if b"id: " in block})


def subscribe(url: str, came: dict[int, float], ready: threading.Event) -> None:
    channel = pika.BlockingConnection(pika.URLParameters(url)).channel()
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(queue, "sora.batch.events", "batch.updated.#")
    ready.set()
    for _, _, body in channel.consume(queue, auto_ack=True):
        came[int(json.loads(body)["sequence"])] = perf_counter()


def latencies(service: BatchService, port: int, url: str) -> dict[str, list[float]]:
    """Seconds from the COMMIT, for each event, in order of length."""
    committed: dict[int, float] = {}
    came: dict[str, dict[int, float]] = {"stream": {}, "RabbitMQ": {}}
    service.listen(lambda events: committed.update({event.sequence: perf_counter() for event in events}))
    ready = threading.Event()
    threading.Thread(target=subscribe, args=(url, came["RabbitMQ"], ready), daemon=True).start()
    threading.Thread(target=read_stream, args=(port, came["stream"]), daemon=True).start()
    ready.wait(60)
    for number in range(EVENTS):
        service.update_metadata("b", {"number": number})
        threading.Event().wait(_PAUSE)
    until(lambda: all(len(each) == EVENTS for each in came.values()))
    return {name: sorted(each[number] - committed[number] for number in committed) for name, each in came.items()}


def main() -> None:
    with RabbitMQ() as rabbitmq, tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = {"database_url": f"sqlite:///{folder}/batches.db", "video_dir": folder}
        with BatchService(Settings(_env_file=None, **options, amqp_url=rabbitmq.url), simulate=True) as service:
            listener = Listener(service, "0", None)
            service.create_batch({"videos": [{"prompt": "a lake"}], "id": "b"})
            print(f"{READERS} readers: {cost_of_readers(listener.port):.0f} MB", flush=True)
            for name, seconds in latencies(service, listener.port, rabbitmq.url).items():
                median, late = seconds[len(seconds) // 2], seconds[len(seconds) * 95 // 100]
                print(f"from COMMIT, {name}: median {median * 1000:.1f} ms, 95 % {late * 1000:.1f} ms", flush=True)
            listener.close()


if __name__ == "__main__":
    main()
