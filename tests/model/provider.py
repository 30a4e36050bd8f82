"""A server of videos in a few lines, and the network before it. What happens to a POST is decided from outside.

It keeps to what the protocol relies on, and to no more: a POST is taken within `LATE` after its connection was closed,
or never; what was made is listed within `LAG`; both together are less than the settle time.
"""

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from actors.errors import ErrorCode, Failure, SoraError
from actors.sora.client import Accepted, NoAnswer, Refused
from actors.sora.failures import http_failure
from actors.sora.rate_limiter import RateLimiter, ServerClock
from actors.sora.reader import Page
from actors.sora.upload import SendForbidden
from actors.sora.wire import PRICE_HEADER, parse_video

SUBMIT_TIMEOUT, SETTLE = 5.0, 2.0
LATE, LAG = 0.8, 1.0
REFUSING = (400, 401, 429)
LISTINGS = ("well", "fails", "without an end", "without prompts", "with other spaces", "one a page", "empty")


@dataclass(eq=False)
class Video:
    """A video that somebody paid for."""

    id: str
    prompt: str
    made_at: float
    shown_at: float
    status: str = "queued"
    progress: int = 0
    gone: bool = False


@dataclass(eq=False)
class Post:
    """A create, and what is to become of it."""

    key: str
    prompt: str
    process: Any
    guard: Callable[[], None]
    connected: asyncio.Future
    answer: asyncio.Future
    sent_at: float = math.inf
    closed_at: float = math.inf
    over: bool = False
    """It was refused or lost: it makes nothing any more."""
    video: Video | None = None

    @property
    def sent(self):
        return self.sent_at < math.inf

    def possible(self, now):
        """Whether it may yet make a video."""
        until = min(self.closed_at, self.sent_at + SUBMIT_TIMEOUT) + LATE
        return self.sent and self.video is None and not self.over and now <= until


@dataclass
class Provider:
    """What it made, and how it behaves."""

    clock: Any
    skew: float
    leaving: Callable[[Post], None]
    """Called when a POST leaves."""
    posts: list[Post] = field(default_factory=list)
    videos: list[Video] = field(default_factory=list)
    listing: str = "well"
    lag: float = 0.0
    connects: bool = True
    obliging: bool = False
    """Makes at once whatever is asked for."""
    slow: bool = False
    """Listings are on their way until `answer_listings`."""
    held: list[asyncio.Future] = field(default_factory=list)
    numbers: Any = field(default_factory=lambda: count(1))

    @property
    def now(self):
        return self.clock.now

    def make(self, prompt):
        video = Video(f"video_{next(self.numbers)}", prompt, self.now, self.now + self.lag)
        self.videos.append(video)
        return video

    def forget(self):
        for video in self.videos:
            video.gone = True

    def arrive(self, post):
        """A POST arrives, and is paid for."""
        if post.video is None:
            post.video = self.make(post.prompt)

    def reply(self, post, status, cost=None):
        """Answer a POST. One that was not taken by now never will be. `cost`: what the answer says that it costs."""
        post.over = True
        post.closed_at = min(post.closed_at, self.now)
        if post.answer.done():
            return
        if status == 200:
            video = parse_video(self._document(post.video))
            post.process.client.learn()
            post.answer.set_result(Accepted(video, video.id, cost and {PRICE_HEADER: cost}))
        elif status in REFUSING:
            if status == 429:
                post.process.client.rate_limiter.rate_limited(1.0)
            post.answer.set_result(Refused(http_failure(status, {}, "creating the video"), sent=True))
        else:
            post.answer.set_result(NoAnswer(http_failure(status, {}, "creating the video")))

    def cut(self, post):
        """The connection breaks. What had left may arrive yet."""
        post.closed_at = min(post.closed_at, self.now)
        if not post.answer.done():
            post.answer.set_result(NoAnswer(Failure(ErrorCode.NETWORK, "no answer")))

    def answer_listings(self):
        held, self.held = self.held, []
        for future in held:
            if not future.done():
                future.set_result(None)

    def _document(self, video):
        document = {
            "id": video.id, "status": video.status, "progress": video.progress,
            "created_at": int(video.made_at + self.skew), "prompt": video.prompt,
        }  # fmt: skip
        if video.status == "completed":
            document["data"] = [{"b64_json": "AAAA"}]
        if video.status == "failed":
            document["error"] = {"code": "server_error", "message": "it failed"}
        return document

    def look(self, remote_id):
        video = next((video for video in self.videos if video.id == remote_id and not video.gone), None)
        if video is None:
            raise SoraError(Failure(ErrorCode.NOT_FOUND, "no such video"), status=404)
        if self.obliging and video.status != "failed":
            video.status, video.progress = "completed", 100
        return parse_video(self._document(video))

    def page(self, after):
        """As a request for it finds it."""
        if self.listing == "fails":
            raise SoraError(Failure(ErrorCode.SERVER_ERROR, "no listing"), status=500)
        shown = [video for video in reversed(self.videos) if video.shown_at <= self.now and not video.gone]
        documents = [] if self.listing == "empty" else [self._document(video) for video in shown]
        start = next((at for at, each in enumerate(documents, 1) if each["id"] == after), 0)
        documents = documents[start:]
        has_more = False
        if self.listing == "one a page":
            documents, has_more = documents[:1], len(documents) > 1
        for document in documents:
            if self.listing == "without prompts":
                del document["prompt"]
            elif self.listing == "with other spaces":
                document["prompt"] = document["prompt"].replace(" ", "  ")
        videos = tuple(parse_video(document) for document in documents)
        last = videos[-1].id if videos else None
        return Page(videos, None if self.listing == "without an end" else has_more, last)


class ModelClient:
    """What a process has for a `SoraClient`."""

    def __init__(self, process, provider):
        self._process, self._provider = process, provider
        self.rate_limiter, self.clock = RateLimiter(), ServerClock()

    def learn(self):
        """Read a `Date` header."""
        now = self._provider.now
        read = int(now + self._provider.skew) - now
        self.clock.offset = read if self.clock.offset is None else min(read, self.clock.offset)

    async def create(self, spec, intent_id, guard, _trace=None):
        loop, provider = asyncio.get_running_loop(), self._provider
        post = Post(intent_id, spec.prompt, self._process, guard, loop.create_future(), loop.create_future())
        provider.posts.append(post)
        if provider.connects:
            post.connected.set_result(None)
        try:
            async with asyncio.timeout(SUBMIT_TIMEOUT):
                await post.connected
                try:
                    guard()
                except SendForbidden as error:
                    return Refused(Failure(ErrorCode.UNAVAILABLE, str(error)), sent=False)
                provider.leaving(post)
                post.sent_at = provider.now
                if provider.obliging:
                    provider.arrive(post)
                    provider.reply(post, 200)
                return await post.answer
        except TimeoutError:
            post.closed_at = provider.now
            if post.sent:
                return NoAnswer(Failure(ErrorCode.NETWORK, "no answer"), timed_out=True)
            return Refused(Failure(ErrorCode.NETWORK, "no connection"), sent=False)

    async def list_page(self, after):
        await self.rate_limiter.turn()
        self.learn()
        page = self._provider.page(after)
        if self._provider.slow:
            held = asyncio.get_running_loop().create_future()
            self._provider.held.append(held)
            await held
        return page

    async def listed(self, after, knows):
        page = await self.list_page(after)
        known = tuple(video for video in page.videos if knows(video.id))
        return Page(known, page.has_more, page.last)

    async def retrieve(self, remote_id, *, anew=False):
        await self.rate_limiter.turn()
        self.learn()
        return self._provider.look(remote_id), None


class Files:
    """What a process has for a folder of videos: it takes everything in."""

    def batch(self, batch_id):
        return Path("/there/is/none", batch_id)

    def sweep(self, batch_id, epoch):
        return None

    def part(self, batch_id, job_id, epoch):
        return SimpleNamespace(discard=lambda: None, path=None)

    bucket = None

    @property
    def folder(self):
        return self

    async def take(self, rest):
        return {"path": "x.mp4", "bytes": 3, "sha256": "abc", "content_type": "video/mp4"}
