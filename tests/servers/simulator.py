"""Simulators of the Videos API in the process of a test, each in a thread of its own."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from actors.simulator import Simulator, SimulatorOptions


@contextmanager
def simulator_in_thread(options: SimulatorOptions) -> Iterator[tuple[Simulator, str]]:
    """Run a simulator on a free port for as long as the context lasts; gives it and its base URL."""
    simulator = Simulator(options)
    with _loop_in_thread() as loop:
        base_url = asyncio.run_coroutine_threadsafe(simulator.start(), loop).result()
        try:
            yield simulator, base_url
        finally:
            asyncio.run_coroutine_threadsafe(simulator.stop(), loop).result()


@contextmanager
def _loop_in_thread() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="simulator")
    thread.start()
    try:
        yield loop
    finally:
        asyncio.run_coroutine_threadsafe(loop.shutdown_default_executor(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
