"""The services of this process: the one that is shared, and those that its end closes or a fork inherits."""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, Protocol, TypeVar


class Service(Protocol):
    """What is closed at the process's end."""

    @property
    def closed(self) -> bool:
        """Whether it is of no more use."""

    def close(self) -> None:
        """Let go of all that it has."""


S = TypeVar("S", bound=Service)
_shared_lock = threading.Lock()
_shared: Any = None

# Weak: a service that nobody holds any more has no batches to let go.
open_services: weakref.WeakSet[Service] = weakref.WeakSet()
_inherited: list[Service] = []
"""Another process's: what they hold must not be ended here, not even by the garbage collector."""


def shared_service(make: Callable[[], S]) -> S:
    """The one service of this process; a new one if it was closed."""
    global _shared  # noqa: PLW0603  (what is asked for is the one of the process)
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
