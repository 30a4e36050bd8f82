"""Who waits for the end of which batch, and how they are told."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future

from actors.batch.views import Batch
from actors.errors import ServiceClosed


class RunningBatch(Future[Batch]):
    """The end of a batch, whoever runs it. Cancelling it is no way to cancel the batch."""

    def __init__(self, batch_id: str) -> None:
        super().__init__()
        self.batch_id = batch_id
        self.left_alone: tuple[str, ...] = ()
        """After a retry: the ids of the jobs that failed and are not tried again."""
        self.set_running_or_notify_cancel()


class Waiting:
    """The Futures of a service. They are completed in a thread of their own: their callbacks may use the service."""

    def __init__(self) -> None:
        self._futures: dict[str, list[RunningBatch]] = {}
        self._lock = threading.Lock()
        self._answers: queue.SimpleQueue[tuple[Sequence[RunningBatch], Batch | BaseException] | None]
        self._answers = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False

    def add(self, batch_ids: Iterable[str]) -> list[RunningBatch]:
        """A Future for each of these batches.

        Raises:
            ServiceClosed: nobody would complete them any more.
        """
        added = [RunningBatch(batch_id) for batch_id in batch_ids]
        with self._lock:
            if self._closed:
                raise ServiceClosed
            for future in added:
                self._futures.setdefault(future.batch_id, []).append(future)
            if self._thread is None:
                # Now: at the interpreter's exit no thread can be started any more.
                self._thread = threading.Thread(target=self._run, name="sora-answers", daemon=True)
                self._thread.start()
        return added

    def drop(self, futures: Iterable[RunningBatch]) -> None:
        """Forget Futures that nobody was given. Somebody may have taken them meanwhile, to answer them."""
        with self._lock:
            for future in futures:
                left = [each for each in self._futures.pop(future.batch_id, []) if each is not future]
                if left:
                    self._futures[future.batch_id] = left

    def take(self, batch_id: str) -> list[RunningBatch]:
        """The Futures of a batch: whoever takes them, answers them."""
        with self._lock:
            return self._futures.pop(batch_id, [])

    def answer_when(self, future: RunningBatch, finish: Callable[[], Batch]) -> None:
        """Complete a Future with what a function gives that waits, in a thread of its own."""

        def wait() -> None:
            try:
                outcome: Batch | BaseException = finish()
            except BaseException as error:  # noqa: BLE001  (whoever waits must hear of it)
                outcome = error
            if isinstance(outcome, BaseException):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

        threading.Thread(target=wait, name="sora-fetching-again", daemon=True).start()

    def answer(self, futures: Sequence[RunningBatch], outcome: Batch | BaseException) -> None:
        """Complete Futures soon, from any thread."""
        with self._lock:
            if futures and not self._closed:
                self._answers.put((futures, outcome))
                return
        _complete(futures, outcome)

    def close(self, error_of: type[BaseException], timeout: float = 1.0) -> None:
        """Answer whoever still waits with an error made of the batch's id, and end the thread."""
        with self._lock:
            self._closed = True
            left, self._futures, thread = self._futures, {}, self._thread
            for batch_id, futures in left.items():
                self._answers.put((futures, error_of(batch_id)))
            self._answers.put(None)
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def _run(self) -> None:
        while (answer := self._answers.get()) is not None:
            _complete(*answer)


def _complete(futures: Iterable[RunningBatch], outcome: Batch | BaseException) -> None:
    for future in futures:
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
