"""Ctrl-C and SIGTERM while batches run: the first is noted, the second exits at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any, Self

_SHOW_CURSOR = "\x1b[?25h\n"
"""A live view hides it."""


class Interrupted(Exception):
    """A signal asked us to stop."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class Interruption:
    """Notes signals for as long as it is entered."""

    def __init__(self) -> None:
        self._number: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers nowhere else
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raise `Interrupted` if a signal came."""
        if self._number is not None:
            raise Interrupted(self._number)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self._number is not None:
            if sys.stderr is not None and sys.stderr.isatty():
                os.write(2, _SHOW_CURSOR.encode())
            os._exit(128 + number)
        self._number = number
