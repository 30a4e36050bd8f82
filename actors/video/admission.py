"""Admission: how many videos a process has in flight across all batches, and whose turn is next. On the I/O loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from actors.loop import tell
from actors.messages import PlaceFree, Ref
from actors.sora.rate_limiter import RateLimiter

STARTS = 50
"""How many recorded intents of a process may have unsent POSTs: each has to leave within its send window."""


class Beginnings:
    """The batches that this process has begun with nothing more recorded yet: a death counts against them.

    A batch with such a death is begun alone: neither is it blamed for a neighbour's crash, nor a neighbour for its own.
    """

    def __init__(self) -> None:
        self._fresh: dict[str, bool] = {}
        self._waiting: dict[str, tuple[Ref, bool]] = {}

    def may_begin(self, batch_id: str, supervisor: Ref, *, alone: bool) -> bool:
        """Whether a batch may be begun now; if not, its supervisor is notified when it may."""
        others_alone = any(self._fresh.values()) or any(each for _, each in self._waiting.values())
        if bool(self._fresh) if alone else others_alone:
            self._waiting[batch_id] = supervisor, alone
            return False
        self._waiting.pop(batch_id, None)
        return True

    def begins(self, batch_id: str, *, alone: bool) -> None:
        """Note that a batch begins now."""
        self._fresh[batch_id] = alone

    def over(self, batch_id: str) -> None:
        """Note that something more was recorded for a batch, or that it is released. Idempotent."""
        self._waiting.pop(batch_id, None)
        if self._fresh.pop(batch_id, None) is not None and self._waiting:
            waiting, self._waiting = self._waiting, {}
            for supervisor, _ in sorted(waiting.values(), key=lambda each: not each[1]):
                tell(supervisor, PlaceFree())


class Admission:
    """Gives free slots to the waiting batch with the fewest videos in flight; none while the server asks to wait."""

    def __init__(self, limit: int | None, rate_limiter: RateLimiter, loop: asyncio.AbstractEventLoop) -> None:
        self._limit, self._rate_limiter, self._loop = limit, rate_limiter, loop
        self._taken: dict[str, int] = {}
        self._waiting: dict[str, Ref] = {}
        self._starting: dict[str, set[str]] = {}
        self._starts = 0
        self._offering = False
        self._turn: float | None = None
        self.beginnings = Beginnings()
        self.on_left: Callable[[str], object] = lambda _submission_id: None
        """Called when a POST has left, or is known never to."""
        rate_limiter.on_pause = self._offer_in

    def may_start(self, batch_id: str, supervisor: Ref) -> bool:
        """Whether a batch may start another video now; if not, its supervisor is notified when it may."""
        if not (self.has_place(batch_id, supervisor) and self._turn_has_come()):
            self._waiting.setdefault(batch_id, supervisor)
            return False
        self._waiting.pop(batch_id, None)
        return True

    def has_place(self, batch_id: str, supervisor: Ref) -> bool:
        """Whether a batch may have another slot now; if not, its supervisor is notified when it may."""
        if self._rate_limiter.paused or not self._room() or self._somebody_has_fewer(batch_id):
            self._waiting.setdefault(batch_id, supervisor)
            return False
        return True

    def has_enough(self, batch_id: str) -> None:
        """Note that a batch wants no more slots for now: what it was offered is for others."""
        self._waiting.pop(batch_id, None)
        self._offer_soon()

    def starting(self, batch_id: str, submission_id: str) -> None:
        """Note that a video's intent is about to be recorded and its POST will follow."""
        self._starting.setdefault(batch_id, set()).add(submission_id)
        self._starts += 1

    def left(self, batch_id: str, submission_id: str) -> None:
        """Note that its POST has left, or never will. Idempotent."""
        self.on_left(submission_id)
        starting = self._starting.get(batch_id, set())
        if submission_id in starting:
            starting.remove(submission_id)
            self._starts -= 1
            self._offer_soon()

    def taken(self, batch_id: str, count: int) -> None:
        """Note how many videos a batch now has in flight."""
        before = self._taken.get(batch_id, 0)
        if count:
            self._taken[batch_id] = count
        else:
            self._taken.pop(batch_id, None)
        if count < before:
            self._offer_soon()

    def leave(self, batch_id: str) -> None:
        """Forget a batch."""
        self._waiting.pop(batch_id, None)
        self.beginnings.over(batch_id)
        started = self._starting.pop(batch_id, set())
        self._starts -= len(started)
        for submission_id in started:
            self.on_left(submission_id)
        self.taken(batch_id, 0)
        self._offer_soon()

    def _turn_has_come(self) -> bool:
        """Obey the limit of requests per second: a create's turn is taken before its intent is recorded."""
        if self._turn is None:
            self._turn = self._rate_limiter.book()
            if (left := self._turn - time.monotonic()) > 0:
                self._offer_in(left)
        if self._turn > time.monotonic():
            return False
        self._turn = None
        return True

    def _room(self) -> int:
        starts = max(0, (1 if self._rate_limiter.away else STARTS) - self._starts)
        return starts if self._limit is None else max(0, min(starts, self._limit - sum(self._taken.values())))

    def _somebody_has_fewer(self, batch_id: str) -> bool:
        mine = self._taken.get(batch_id, 0)
        return any(self._taken.get(other, 0) < mine for other in self._waiting if other != batch_id)

    def _offer_in(self, seconds: float) -> None:
        self._loop.call_later(seconds, self._offer)

    def _offer_soon(self) -> None:
        if self._waiting and not self._offering:
            self._offering = True
            self._loop.call_soon(self._offer)

    def _offer(self) -> None:
        self._offering = False
        if self._rate_limiter.paused:
            return
        by_need = sorted(self._waiting, key=lambda batch_id: self._taken.get(batch_id, 0))
        for batch_id in by_need[: self._room()]:
            tell(self._waiting.pop(batch_id), PlaceFree())
