"""RateLimiter: when requests may leave. A 429 slows every batch of the process, as does the user's own limit.

What else a process learns from the server's answers is beside it: whether the key is accepted, and the server's clock.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from actors.messages import Wait
from actors.sora import wire
from storage.timing import backoff, boottime

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0
_LONGEST_TRY_AGAIN, _LONG = 8.0, 600.0
"""Seconds between attempts to reach a server; longer after a long time."""
_READINGS = 8
"""How many readings of the server's clock count."""


class Key:
    """Whether the server accepts the key of this process, according to its answers so far."""

    def __init__(self) -> None:
        self._accepted = False
        self.refused = False
        """It was refused and never accepted."""
        self.on_refused: Callable[[], object] = lambda: None

    def learn(self, status: int) -> None:
        """Learn from an answer's status."""
        if 200 <= status < 300:
            self._accepted, self.refused = True, False
        elif status == 401 and not (self._accepted or self.refused):
            self.refused = True
            self.on_refused()


@dataclass(slots=True)
class ServerClock:
    """How far the server's clock is ahead of `boottime`, learned from its `Date` headers.

    Either machine's clock may be set at any time or drift for weeks: only the last readings count, and they are never
    compared with a clock that can be set.
    """

    offset: float | None = None
    """A lower bound: with it, a video never seems older than it is."""
    _readings: deque[float] = field(default_factory=lambda: deque(maxlen=_READINGS))

    def learn(self, date: str | None) -> None:
        """Read a `Date` header. It is truncated to whole seconds and arrives with a delay."""
        at = wire.http_date(date)
        if at is not None:
            self._readings.append(at - boottime())
            self.offset = min(self._readings)


class RateLimiter:
    """One per process and key. Lives on the I/O loop."""

    def __init__(self, requests_per_second: float | None = None) -> None:
        self._spacing = 1 / requests_per_second if requests_per_second else 0.0
        self._next = 0.0
        self._refusals = 0
        self._unreachable_since: float | None = None
        self._stood = 0.0
        self._still_from = self._still_until = 0.0
        """The last period without answers; it may not have ended yet."""
        self.key = Key()
        self.ever_answered = False
        self.patience = math.inf
        """Seconds for which a server that never answered may be unreachable."""
        self.wait: Wait | None = None
        self.on_pause: Callable[[float], None] = lambda _seconds: None
        """Called with the length of each pause."""

    @property
    def paused(self) -> float:
        """Seconds for which nothing may leave."""
        return max(0.0, self.wait.until - time.monotonic()) if self.wait else 0.0

    @property
    def stood(self) -> float:
        """Total seconds in which the server gave no answer or had asked to wait: no batch's time runs then."""
        return self._stood + min(time.monotonic(), self._still_until) - self._still_from

    async def turn(self) -> None:
        """Wait until a request may leave."""
        while pause := self.paused:  # noqa: ASYNC110  (it may be prolonged meanwhile)
            await asyncio.sleep(pause)
        left = self.book() - time.monotonic()
        if left > 0:
            await asyncio.sleep(left)

    def book(self) -> float:
        """Take the next turn; returns when it is, by `time.monotonic()`."""
        at = max(self._next, time.monotonic())
        self._next = at + self._spacing
        return at

    def rate_limited(self, retry_after: float | None) -> None:
        """The server answered 429: obey its hint, or use our own backoff."""
        self.ever_answered, self._unreachable_since = True, None
        self._heard()
        if not self.paused:  # many requests get the same refusal
            self._refusals += 1
        seconds = backoff(self._refusals - 1, _FIRST_PAUSE, _LONGEST_PAUSE)
        self._pause("rate limited", seconds if retry_after is None else max(retry_after, 0.05))

    def unreachable(self) -> float:
        """No connection to the server could be made.

        Returns:
            For how many seconds this has lasted: 0.0 the first time.
        """
        now = time.monotonic()
        self._unreachable_since = self._unreachable_since or now
        since = now - self._unreachable_since
        left = math.inf if self.ever_answered else self.patience - since
        longest = _LONGEST_PAUSE if since > _LONG else _LONGEST_TRY_AGAIN
        self._pause("server unreachable", max(0.5, min(since, longest, left)))
        return since

    @property
    def away(self) -> bool:
        """Whether the server is unreachable: then one attempt at a time probes it."""
        return self._unreachable_since is not None

    def given_up(self, seconds: float) -> bool:
        """Whether a server is given up after being unreachable for so long: never one that has answered before."""
        return not self.ever_answered and seconds >= self.patience

    def no_answer(self) -> None:
        """A request got no answer: the time stands still until one does."""
        self._stand_still(math.inf)

    def answered(self) -> None:
        """The server answered, and not with 429."""
        self._refusals = 0
        self._unreachable_since = None
        self.ever_answered = True
        self._heard()

    def _pause(self, reason: str, seconds: float) -> None:
        until = time.monotonic() + seconds
        if self.wait is None or until > self.wait.until:
            self.wait = Wait(reason, until)
            self._stand_still(until)
            self.on_pause(seconds)

    def _heard(self) -> None:
        if self._still_until == math.inf:
            self._still_until = time.monotonic() + self.paused

    def _stand_still(self, until: float) -> None:
        now = time.monotonic()
        if now >= self._still_until:
            self._stood += self._still_until - self._still_from
            self._still_from = now
        self._still_until = max(self._still_until, until)
