"""How many creates per second: a bucket that fills evenly and holds one second's worth."""

from __future__ import annotations


class RateLimit:
    """A token bucket; reads no clock."""

    def __init__(self, per_second: float) -> None:
        """Begin full; a bucket holds at least one, or nothing would ever pass."""
        self._per_second = per_second
        self._room = max(1.0, per_second)
        self._tokens = self._room
        self._looked_at: float | None = None

    def take(self, now: float) -> float:
        """Take one; 0.0 if there was one, else the seconds until there is.

        Args:
            now: seconds on a monotonic clock.
        """
        passed = 0.0 if self._looked_at is None else now - self._looked_at
        self._looked_at = now
        self._tokens = min(self._room, self._tokens + passed * self._per_second)
        if self._tokens < 1:
            return (1 - self._tokens) / self._per_second
        self._tokens -= 1
        return 0.0
