"""A dramatiq group on RabbitMQ: a process that sends it, and dramatiq's own workers, one a core, with all threads."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import Any

import dramatiq

from tests.benchmarks.peers import dramatiq_tasks as tasks
from tests.benchmarks.peers.stage import Order, perform

_PATIENCE, _LOOK = 50.0, 0.005


class Group:
    def __init__(self, order: Order) -> None:
        self._order = order
        self._processes = min(os.cpu_count() or 1, order.concurrency)
        self._workers: subprocess.Popen[bytes] | None = None

    def open(self) -> None:
        threads = -(-self._order.concurrency // self._processes)
        command = [sys.executable, "-m", "dramatiq", f"{tasks.__name__}:broker", "--skip-logging"]
        sizes = ["--processes", str(self._processes), "--threads", str(threads)]
        self._workers = subprocess.Popen(
            [*command, *sizes], env={**os.environ, "BENCHMARK_ORDER": sys.argv[1]}, stdin=subprocess.DEVNULL
        )
        self._broker, self._task = tasks.task_of(self._order)
        self._wait(tasks.READY, self._processes, _PATIENCE)

    def run(self) -> dict[str, Any]:
        dramatiq.group((self._task.message(prompt) for prompt in self._order.prompts), broker=self._broker).run()
        self._wait(tasks.ENDED, self._order.videos)
        return {}

    def close(self) -> dict[str, Any]:
        if self._workers is not None:
            self._workers.terminate()
            self._workers.wait()
        self._broker.channel.queue_delete(self._task.queue_name)
        self._broker.close()
        return {}

    def _wait(self, what: str, number: int, seconds: float | None = None) -> None:
        """Look until so many were told; in the end whoever measures this gives it up."""
        pause, left = threading.Event(), seconds
        while tasks.count(self._order.folder / what) < number:
            pause.wait(_LOOK)
            if left is not None and (left := left - _LOOK) < 0:
                raise TimeoutError(f"the workers were not there within {seconds} s")


if __name__ == "__main__":
    perform(Group)
