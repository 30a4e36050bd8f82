"""The videos in the making: accepts, ends, holds and forgets them, and tells the ledger of each.

It knows no HTTP. Its clock is the event loop's; what a killed server left to make, `resume` goes on with.
"""

import asyncio
import time
import uuid
from collections.abc import Callable, Iterable
from decimal import Decimal
from random import Random
from typing import Any

from tests.provider.options import Options
from tests.provider.records import TERMINAL, Ledger, Post, Video

_NEW_ID: dict[str, Callable[[], str]] = {
    "openai": lambda: f"video_{uuid.uuid4().hex}",
    "uuid": lambda: str(uuid.uuid4()),
    "hex": lambda: uuid.uuid4().hex,
    "vllm": lambda: f"video_gen_{uuid.uuid4().hex}",
}


class Studio:
    def __init__(self, ledger: Ledger, options: Options, changed: Callable[[], None]) -> None:
        self.ledger = ledger
        self.options = options
        self.held = False
        self._changed = changed
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._due: set[str] = set()
        """Videos whose time came while all were held."""
        self._random = Random(options.seed)  # noqa: S311 - chance is to be repeatable here

    def accept(self, post: Post, replica: int = 0) -> Video:
        fields = post.fields
        video = Video(
            id=_NEW_ID[self.options.id_style](),
            number=len(self.ledger.videos) + 1,
            post=post.number,
            prompt=post.prompt,
            model=str(fields.get("model", "sora-2")),
            seconds=str(fields.get("seconds", "4")),
            size=str(fields.get("size", "720x1280")),
            price=self._price(str(fields.get("model", "sora-2")), str(fields.get("seconds", "4"))),
            bills_failed=self.options.bills_failed,
            latency=self._random.uniform(*self.options.latency),
            bytes=self.options.content_bytes,
            accepted_at=time.time(),
            replica=replica,
            doom=self._doom(post.prompt),
        )
        self.ledger.accepted(post, video)
        self._schedule(video)
        return video

    def end(self, video: Video, status: str, error: dict[str, Any] | None = None) -> None:
        """End a video that is being made; one that has ended stays as it is."""
        if video.status in TERMINAL:
            return
        self._due.discard(video.id)
        if timer := self._timers.pop(video.id, None):
            timer.cancel()
        self.ledger.ended_as(video, status, error)
        self._changed()

    def finish(self, video: Video) -> None:
        """End a video as it would have ended by itself."""
        self.end(video, "failed" if video.doom else "completed", video.doom)

    def delete(self, video: Video) -> None:
        """Delete a video; a running one is aborted, as vLLM-Omni does."""
        self.end(video, "deleted")
        self.ledger.deleted_by_request(video)
        self._changed()

    def hold(self) -> None:
        self.held = True

    def release(self) -> None:
        self.held = False
        for video_id in tuple(self._due):
            self.finish(self.ledger.videos[video_id])

    def forget(self) -> None:
        """Lose every video, as a server does that keeps its jobs in memory and starts anew."""
        for video in self.ledger.videos.values():
            video.forgotten = True
            self.end(video, "lost")

    def resume(self) -> None:
        """Go on with the videos that a killed server left."""
        for video in self.running():
            self._schedule(video)

    def running(self) -> Iterable[Video]:
        return [video for video in self.ledger.videos.values() if video.status not in TERMINAL]

    def _schedule(self, video: Video) -> None:
        loop = asyncio.get_running_loop()
        self._timers[video.id] = loop.call_later(video.latency, self._time_is_up, video)

    def _time_is_up(self, video: Video) -> None:
        if self.held:
            self._due.add(video.id)
        else:
            self.finish(video)

    def _price(self, model: str, seconds: str) -> str:
        prices = self.options.prices
        return f"{Decimal(prices.get(model, prices.get('*', '0'))) * Decimal(seconds):f}"

    def _doom(self, prompt: str) -> dict[str, Any] | None:
        for word, error in self.options.fail_words.items():
            if word in prompt:
                return error
        if self._random.random() < self.options.fail_rate:
            return {"code": "video_generation_failed", "message": "The video could not be generated."}
        return None
