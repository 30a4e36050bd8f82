"""Futures of the ends of batches, and their completion."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future

from actors.batch.views import Batch
from actors.errors import ServiceClosed
from storage.failures import DatabaseClosed


class RunningBatch(Future[Batch]):
    """The end of a batch, whoever runs it. Cancelling the Future does not cancel the batch."""

    def __init__(self, batch_id: str) -> None:
        super().__init__()
        self.batch_id = batch_id
        self.left_alone: tuple[str, ...] = ()
        """After a retry: the ids of the failed jobs that are not retried."""
        self.set_running_or_notify_cancel()


class Waiting:
    """The Futures of a service, completed in a separate thread, so that callbacks may use the service."""

    def __init__(self) -> None:
        self._futures: dict[str, list[RunningBatch]] = {}
        self._lock = threading.Lock()
        self._answers: queue.SimpleQueue[tuple[Sequence[RunningBatch], Batch | BaseException] | None]
        self._answers = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False

    def __bool__(self) -> bool:
        """Whether anybody waits for a batch."""
        with self._lock:
            return bool(self._futures)

    def add(self, batch_ids: Iterable[str]) -> list[RunningBatch]:
        """A Future for each of these batches.

        Raises:
            ServiceClosed: nothing would complete them.
        """
        added = [RunningBatch(batch_id) for batch_id in batch_ids]
        with self._lock:
            if self._closed:
                raise ServiceClosed
            for future in added:
                self._futures.setdefault(future.batch_id, []).append(future)
            if self._thread is None:
                # Now: at the interpreter's exit no thread can be started.
                self._thread = threading.Thread(target=self._run, name="sora-answers", daemon=True)
                self._thread.start()
        return added

    def drop(self, futures: Iterable[RunningBatch]) -> None:
        """Forget Futures that were not handed out. Another thread may have taken them meanwhile, to complete them."""
        with self._lock:
            for future in futures:
                left = [each for each in self._futures.pop(future.batch_id, []) if each is not future]
                if left:
                    self._futures[future.batch_id] = left

    def take(self, batch_id: str) -> list[RunningBatch]:
        """Take the Futures of a batch: the caller completes them."""
        with self._lock:
            return self._futures.pop(batch_id, [])

    def answer_when(self, future: RunningBatch, finish: Callable[[], Batch]) -> None:
        """Complete a Future with the result of a blocking function, in a separate thread."""

        def wait() -> None:
            try:
                outcome: Batch | BaseException = finish()
            except BaseException as error:  # noqa: BLE001  (the waiting caller must see it)
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

    def answer_read(self, futures: Sequence[RunningBatch], read: Future[Batch]) -> None:
        """Complete Futures with what was read, or why it could not be."""
        error = read.exception()
        outcome = ServiceClosed() if isinstance(error, DatabaseClosed) else error
        self.answer(futures, outcome or read.result())

    def close(self, error_of: type[BaseException], timeout: float = 1.0) -> None:
        """Complete what still waits with an error made from the batch's id, and end the thread."""
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
