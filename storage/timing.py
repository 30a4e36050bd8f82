"""The clock of leases and send windows, and the backoff between attempts.

Recorded times are by the database's clock (`storage.database.Database.time`), which all processes share.
"""

from __future__ import annotations

import random
import time

if hasattr(time, "CLOCK_BOOTTIME"):

    def boottime() -> float:
        """Seconds on a clock that keeps running while the machine (or the process) is suspended."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

else:

    def boottime() -> float:
        """Seconds on the closest clock that this system has to one that counts suspended time."""
        return time.monotonic()


_MOST_DOUBLINGS = 30


def backoff(failures: int, first: float, longest: float, *, jitter: float = 0.0) -> float:
    """Seconds to wait after so many failures, from 0 on: `first`, doubled with each, up to `longest`.

    `jitter`: the fraction by which the wait may be shorter, so that not all retry at once.
    """
    seconds = min(first * 2.0 ** min(failures, _MOST_DOUBLINGS), longest)
    return seconds * random.uniform(1.0 - jitter, 1.0)  # noqa: S311  (no secret)
