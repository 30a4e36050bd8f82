"""The task of the dramatiq group, as its workers import it: one video with the official SDK.

Results would need Redis or memcached, so an ended task adds a byte to a file. Retries are dramatiq's own, and
pay again.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import dramatiq
import openai
from dramatiq.brokers.rabbitmq import RabbitmqBroker

from tests.benchmarks.peers.stage import Order

READY, ENDED = "ready", "ended"


class Ready(dramatiq.Middleware):
    """Tells that a worker has started."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def after_worker_boot(self, _broker: dramatiq.Broker, _worker: dramatiq.Worker) -> None:
        add_byte(self._folder / READY)


def task_of(order: Order) -> tuple[RabbitmqBroker, Any]:
    """The broker and the task for an order."""
    broker = RabbitmqBroker(url=order.amqp_url)
    broker.add_middleware(Ready(order.folder))
    client = openai.OpenAI(base_url=order.base_url, api_key="key", max_retries=10)

    @dramatiq.actor(broker=broker, queue_name=f"benchmark-{order.folder.name}", actor_name="make")
    def make(prompt: str) -> None:
        poll = int(1000 * order.poll)
        video = client.videos.create_and_poll(prompt=prompt, poll_interval_ms=poll)
        if video.status == "completed":
            client.videos.download_content(video.id).write_to_file(order.folder / f"{video.id}.mp4")
        add_byte(order.folder / ENDED)

    return broker, make


def add_byte(path: Path) -> None:
    """Add one to a count that several processes add to."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, b".")
    finally:
        os.close(descriptor)


def count(path: Path) -> int:
    """How many were added."""
    return path.stat().st_size if path.exists() else 0


if order := os.environ.get("BENCHMARK_ORDER"):  # only in a worker
    warnings.filterwarnings("ignore", "The Sora API is scheduled", DeprecationWarning)
    broker, make = task_of(Order.parse(order))
