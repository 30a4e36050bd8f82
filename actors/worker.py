"""VideoWorker: makes one video at a time and reports to its BatchSupervisor.

It owns only the coroutine that it runs. A bug in that ends the worker; the supervisor starts another.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, assert_never

from actors.loop import LoopActor, tell
from actors.messages import Completed, Failed, Generate, Ref, Report, Stop, Withdrawn, WorkerLost, WorkerMessage
from actors.video.task import VideoTask
from actors.video.tools import Tools


@dataclass(frozen=True, slots=True)
class _RunEnded:
    task: asyncio.Task[Completed | Failed | Withdrawn]


class VideoWorker(LoopActor):
    """One worker of a batch's pool."""

    def __init__(self, tools: Tools, supervisor: Ref, number: int) -> None:
        super().__init__(tools.io)
        self._tools, self._supervisor, self._number = tools, supervisor, number
        self._order: Generate | None = None
        self._task: asyncio.Task[Any] | None = None

    def on_receive(self, message: WorkerMessage | _RunEnded) -> None:
        """Take a job, its end, or the order to stop."""
        match message:
            case Generate():
                self._order = message
                run = VideoTask(self._tools, message, self._report).run()
                self._task = self.begin(run, lambda task: tell(self.actor_ref, _RunEnded(task)))
            case _RunEnded(task):
                self._task = None
                if not task.cancelled():
                    self._report(task.result())
            case Stop():
                self.stop()
            case _:
                assert_never(message)

    def on_stop(self) -> None:
        """Stop polling and downloading. A POST in flight continues by itself."""
        if self._task is not None:
            self._task.cancel()

    def on_failure(self, _kind: Any, error: BaseException | None, _traceback: Any) -> None:
        """Tell the supervisor which run died with this worker."""
        self.on_stop()
        order = self._order
        run, job_id = (order.run, order.job.id) if order else (0, None)
        if order is not None:  # it may have died before its POST began
            self._tools.submitter.on_left(order.job.batch_id, order.submission.id)
        tell(self._supervisor, WorkerLost(self._number, run, job_id, repr(error)))

    def _report(self, report: Report) -> None:
        tell(self._supervisor, report)
