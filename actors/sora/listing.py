"""Reads the server's listing: page by page for all who need it, and as a substitute for polling many videos.

As such it is trusted as long as it shows the watched videos, and nothing that a video itself has refuted.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection

from actors.sora.reader import PAGE, Page, SoraReader
from actors.sora.wire import Phase, RemoteVideo, inner_id

logger = logging.getLogger(__name__)
_SAVES = 3
"""A page must replace more than so many polls."""
_VIDEOS_A_PAGE, _OFTEN = 20, 5
"""While one page shows all, it may be read once per interval for each so many videos, at most so often."""
_DISTRUST, _LONGEST_DISTRUST = 60.0, 3600.0
"""Seconds for which each video is polled itself, for longer each time."""
_REMEMBERED = 100
"""How many ready videos are remembered, to check the listing against them."""


async def pages(
    read: Callable[[str | None], Awaitable[Page]], most: int, *, guess: bool = False
) -> AsyncIterator[Page]:
    """The pages of a listing, newest first, each after the end of the last one.

    Args:
        read: reads the page after an id; None: the first.
        most: the maximum number of pages.
        guess: where the server does not say whether there are more, continue as long as a page has new entries.

    Raises:
        SoraError: as `read`.
    """
    after: str | None = None
    seen: set[str | None] = set()
    for _ in range(most):
        page = await read(after)
        yield page
        goes_on = page.has_more is True or (guess and page.has_more is None and page.last not in seen)
        if not goes_on or page.last in (None, after):
            return
        after = page.last
        seen.add(after)


class SharedListing:
    """The listing as news of many videos at once."""

    def __init__(
        self,
        client: SoraReader,
        interval: float,
        watched: Collection[str],
        tell: Callable[[str, RemoteVideo, float, float | None], None],
    ) -> None:
        """Prepare; nothing is read yet.

        Args:
            client: reads the pages.
            interval: the seconds between two polls of a video.
            watched: the ids of the watched videos, as they change.
            tell: called with each listed one: its id, the video, when its page was asked for, and the server's hint.
        """
        self._client, self._interval, self._watched, self._tell = client, interval, watched, tell
        self._wrapped: dict[str, set[str]] = {}
        """The ids of videos that a proxy lists under another id than it returned, by the id that both contain."""
        self._pages = 1
        self.period = interval
        """The seconds between two readings."""
        self._ready_at: dict[str, float] = {}
        self._not_before, self._distrust = -math.inf, _DISTRUST

    def add(self, remote_id: str) -> None:
        """Note that a video is watched from now on."""
        if (inner := inner_id(remote_id)) != remote_id:
            self._wrapped.setdefault(inner, set()).add(remote_id)

    def remove(self, remote_id: str) -> None:
        """Note that it is watched no longer."""
        alike = self._wrapped.get(inner_id(remote_id), set())
        alike.discard(remote_id)
        if not alike:
            self._wrapped.pop(inner_id(remote_id), None)

    def ready(self, remote_id: str, at: float) -> None:
        """Note that a video itself said that it is ready: the listing must not say otherwise any more."""
        if len(self._ready_at) == _REMEMBERED:
            del self._ready_at[next(iter(self._ready_at))]
        self._ready_at[remote_id] = at

    def saves(self, looks: int) -> bool:
        """Whether a reading replaces so many polls with fewer requests."""
        return looks > _SAVES * self._pages

    def pays(self, looks: int) -> bool:
        """The same of one that begins now: it has as many pages as the watched videos take, and has to be trusted."""
        pages = max(self._pages, math.ceil(len(self._watched) / PAGE))
        return looks > _SAVES * pages and time.monotonic() >= self._not_before

    def refute(self, why: str) -> None:
        """Note that the listing was wrong."""
        self._distrust = _LONGEST_DISTRUST
        self.distrust(why)

    def distrust(self, why: str) -> None:
        """Have each video polled itself for a while, for longer each time."""
        logger.info(
            "the server's listing can't be used to poll videos; polling each of them",
            extra={"action": "no_listing", "error": why, "seconds": self._distrust},
        )
        self._not_before = time.monotonic() + self._distrust
        self._distrust = min(2 * self._distrust, _LONGEST_DISTRUST)

    async def read(self) -> None:
        """Read it, newest first, until it has shown all videos that were watched when the reading began.

        Raises:
            SoraError: it could not be read.
        """
        unseen, watched, read_pages = set(self._watched), len(self._watched), 0
        asked_at = 0.0

        def read(after: str | None) -> Awaitable[Page]:
            nonlocal asked_at
            asked_at = time.monotonic()
            return self._client.listed(after, self._knows)

        async for page in pages(read, 2 * math.ceil(watched / PAGE) + 1 if watched else 0):
            read_pages += 1
            for video in page.videos:
                own_id = self._own_id(str(video.id))
                unseen.discard(own_id)
                if own_id in self._watched:
                    self._tell(own_id, video, asked_at, page.hint)
                elif video.phase is Phase.WORKING and asked_at > self._ready_at.get(own_id, math.inf):
                    self._ready_at.clear()
                    self.refute(f"it shows {own_id} as {video.status!r}, but it is ready")
            if not self._watched or not unseen:
                break
        self._pages = read_pages
        often = min(_OFTEN, max(1.0, watched / _VIDEOS_A_PAGE)) if read_pages == 1 else 1.0
        self.period = self._interval / often
        if time.monotonic() < self._not_before:
            return  # it was refuted
        if len(unseen) * 2 > watched:
            self.distrust(f"it shows {watched - len(unseen)} of {watched} videos")
        else:
            self._distrust = _DISTRUST

    def _knows(self, listed_id: str) -> bool:
        own_id = self._own_id(listed_id)
        return own_id in self._watched or own_id in self._ready_at

    def _own_id(self, listed_id: str) -> str:
        """The id under which a listed video is watched; ambiguous ids match none."""
        alike = self._wrapped.get(inner_id(listed_id), ()) if self._wrapped else ()
        return listed_id if listed_id in self._watched or len(alike) != 1 else next(iter(alike))
