"""A lane of disturbances: it rests, disturbs one thing, mends it, and rests again, in a thread of its own.

What it chooses depends on the seed and on its name alone, whatever the other lanes do.
"""

from __future__ import annotations

import random
import threading
from abc import ABC, abstractmethod

from tests.chaos.house import House
from tests.chaos.report import Report


class Lane(ABC):
    """See the module."""

    rest: tuple[float, float]
    """Seconds between two disturbances: the least and the most."""

    def __init__(self, name: str, house: House, report: Report, stopping: threading.Event) -> None:
        self.name, self.house, self.report, self._stopping = name, house, report, stopping
        self.chance = random.Random(f"{report.seed} {name}")  # noqa: S311  (to be repeatable)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self.pause(*self.rest):
                self.disturb()
            self.mend()
        except Exception as error:
            self.report.found(f"the lane {self.name} failed: {type(error).__name__}: {error}")

    def pause(self, least: float, most: float) -> bool:
        """Let a while pass, less at the end of the run; return whether that has come."""
        return self._stopping.wait(self.chance.uniform(least, most))

    def count(self, how: str) -> None:
        self.report.disturbed(how)

    @abstractmethod
    def disturb(self) -> None: ...

    def mend(self) -> None:  # noqa: B027  (most lanes have nothing to mend)
        """Called once, at the end."""
