"""The clocks of this machine. Spans are measured by the monotonic one, leases by one that counts suspension.

What is recorded has the database's time (`storage.database.Database.time`): other processes compare it with theirs.
"""

from __future__ import annotations

import time

if hasattr(time, "CLOCK_BOOTTIME"):

    def awake_or_not() -> float:
        """Seconds on a clock that goes on while the machine (or the process) is suspended."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

else:

    def awake_or_not() -> float:
        """Seconds on the nearest this system has to a clock that counts suspended time."""
        return time.monotonic()


def utc_now() -> float:
    """Seconds since 1970, for what only this machine compares."""
    return time.time()
