"""The clock that leases and their like go by, and how long to wait before the next try.

What is recorded has the database's time (`storage.database.Database.time`): other processes compare it with theirs.
"""

from __future__ import annotations

import random
import time

if hasattr(time, "CLOCK_BOOTTIME"):

    def boottime() -> float:
        """Seconds on a clock that goes on while the machine (or the process) is suspended."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

else:

    def boottime() -> float:
        """Seconds on the nearest this system has to a clock that counts suspended time."""
        return time.monotonic()


_MOST_DOUBLINGS = 30


def backoff(failures: int, first: float, longest: float, *, jitter: float = 0.0) -> float:
    """Seconds to wait after so many failures, from 0 on: `first`, doubled with each, up to `longest`.

    `jitter`: by which part of it the wait may be shorter, so that not all come at once.
    """
    seconds = min(first * 2.0 ** min(failures, _MOST_DOUBLINGS), longest)
    return seconds * random.uniform(1.0 - jitter, 1.0)  # noqa: S311  (no secret)
