"""sora-batch, as a program uses it: a BatchService on SQLite, everything recorded and flushed."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections import Counter
from itertools import count
from typing import Any

import peewee

import actors.runtime  # noqa: F401  (what the first batch would import)
from actors.service import BatchService
from actors.settings import Settings
from tests.benchmarks.peers.stage import Order, perform

_LONGEST = 3_600_000
_ENDING = 10.0
"""Seconds in which a thread for blocking calls sees that it is to end: a close does not wait for that."""


class Ours:
    def __init__(self, order: Order) -> None:
        self._order = order
        self._settings = Settings(
            _env_file=None, openai_base_url=order.base_url, openai_api_key="key", video_dir=str(order.folder / "videos"),
            database_url=f"sqlite:///{order.folder}/batches.db", sora_poll_interval=1000 * order.poll,
            batch_max_size=10_000, batch_timeout=0, amqp_url=order.amqp_url,
        )  # type: ignore[call-arg]  # fmt: skip

    def open(self) -> None:
        self._service = BatchService(self._settings)
        self._listener = None
        if "listening" in sys.argv:
            from actors.web.listener import Listener

            self._listener = Listener(self._service, "127.0.0.1:0", None)

    def run(self) -> dict[str, Any]:
        order, running = self._order, []
        statements = _counted_statements()
        each = order.videos // order.batches
        for start in range(0, order.videos, each):
            videos = [{"prompt": prompt} for prompt in order.prompts[start : start + each]]
            batch = self._service.create_batch({"videos": videos})
            running.append(self._service.process_batch(batch.id, concurrency=min(each, order.concurrency)))
        ended = [each.result(timeout=_LONGEST) for each in running]
        states = Counter(str(job.status) for batch in ended for job in batch.jobs)
        errors = Counter(str(job.error.code) for batch in ended for job in batch.jobs if job.error)
        return {"states": states, "errors": errors, "statements": next(statements)}

    def close(self) -> dict[str, Any]:
        """What is left behind: tasks when the last batch had ended, threads when the service was closed."""
        runtime = self._service._runtime
        assert runtime is not None
        tasks = runtime.io.submit(_tasks()).result(timeout=10)
        if self._listener is not None:
            self._listener.close()
        self._service.close()
        others = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
        for thread in others:
            thread.join(_ENDING)
        return {"tasks_left": tasks, "threads_left": [thread.name for thread in others if thread.is_alive()]}


def _counted_statements() -> count[int]:
    """Counts what the database is asked from now on."""
    execute, statements = peewee.Database.execute_sql, count()

    def counted(database: Any, sql: str, params: Any = None) -> Any:
        next(statements)
        return execute(database, sql, params)

    peewee.Database.execute_sql = counted
    return statements


_STANDING = "DeleteSender._watch"
"""What a runtime does as long as it lives."""


async def _tasks() -> list[str]:
    ours = asyncio.current_task()
    coroutines = [task.get_coro() for task in asyncio.all_tasks() if task is not ours]
    return [str(coroutine) for coroutine in coroutines if getattr(coroutine, "__qualname__", "") != _STANDING]


if __name__ == "__main__":
    perform(Ours)
