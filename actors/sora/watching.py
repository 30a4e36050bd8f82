"""Watcher: polls the videos that a process has in flight, with few requests. Lives on the I/O loop.

One page of the server's listing shows up to a hundred videos, so it replaces polling each of them where that saves
requests. A listing is trusted as long as it shows the watched videos, and nothing that a video itself has refuted.
Whoever watches a video polls it directly, when the Watcher gives the word.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import math
import random
import time
from collections.abc import Awaitable, Hashable
from itertools import count
from typing import Self

from actors.errors import ErrorCode, SoraError
from actors.sora.client import PAGE, SoraClient
from actors.sora.durations import Durations
from actors.sora.embedded import inner_id
from actors.sora.exchange import Page
from actors.sora.listing import pages
from actors.sora.wire import Phase, RemoteVideo

logger = logging.getLogger(__name__)
_SAVES = 3
"""A page must replace more than so many polls."""
_VIDEOS_A_PAGE, _OFTEN = 20, 5
"""While one page shows all, it may be read once per interval for each so many videos, at most so often."""
_CHECK = 30
"""After so many intervals, up to twice as many, a video itself is polled, whatever the listing says."""
_GRAINS = 20
"""Parts of an interval; videos due in the same part are polled together."""
_DISTRUST, _LONGEST_DISTRUST = 60.0, 3600.0
_REMEMBERED = 100
"""How many ready videos are remembered, to check the listing against them."""


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
        self._word = asyncio.Event()

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
            await self._word.wait()
            self._word.clear()
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

    def give_word(self) -> None:
        """Have it polled now."""
        self._word.set()

    def hear(self, video: RemoteVideo) -> None:
        """Take news from the listing. Only the video itself says in full why it failed."""
        if video.phase is Phase.READY or (video.phase is Phase.WORKING and (self._moves_on(video) or self._failed)):
            self._listed = video
        if self._listed is not None or video.phase is Phase.ENDED_BADLY:
            self._word.set()

    def _moves_on(self, video: RemoteVideo) -> bool:
        return video.progress not in (None, self._progress)


class Watcher:
    """One per process and key."""

    def __init__(self, client: SoraClient, interval: float) -> None:
        self._client, self._interval = client, interval
        self._durations = Durations()
        self._watches: dict[str, Watch] = {}
        self._wrapped: dict[str, set[str]] = {}
        """The ids of videos that a proxy lists under another id than it returned, by the id that both contain."""
        self._agenda: list[tuple[float, int, Watch]] = []
        self._numbers = count()
        self._timer: asyncio.TimerHandle | None = None
        self._sweep: asyncio.Task[None] | None = None
        self._waiting: list[Watch] = []
        """Due videos that the current sweep may cover."""
        self._swept_from = -math.inf
        self._pages, self._period = 1, interval
        self._ready_at: dict[str, float] = {}
        self._no_listing_until, self._distrust = -math.inf, _DISTRUST

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
        if (inner := inner_id(watch.remote_id)) != watch.remote_id:
            self._wrapped.setdefault(inner, set()).add(watch.remote_id)
        self._check_later(watch)
        if watch.accepted_at is not None:
            watch.due = watch.accepted_at + self._interval
            age = self._durations.expected(watch.kind)
            if age is not None:
                grain = self._interval / _GRAINS
                watch.expected = math.ceil((watch.accepted_at + age) / grain) * grain
        self.plan(watch)

    def remove(self, watch: Watch) -> None:
        """Stop watching it."""
        if self._watches.get(watch.remote_id) is watch:
            del self._watches[watch.remote_id]
            alike = self._wrapped.get(inner_id(watch.remote_id), set())
            alike.discard(watch.remote_id)
            if not alike:
                self._wrapped.pop(inner_id(watch.remote_id), None)

    def plan(self, watch: Watch) -> None:
        """Put it into the agenda. An earlier entry will do: it is planned again then."""
        if watch.next_at < watch.planned:
            watch.planned = watch.next_at
            heapq.heappush(self._agenda, (watch.planned, next(self._numbers), watch))
            self._arm()

    def refute_listing(self, why: str) -> None:
        """Note that the listing was wrong."""
        self._distrust = _LONGEST_DISTRUST
        self._distrust_listing(why)

    def _distrust_listing(self, why: str) -> None:
        """Poll each video itself for a while, for longer each time."""
        logger.info(
            "the server's listing can't be used to poll videos; polling each of them",
            extra={"action": "no_listing", "error": why, "seconds": self._distrust},
        )
        self._no_listing_until = time.monotonic() + self._distrust
        self._distrust = min(2 * self._distrust, _LONGEST_DISTRUST)

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
            if len(self._ready_at) == _REMEMBERED:
                del self._ready_at[next(iter(self._ready_at))]
            self._ready_at[watch.remote_id] = now
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

    # --- whose time has come

    def _arm(self) -> None:
        if self._agenda and (self._timer is None or self._timer.when() > self._agenda[0][0]):
            if self._timer is not None:
                self._timer.cancel()
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(self._agenda[0][0], self._wake)

    def _wake(self) -> None:
        self._timer = None
        now = time.monotonic()
        due = self._take_due(now)
        themselves = [watch for watch in due if watch.check <= now]
        usual = [watch for watch in due if watch.check > now and watch.due <= now]
        own = [watch for watch in due if watch.check > now and watch.due > now]  # expected to be ready
        # A listing also covers what would be due soon.
        begins = self._sweep is None and self._pays(len(self._watches) if usual else len(own))
        if begins:
            self._sweep = asyncio.create_task(self._look_at_listing(now))
            self._sweep.add_done_callback(self._swept)
        # A few videos that are expected to be ready do not wait for a listing that is already being read.
        own_waits = begins or (self._sweep is not None and len(own) > _SAVES * self._pages)
        (self._waiting if self._sweep is not None else themselves).extend(usual)
        (self._waiting if own_waits else themselves).extend(own)
        for watch in themselves:
            watch.give_word()
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

    def _pays(self, looks: int) -> bool:
        """Whether the listing replaces so many polls with fewer requests."""
        pages = max(self._pages, math.ceil(len(self._watches) / PAGE))
        return looks > _SAVES * pages and time.monotonic() >= self._no_listing_until

    # --- the listing

    async def _look_at_listing(self, began: float) -> None:
        """Read it, newest first, until it has shown all videos that were watched when the reading began."""
        self._swept_from = began
        unseen, watched, read_pages = set(self._watches), len(self._watches), 0
        asked_at = began

        def read(after: str | None) -> Awaitable[Page]:
            nonlocal asked_at
            asked_at = time.monotonic()
            return self._client.listed(after, self._knows)

        async for page in pages(read, 2 * math.ceil(watched / PAGE) + 1 if watched else 0):
            read_pages += 1
            for video in page.videos:
                own_id = self._own_id(str(video.id))
                unseen.discard(own_id)
                self._listed(own_id, video, asked_at, page.hint)
            if not self._watches or not unseen:
                break
        self._pages = read_pages
        often = min(_OFTEN, max(1.0, watched / _VIDEOS_A_PAGE)) if read_pages == 1 else 1.0
        self._period = self._interval / often
        if time.monotonic() < self._no_listing_until:
            return  # it was refuted
        if len(unseen) * 2 > watched:
            self._distrust_listing(f"it shows {watched - len(unseen)} of {watched} videos")
        else:
            self._distrust = _DISTRUST

    def _knows(self, listed_id: str) -> bool:
        own_id = self._own_id(listed_id)
        return own_id in self._watches or own_id in self._ready_at

    def _own_id(self, listed_id: str) -> str:
        """The id under which a listed video is watched; ambiguous ids match none."""
        alike = self._wrapped.get(inner_id(listed_id), ()) if self._wrapped else ()
        return listed_id if listed_id in self._watches or len(alike) != 1 else next(iter(alike))

    def _listed(self, remote_id: str, video: RemoteVideo, asked_at: float, hint: float | None) -> None:
        watch = self._watches.get(remote_id)
        if watch is not None:
            wished = watch.hint if hint is None else hint
            watch.due = asked_at + (self._period if wished is None else wished)
            watch.hear(video)
            self._heard(watch, video, asked_at)
        elif video.phase is Phase.WORKING and asked_at > self._ready_at.get(remote_id, math.inf):
            self._ready_at.clear()
            self.refute_listing(f"it shows {remote_id} as {video.status!r}, but it is ready")

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
            self._distrust_listing(str(error) or repr(error))
        missed = [watch for watch in waiting if watch.heard_at < self._swept_from]
        for number, watch in enumerate(missed):
            watch.due = now + self._interval
            if not rate_limited:  # each is polled itself, spread evenly
                watch.due = watch.check = now + self._interval * number / len(missed)
        for watch in waiting:
            self.plan(watch)
