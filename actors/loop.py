"""The I/O loop of a process, and Pykka actors that run on it.

One thread carries aiohttp and all actors: a handler never blocks. What blocks (flushing files) goes to `offload`.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import pykka

from actors.errors import ServiceClosed

T = TypeVar("T")
THREADS = 4
"""For blocking calls."""
CLOSE_SECONDS = 5.0


class DaemonThreads(ThreadPoolExecutor):
    """Threads for blocking calls. They outlive the main thread, and keep no program from exiting.

    The base class refuses work once the main thread has ended, whatever other threads still do. It is a base class only
    because asyncio accepts nothing else as its default.
    """

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        for number in range(count):
            threading.Thread(target=self._work_off, name=f"sora-files-{number}", daemon=True).start()

    def submit(self, function: Callable[..., T], /, *arguments: Any, **named: Any) -> Future[T]:
        """Call a function in one of the threads."""
        future: Future[T] = Future()
        self._work.put(partial(_call, future, partial(function, *arguments, **named)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002
        """End the threads when their work is done."""
        self._work.put(None)

    def _work_off(self) -> None:
        while (call := self._work.get()) is not None:
            call()
        self._work.put(None)  # for the next one


def _call(future: Future[T], function: Callable[[], T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(function())
    except BaseException as error:  # noqa: BLE001  (whoever waits must hear of it)
        future.set_exception(error)


class IOLoop:
    """An asyncio loop in a daemon thread of its own: a program that forgets to close it still exits."""

    def __init__(self, name: str = "sora-io") -> None:
        self.loop = asyncio.new_event_loop()
        self._threads = DaemonThreads(THREADS)
        self.loop.set_default_executor(self._threads)  # names are looked up there
        self._calls: deque[Callable[[], object]] = deque()
        self._woken = self._due = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine on the loop, from any other thread.

        Raises:
            ServiceClosed: the loop has ended.
        """
        try:
            return asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        except RuntimeError:
            coroutine.close()
            if self.loop.is_closed():
                raise ServiceClosed from None
            raise

    def call(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call a function on the loop soon, from any thread. After the loop has ended, nothing happens."""
        self._calls.append(partial(function, *arguments) if arguments else function)
        try:
            if threading.get_ident() == self._thread.ident:
                if not self._due:
                    self._due = True
                    self.loop.call_soon(self._call_all)  # waking it from outside costs a system call
            # Two threads may both find it False: the second waking then finds nothing to call.
            elif not self._woken:
                self._woken = True
                self.loop.call_soon_threadsafe(self._call_all)
        except RuntimeError:
            if not self.loop.is_closed():
                raise

    def _call_all(self) -> None:
        """Make the calls so far, in order: a waking and a handle of asyncio's for each would cost more than most do."""
        self._woken = self._due = False
        for _ in range(len(self._calls)):
            try:
                self._calls.popleft()()
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:  # noqa: BLE001  (as asyncio does for each call: the others are made all the same)
                self.loop.call_exception_handler({"message": "a call on the I/O loop failed", "exception": error})

    async def outcome(self, future: Future[T]) -> T:
        """Await another thread's Future on the loop; unlike `asyncio.wrap_future`, never cancels it."""
        answered: asyncio.Future[None] = self.loop.create_future()
        future.add_done_callback(lambda _: self.call(_set, answered))
        await answered
        return future.result()

    async def offload(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run a blocking call off the loop."""
        return await self.loop.run_in_executor(self._threads, function, *arguments)

    def close(self, timeout: float = CLOSE_SECONDS) -> None:
        """End every task, the loop and its threads. What does not end in time is abandoned to its daemon thread."""
        if self.loop.is_closed():
            return
        if self._thread.is_alive():
            with suppress(TimeoutError):
                self.submit(_cancel_all()).result(timeout)
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(timeout)
            self._threads.shutdown()
        if not self._thread.is_alive():
            self.loop.close()


def _set(answered: asyncio.Future[None]) -> None:
    if not answered.done():
        answered.set_result(None)


async def _cancel_all() -> None:
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class _Inbox(deque[Any]):
    """An actor's inbox; a put wakes the actor on the loop."""

    wake: Callable[[], None] = staticmethod(lambda: None)
    get = deque.popleft

    def put(self, envelope: Any, /) -> None:
        self.append(envelope)
        self.wake()

    def empty(self) -> bool:
        return not self


class LoopActor(pykka.Actor):
    """A Pykka actor whose messages are handled on an `IOLoop`, one after another, without blocking.

    Unlike in Pykka, a failing `ask` ends the actor as a failing `tell` does: a half-handled message must not live on.
    """

    def __init__(self, io: IOLoop) -> None:
        super().__init__()
        self.io = io
        self._scheduled = False

    @staticmethod
    def _create_actor_inbox() -> Any:
        return _Inbox()

    @staticmethod
    def _create_future() -> pykka.Future[Any]:
        return pykka.ThreadingFuture()

    def _start_actor_loop(self) -> None:
        inbox: Any = self.actor_inbox
        inbox.wake = self._wake
        self.io.call(self._actor_loop_setup)
        self._wake()

    def _wake(self) -> None:
        # Two threads may both find it False: the second call of _drain then finds an empty inbox.
        if not self._scheduled:
            self._scheduled = True
            self.io.call(self._drain)

    def _drain(self) -> None:
        self._scheduled = False
        if self.actor_inbox and not self.actor_stopped.is_set():
            self._handle_one()
        if self.actor_stopped.is_set():
            self._actor_loop_teardown()
        elif self.actor_inbox:
            self._wake()

    def _handle_one(self) -> None:
        envelope = self.actor_inbox.get()
        try:
            answer = self._handle_receive(envelope.message)
        except Exception as error:  # noqa: BLE001  (Pykka's contract: whatever a handler raises ends the actor)
            arguments = (type(error), error, error.__traceback__)
            self._handle_failure(*arguments)
            if envelope.reply_to is not None:
                envelope.reply_to.set_exception(arguments)
            try:
                self.on_failure(*arguments)
            except Exception as again:  # noqa: BLE001
                self._handle_failure(type(again), again, again.__traceback__)
        else:
            if envelope.reply_to is not None:
                envelope.reply_to.set(answer)

    def begin(self, coroutine: Coroutine[Any, Any, T], done: Callable[[asyncio.Task[T]], object]) -> asyncio.Task[T]:
        """Start a coroutine on the loop; `done` is called with the task when it has really ended."""
        task = self.io.loop.create_task(coroutine)
        task.add_done_callback(done)
        return task


def tell(ref: pykka.ActorRef[Any], message: Any) -> None:
    """Send a message to an actor; if it has ended, the message is dropped."""
    try:
        ref.tell(message)
    except pykka.ActorDeadError:
        return
