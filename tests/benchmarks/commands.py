"""How fast `sora-batch serve` takes commands, and what it needs: `python -m tests.benchmarks.commands`.

Starts a RabbitMQ node of its own and a `serve` on SQLite, on loopback, and ends them. Prints a table:

- creates: how many `create` a second are accepted, each answered;
- memory: how much the service holds after 10,000 events and after 100,000;
- idle: how much of a core it needs with nothing to do.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pika

from actors.rabbitmq import topology
from tests.servers.rabbitmq import RabbitMQ

ROOT = Path(__file__).parents[2]
CREATES = 3000
VIDEOS, IDLE_SECONDS = 100, 20.0
EVENTS_EARLY, EVENTS = 10_000, 100_000
_PATIENCE = 300.0


class Application:
    """Publishes commands, as many as it likes, and counts what is told."""

    def __init__(self, url: str) -> None:
        self._connection = pika.BlockingConnection(pika.URLParameters(url))
        self._channel = self._connection.channel()
        topology.declare(self._channel)
        queue = self._channel.queue_declare("", exclusive=True).method.queue
        self._channel.queue_bind(queue, topology.EVENTS, "#")
        self._channel.basic_consume(queue, self._hear, auto_ack=True)
        self.answers: list[str] = []
        self.events = 0

    def _hear(self, _: Any, method: Any, __: Any, ___: bytes) -> None:
        if method.routing_key.startswith("command."):
            self.answers.append(method.routing_key)
        else:
            self.events += 1

    def send(self, name: str, data: dict[str, Any]) -> None:
        command = {"specversion": "1.0", "id": str(uuid.uuid4()), "source": "/bench", "type": f"sora-batch.{name}.v1"}
        properties = pika.BasicProperties(content_type="application/cloudevents+json", delivery_mode=2)
        self._channel.basic_publish(topology.COMMANDS, name, json.dumps({**command, "data": data}).encode(), properties)

    def hear(self, *, answers: int = 0, events: int = 0) -> None:
        """Wait until so many were told."""
        deadline = time.monotonic() + _PATIENCE
        while len(self.answers) < answers or self.events < events:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(self.answers)} of {answers} answers, {self.events} of {events} events")
            self._connection.process_data_events(0.05)

    def close(self) -> None:
        self._connection.close()


@contextmanager
def serving(url: str, folder: str) -> Iterator[int]:
    """A service; gives its process id."""
    environment = {
        "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "AMQP_URL": url, "BATCH_MAX_SIZE": str(VIDEOS),
        "DATABASE_URL": f"sqlite:///{folder}/batches.db", "VIDEO_DIR": f"{folder}/videos", "LOG_LEVEL": "error",
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "actors.cli", "serve", "--simulate"], env=environment, cwd=folder,
        stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def megabytes(pid: int) -> float:
    """What a process holds in memory."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) / 1024


def cpu_seconds(pid: int) -> float:
    """What a process has used of the processor."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def creates(application: Application) -> float:
    """Accepted creates a second; each makes a batch that nobody wants yet."""
    application.send("create", {"videos": [{"prompt": "warm"}], "process": False})
    application.hear(answers=1)
    began = time.perf_counter()
    for number in range(CREATES):
        application.send("create", {"videos": [{"prompt": f"video {number}"}], "process": False})
    application.hear(answers=1 + CREATES)
    seconds = time.perf_counter() - began
    assert all(key.startswith("command.accepted.") for key in application.answers), "some were rejected"
    return CREATES / seconds


def memory(application: Application, pid: int) -> tuple[float, float]:
    """MB after some events and after ten times as many: of batches that are created and cancelled."""
    held, number, seen = [], 0, application.events
    for count in (EVENTS_EARLY, EVENTS):
        while application.events - seen < count:
            batch_id, answered = f"memory-{number}", len(application.answers)
            prompts = [{"prompt": f"video {index}"} for index in range(VIDEOS)]
            application.send("create", {"id": batch_id, "videos": prompts, "process": False})
            application.hear(answers=answered + 1)
            application.send("cancel", {"batch_id": batch_id})
            application.hear(answers=answered + 2)
            number += 1
        held.append(megabytes(pid))
    return held[0], held[1]


def main() -> None:
    with RabbitMQ() as node, tempfile.TemporaryDirectory() as folder, serving(node.url, folder) as pid:
        application = Application(node.url)
        rate = creates(application)
        early, late = memory(application, pid)
        application.close()
        used, began = cpu_seconds(pid), time.perf_counter()
        threading.Event().wait(IDLE_SECONDS)  # the span that is measured
        idle = (cpu_seconds(pid) - used) / (time.perf_counter() - began)
    print(f"{'creates accepted and answered':<44} {rate:8.0f} /s    goal 300")
    print(f"{f'memory after {EVENTS_EARLY} and {EVENTS} events':<44} {early:8.1f} {late:8.1f} MB")
    print(f"{'idle':<44} {100 * idle:8.2f} % of a core    goal below 1")


if __name__ == "__main__":
    main()
