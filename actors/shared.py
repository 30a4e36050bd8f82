"""The services of this process: the shared one, those to close at exit, and those inherited by a fork."""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, Protocol, TypeVar


class Service(Protocol):
    """Something to close when the process ends."""

    @property
    def closed(self) -> bool:
        """Whether it can no longer be used."""

    def close(self) -> None:
        """Release all it holds."""


S = TypeVar("S", bound=Service)
_shared_lock = threading.Lock()
_shared: Any = None

# Weak: a service without references has no batches to release.
open_services: weakref.WeakSet[Service] = weakref.WeakSet()
_inherited: list[Service] = []
"""Another process's: what they hold must not be closed here, not even by the garbage collector."""


def shared_service(make: Callable[[], S]) -> S:
    """The one service of this process; a new one if it was closed."""
    global _shared  # noqa: PLW0603  (there is one per process)
    with _shared_lock:
        if _shared is None or _shared.closed:
            _shared = make()
        service: S = _shared
        return service


@atexit.register
def _close_open_ones() -> None:
    for service in list(open_services):
        service.close()


def _after_fork_in_child() -> None:
    global _shared, _shared_lock
    _inherited.extend(open_services)
    open_services.clear()
    _shared, _shared_lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
