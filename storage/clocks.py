"""The clock that leases and their like go by. Spans are measured by the monotonic one.

What is recorded has the database's time (`storage.database.Database.time`): other processes compare it with theirs.
"""

from __future__ import annotations

import time

if hasattr(time, "CLOCK_BOOTTIME"):

    def boottime() -> float:
        """Seconds on a clock that goes on while the machine (or the process) is suspended."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

else:

    def boottime() -> float:
        """Seconds on the nearest this system has to a clock that counts suspended time."""
        return time.monotonic()
