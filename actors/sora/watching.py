"""Watcher: polls the videos that a process has in flight, with few requests. Lives on the I/O loop.

One page of the server's listing shows up to a hundred videos, so it replaces polling each of them where that saves
requests. Whoever watches a video polls it directly, when the Watcher gives the word.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import math
import random
import time
from collections.abc import Hashable
from itertools import count
from typing import Self

from actors.errors import ErrorCode, SoraError
from actors.sora.client import SoraClient
from actors.sora.durations import Durations
from actors.sora.listing import SharedListing
from actors.sora.wire import Phase, RemoteVideo

logger = logging.getLogger(__name__)
_CHECK = 30
"""After so many intervals, up to twice as many, a video itself is polled, whatever the listing says."""
_GRAINS = 20
"""Parts of an interval; videos due in the same part are polled together."""


class Watch:
    """One video, its last news, and when to poll it next."""

    def __init__(self, watcher: Watcher, remote_id: str, kind: Hashable, accepted_at: float | None) -> None:
        self._watcher, self.remote_id, self.kind, self.accepted_at = watcher, remote_id, kind, accepted_at
        self.due = self.heard_at = -math.inf
        self.expected = self.check = self.planned = math.inf
        """When it should be ready; when to poll it whatever the listing says; its place in the agenda."""
        self.hint: float | None = None
        self.anew = False
        """Whether the next poll opens a connection: another replica may know more."""
        self.by_listing = False
        """Whether the last news came from the listing."""
        self._listed: RemoteVideo | None = None
        self._progress: int | None = None
        self._failed = False
        self.word = asyncio.Event()
        """Set when it is to be polled, or the listing has news of it."""

    def __enter__(self) -> Self:
        self._watcher.add(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._watcher.remove(self)

    @property
    def next_at(self) -> float:
        """When the next poll is due."""
        return min(self.due, self.expected, self.check)

    async def news(self) -> RemoteVideo:
        """Wait until the video has progressed; after a failed poll, until there is any news of it.

        Raises:
            SoraError: it could not be polled; `postpone` sets the next attempt.
        """
        while True:
            await self.word.wait()
            self.word.clear()
            listed, self._listed = self._listed, None
            self.by_listing = listed is not None
            video = listed or await self._watcher.look(self)
            if video.phase is not Phase.WORKING:
                return video
            if self._moves_on(video) or self._failed:
                self._progress, self._failed = video.progress, False
                return video

    def postpone(self, seconds: float, *, anew: bool = False) -> None:
        """Poll again after so many seconds; news from the listing still counts meanwhile."""
        self._failed, self.anew = True, anew
        self.due, self.expected = time.monotonic() + seconds, math.inf
        self.check = max(self.check, self.due)
        self._watcher.plan(self)

    def hear(self, video: RemoteVideo) -> None:
        """Take news from the listing. Only the video itself says in full why it failed."""
        if video.phase is Phase.READY or (video.phase is Phase.WORKING and (self._moves_on(video) or self._failed)):
            self._listed = video
        if self._listed is not None or video.phase is Phase.ENDED_BADLY:
            self.word.set()

    def _moves_on(self, video: RemoteVideo) -> bool:
        return video.progress not in (None, self._progress)


class Watcher:
    """One per process and key."""

    def __init__(self, client: SoraClient, interval: float) -> None:
        self._client, self._interval = client, interval
        self._durations = Durations()
        self._watches: dict[str, Watch] = {}
        self.listing = SharedListing(client, interval, self._watches, self._listed)
        self._agenda: list[tuple[float, int, Watch]] = []
        self._numbers = count()
        self._timer: asyncio.TimerHandle | None = None
        self._sweep: asyncio.Task[None] | None = None
        self._waiting: list[Watch] = []
        """Due videos that the current sweep may cover."""
        self._swept_from = -math.inf

    def watch(self, remote_id: str, kind: Hashable, accepted_at: float | None) -> Watch:
        """Watch a video: `with watcher.watch(...) as watch: await watch.news()`.

        Args:
            remote_id: the video.
            kind: videos of one kind take equally long.
            accepted_at: when its create was answered, by `time.monotonic()`; None: earlier, so it is polled at once.
        """
        return Watch(self, remote_id, kind, accepted_at)

    def add(self, watch: Watch) -> None:
        """Start watching a video."""
        self._watches[watch.remote_id] = watch
        self.listing.add(watch.remote_id)
        self._check_later(watch)
        if watch.accepted_at is not None:
            watch.due = watch.accepted_at + self._interval
            if (age := self._durations.expected(watch.kind)) is not None:
                grain = self._interval / _GRAINS
                watch.expected = math.ceil((watch.accepted_at + age) / grain) * grain
        self.plan(watch)

    def remove(self, watch: Watch) -> None:
        """Stop watching it."""
        if self._watches.get(watch.remote_id) is watch:
            del self._watches[watch.remote_id]
            self.listing.remove(watch.remote_id)

    def plan(self, watch: Watch) -> None:
        """Put it into the agenda. An earlier entry will do: it is planned again then."""
        if watch.next_at < watch.planned:
            watch.planned = watch.next_at
            heapq.heappush(self._agenda, (watch.planned, next(self._numbers), watch))
            self._arm()

    async def look(self, watch: Watch) -> RemoteVideo:
        """Poll a video itself.

        Raises:
            SoraError: as `SoraClient.retrieve`.
        """
        asked_at = time.monotonic()
        video, watch.hint = await self._client.retrieve(watch.remote_id, anew=watch.anew)
        watch.anew = False
        # Counted from the answer: a slow server must not be polled more often.
        now = time.monotonic()
        watch.due = now + (self._interval if watch.hint is None else watch.hint)
        self._check_later(watch)
        if watch.hint is not None:  # the server knows best when to poll
            watch.expected = math.inf
        self._heard(watch, video, asked_at)
        if video.phase is Phase.READY:
            self.listing.ready(watch.remote_id, now)
        return video

    def _heard(self, watch: Watch, video: RemoteVideo, asked_at: float) -> None:
        watch.heard_at = asked_at
        if asked_at >= watch.expected:
            watch.expected = math.inf
        if watch.accepted_at is not None:
            learn = {Phase.WORKING: self._durations.unready, Phase.READY: self._durations.ready}.get(video.phase)
            if learn is not None:
                learn(watch.kind, asked_at - watch.accepted_at)
        if video.phase is Phase.WORKING:
            self.plan(watch)

    def _check_later(self, watch: Watch) -> None:
        longest = max(self._interval, watch.hint or 0.0)
        watch.check = time.monotonic() + _CHECK * longest * random.uniform(1.0, 2.0)  # noqa: S311

    def _arm(self) -> None:
        if self._agenda and (self._timer is None or self._timer.when() > self._agenda[0][0]):
            if self._timer is not None:
                self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_at(self._agenda[0][0], self._wake)

    def _wake(self) -> None:
        self._timer = None
        now = time.monotonic()
        due = self._take_due(now)
        themselves = [watch for watch in due if watch.check <= now]
        usual = [watch for watch in due if watch.check > now and watch.due <= now]
        own = [watch for watch in due if watch.check > now and watch.due > now]  # expected to be ready
        # A listing also covers what would be due soon.
        begins = self._sweep is None and self.listing.pays(len(self._watches) if usual else len(own))
        if begins:
            self._swept_from = now
            self._sweep = asyncio.create_task(self.listing.read())
            self._sweep.add_done_callback(self._swept)
        # A few videos that are expected to be ready do not wait for a listing that is already being read.
        own_waits = begins or (self._sweep is not None and self.listing.saves(len(own)))
        (self._waiting if self._sweep is not None else themselves).extend(usual)
        (self._waiting if own_waits else themselves).extend(own)
        for watch in themselves:
            watch.word.set()
        self._arm()

    def _take_due(self, now: float) -> list[Watch]:
        due = []
        while self._agenda and self._agenda[0][0] <= now:
            at, _, watch = heapq.heappop(self._agenda)
            if at != watch.planned or self._watches.get(watch.remote_id) is not watch:
                continue  # it has an earlier entry, or is no longer watched
            watch.planned = math.inf
            if watch.next_at <= now:
                due.append(watch)
            else:
                self.plan(watch)
        return due

    def _listed(self, remote_id: str, video: RemoteVideo, asked_at: float, hint: float | None) -> None:
        watch = self._watches[remote_id]
        wished = watch.hint if hint is None else hint
        watch.due = asked_at + (self.listing.period if wished is None else wished)
        watch.hear(video)
        self._heard(watch, video, asked_at)

    def _swept(self, sweep: asyncio.Task[None]) -> None:
        self._sweep = None
        waiting, self._waiting = self._waiting, []
        if sweep.cancelled():
            return
        error, now = sweep.exception(), time.monotonic()
        rate_limited = isinstance(error, SoraError) and error.code is ErrorCode.RATE_LIMITED
        if error is not None and not rate_limited:
            if not isinstance(error, SoraError):
                logger.error("the listing could not be processed", exc_info=error, extra={"action": "listing_failed"})
            self.listing.distrust(str(error) or repr(error))
        missed = [watch for watch in waiting if watch.heard_at < self._swept_from]
        for number, watch in enumerate(missed):
            watch.due = now + self._interval
            if not rate_limited:  # each is polled itself, spread evenly
                watch.due = watch.check = now + self._interval * number / len(missed)
        for watch in waiting:
            self.plan(watch)
