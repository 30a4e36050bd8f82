"""Coalescer: does work in groups that costs about the same for one item as for many."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

A = TypeVar("A")
T = TypeVar("T")


class Coalescer(Generic[A, T]):
    """Groups work that costs about the same for one item as for many: while the groups run, the next one gathers.

    Used on the loop only. `work` returns a result or an error for each item of a group; `unclaimed` gets the finished
    items that nobody waits for any more.
    """

    def __init__(
        self,
        work: Callable[[list[A]], Awaitable[Sequence[T | Exception]]],
        groups: int = 1,
        unclaimed: Callable[[A], object] = lambda _: None,
    ) -> None:
        self._work, self._groups, self._unclaimed = work, groups, unclaimed
        self._waiting: list[tuple[A, asyncio.Future[T]]] = []
        self._workers: set[asyncio.Task[None]] = set()
        self._lone: set[asyncio.Task[None]] = set()

    async def do(self, item: A) -> T:
        """Process an item with the next group."""
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, answer))
        if len(self._workers) < self._groups:
            self._workers.add(asyncio.create_task(self._work_off()))
        return await answer

    async def do_alone(self, item: A) -> T:
        """Process an item alone and at once, so that nobody waits behind it."""
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self._work_on([(item, answer)]))
        self._lone.add(task)
        task.add_done_callback(self._lone.discard)
        return await answer

    async def _work_off(self) -> None:
        try:
            while self._waiting:
                group, self._waiting = self._waiting, []
                if group := [(item, answer) for item, answer in group if not answer.done()]:
                    await self._work_on(group)
        finally:
            # At once: items that arrive before the end of this task is noticed need another worker.
            self._workers = {worker for worker in self._workers if worker is not asyncio.current_task()}

    async def _work_on(self, group: list[tuple[A, asyncio.Future[T]]]) -> None:
        results: Sequence[T | Exception]
        try:
            results = await self._work([item for item, _ in group])
        except Exception as error:  # noqa: BLE001  (each of the group must hear of it)
            results = [error] * len(group)
        for (item, answer), result in zip(group, results, strict=True):
            if answer.done():
                self._unclaimed(item)
            elif isinstance(result, Exception):
                answer.set_exception(result)
            else:
                answer.set_result(result)
