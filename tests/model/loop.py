"""A loop that does one thing when it is told to, in a time that passes when it is told to."""

import asyncio
import heapq
import math
from collections import deque
from itertools import count

from actors.loop import IOLoop

_GRAIN = 1024


class Clock:
    """The one clock of a model: in seconds since 1970, and monotonic. Stands for the module `time` too."""

    def __init__(self):
        self.now = 0.0

    def time(self):
        return self.now

    monotonic = time


class ModelLoop(asyncio.AbstractEventLoop):
    """As much of an event loop as tasks, futures and timers want."""

    def __init__(self, clock):
        self._clock = clock
        self._ready, self._timers, self._numbers = deque(), [], count()
        self.tasks, self.errors = [], []

    def time(self):
        return self._clock.now

    def call_soon(self, callback, *arguments, context=None):
        handle = asyncio.Handle(callback, arguments, self, context)
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(self, delay, callback, *arguments, context=None):
        # Rounded up, as on a real loop: who sleeps until a moment finds that it has come.
        when = (math.floor((self._clock.now + delay) * _GRAIN) + 1) / _GRAIN
        return self.call_at(when, callback, *arguments, context=context)

    def call_at(self, when, callback, *arguments, context=None):
        handle = asyncio.TimerHandle(when, callback, arguments, self, context)
        heapq.heappush(self._timers, (when, next(self._numbers), handle))
        return handle

    def _timer_handle_cancelled(self, handle):
        """It is passed over when its time comes."""

    def create_future(self):
        return asyncio.Future(loop=self)

    def create_task(self, coroutine, *, name=None, context=None):
        task = asyncio.Task(coroutine, loop=self, name=name, context=context)
        self.tasks.append(task)
        return task

    def get_debug(self):
        return False

    def is_closed(self):
        return False

    def call_exception_handler(self, context):
        self.errors.append(context)

    def next_timer(self):
        """When it has something to do by itself, or None."""
        while self._timers and self._timers[0][2].cancelled():
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def step(self):
        """Call one callback whose time has come; False if there is none."""
        while (when := self.next_timer()) is not None and when <= self._clock.now:
            self._ready.append(heapq.heappop(self._timers)[2])
        while self._ready:
            handle = self._ready.popleft()
            if handle.cancelled():
                continue
            asyncio._set_running_loop(self)
            try:
                handle._run()
            finally:
                asyncio._set_running_loop(None)
            return True
        return False

    def forget(self):
        """Drop everything: nothing of it is ever run."""
        self._ready.clear()
        self._timers.clear()
        for task in self.tasks:
            task._log_destroy_pending = False
            if not task.done():
                task.get_coro().close()


class ModelIO(IOLoop):
    """The I/O loop of a process without a thread."""

    def __init__(self, clock):
        self.loop = ModelLoop(clock)

    def call(self, function, *arguments):
        self.loop.call_soon(function, *arguments)

    async def offload(self, function, *arguments):
        return function(*arguments)
