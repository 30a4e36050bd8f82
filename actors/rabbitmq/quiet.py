"""Keeps pika's lines about our connections out of the log: ours tell it, once. Of others' connections they stay.

The library changes no logger's level: those are its program's. pika logs in the thread that works on a connection.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pika  # noqa: F401  (its loggers are there from then on)

_ours = threading.local()


class _NotOurs(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002
        return not getattr(_ours, "depth", 0)


@contextmanager
def hush() -> Iterator[None]:
    """What pika logs in this thread until the end is dropped."""
    _ours.depth = getattr(_ours, "depth", 0) + 1
    try:
        yield
    finally:
        _ours.depth -= 1


_FILTER = _NotOurs()
for _name in [name for name in logging.Logger.manager.loggerDict if name.startswith("pika.")]:
    logging.getLogger(_name).addFilter(_FILTER)
