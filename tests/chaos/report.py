"""What a run tells in the end."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Report:
    """Counts and findings; several threads add to it."""

    seed: int
    minutes: float
    disturbances: Counter[str] = field(default_factory=Counter)
    batches: Counter[str] = field(default_factory=Counter)
    videos: Counter[str] = field(default_factory=Counter)
    """Of the jobs at the end: a state, or the code of the error."""
    payments: Counter[str] = field(default_factory=Counter)
    messages: Counter[str] = field(default_factory=Counter)
    log: Counter[str] = field(default_factory=Counter)
    """What the services complained of."""
    seconds_to_calm: float = 0.0
    """From the last disturbance until everything had its end."""
    wrong: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def disturbed(self, how: str, times: int = 1) -> None:
        with self._lock:
            self.disturbances[how] += times

    def found(self, what: str) -> None:
        """Note what is wrong; say it at once, too: a run is long, and may be broken off."""
        print(what, file=sys.stderr, flush=True)
        with self._lock:
            self.wrong.append(what)

    def lines(self) -> list[str]:
        """For a person."""
        return [
            f"seed {self.seed}, {self.minutes:g} min, then {self.seconds_to_calm:.0f} s until all had its end",
            f"disturbances: {self.disturbances.total()}: {_listed(self.disturbances)}",
            f"batches: {self.batches.total()}: {_listed(self.batches)}",
            f"videos: {self.videos.total()}: {_listed(self.videos)}",
            f"at the provider: {_listed(self.payments)}",
            f"messages: {_listed(self.messages)}",
            f"wrong: {len(self.wrong)}",
            *(f"  {line}" for line in self.wrong),
        ]


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "none"
