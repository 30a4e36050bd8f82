"""What the benchmarks' server makes: the videos, when each is done, and the counts of what was asked."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from typing import Any

_FTYP = b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isommp41"
_HEAD = 4096
"""The first bytes of each file, which say whose it is; the rest is the same for all."""


_GOLDEN = 0.618
"""Its multiples are spread evenly over what is left of them without their whole part."""


@dataclass(frozen=True, slots=True)
class Options:
    """How the server behaves, until it is told otherwise."""

    latency: float = 0.2
    """Seconds from a POST until its video is completed."""
    spread: float = 0.0
    """By how much of it, at the most, videos take longer or shorter: else all that began together end together."""
    content_bytes: int = 10_000
    failing_every: int = 0
    """Each n-th video fails; 0: none."""
    refused_every: int = 0
    """Each n-th POST is answered 429; 0: none."""
    retry_after: float = 0.1
    """What a 429 asks to wait, in seconds."""
    queued_first: bool = False
    """The create is answered `queued` even where the video is there at once, as most servers do."""


@dataclass(slots=True)
class Video:
    """One that was paid for."""

    id: str
    prompt: str
    started: float
    """By the monotonic clock."""
    ready: float
    fails: bool
    start: bytes
    """Its JSON, up to what changes."""
    over: bool = False
    """It was fetched, or was seen to have failed: its client holds no place for it any more."""


@dataclass(slots=True)
class Studio:
    """The videos of one run."""

    options: Options = field(default_factory=Options)
    requests: Counter[str] = field(default_factory=Counter)
    posts: Counter[str] = field(default_factory=Counter)
    """Videos that were paid for, by prompt."""
    failed: list[str] = field(default_factory=list)
    """The prompts of videos that fail."""
    max_in_flight: int = 0
    _videos: dict[str, Video] = field(default_factory=dict)
    _order: list[Video] = field(default_factory=list)
    _places: dict[str, int] = field(default_factory=dict)
    _in_flight: int = 0
    _arrived: int = 0

    def refuses(self) -> bool:
        """Whether the POST that has arrived is answered 429."""
        self._arrived += 1
        return bool(self.options.refused_every) and self._arrived % self.options.refused_every == 0

    def make(self, prompt: str) -> bytes:
        """Take a video in; its JSON."""
        number, now = len(self._order) + 1, time.monotonic()
        fails = bool(self.options.failing_every) and number % self.options.failing_every == 0
        name = f"video_{number:032x}"
        fixed = {
            "id": name, "object": "video", "model": "sora-2", "created_at": int(time.time()), "prompt": prompt,
            "seconds": "4", "size": "720x1280", "remixed_from_video_id": None,
        }  # fmt: skip
        start = json.dumps(fixed)[:-1].encode() + b", "
        part = 1 + self.options.spread * (2 * (number * _GOLDEN % 1) - 1)
        video = Video(name, prompt, now, now + part * self.options.latency, fails, start)
        self._places[name] = len(self._order)
        self._order.append(video)
        self._videos[name] = video
        self.posts[prompt] += 1
        if fails:
            self.failed.append(prompt)
        self._in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self._in_flight)
        return _told(video, queued=True) if self.options.queued_first else self._told(video)

    def look(self, name: str) -> bytes | None:
        """A video's JSON as it stands; None: there is no such."""
        video = self._videos.get(name)
        return None if video is None else self._told(video)

    def page(self, limit: int, after: str | None, *, newest_first: bool) -> bytes:
        """A page of the listing."""
        count = len(self._order)
        place = -1 if after is None else self._places.get(after, count)
        if newest_first:
            first = count - 1 if after is None else (place - 1 if place < count else -1)
            shown = [self._order[i] for i in range(first, max(-1, first - limit), -1)]
            more = first - limit >= 0
        else:
            shown = list(islice(self._order, place + 1, place + 1 + limit))
            more = place + 1 + limit < count
        ends = (shown[0].id, shown[-1].id) if shown else (None, None)
        rest = {"first_id": ends[0], "last_id": ends[1], "has_more": more}
        entries = b", ".join(map(self._told, shown))
        return b'{"object": "list", "data": [' + entries + b"], " + json.dumps(rest)[1:].encode()

    def fetch(self, name: str) -> str | None:
        """The prompt of a video whose file is there; None: there is none yet."""
        video = self._videos.get(name)
        if video is None or video.fails or video.ready > time.monotonic():
            return None
        self._is_over(video)
        return video.prompt

    def counts(self) -> dict[str, Any]:
        """What the benchmark wants to know."""
        return {
            "requests": dict(self.requests), "posts": dict(self.posts), "failed": self.failed,
            "max_in_flight": self.max_in_flight,
        }  # fmt: skip

    def _told(self, video: Video) -> bytes:
        told = _told(video)
        if video.fails and video.ready <= time.monotonic():
            self._is_over(video)
        return told

    def _is_over(self, video: Video) -> None:
        if not video.over:
            video.over = True
            self._in_flight -= 1


def _told(video: Video, *, queued: bool = False) -> bytes:
    now = time.monotonic()
    if queued or now < video.ready:
        done = 0 if queued else int(100 * (now - video.started) / (video.ready - video.started))
        state = b'"status": "%s", "progress": %d, "completed_at": null, "expires_at": null, "error": null}'
        return video.start + state % (b"in_progress" if done else b"queued", done)
    if video.fails:
        return video.start + (
            b'"status": "failed", "progress": 50, "completed_at": null, "expires_at": null, '
            b'"error": {"code": "server_error", "message": "The video could not be made."}}'
        )
    at = int(time.time())
    state = b'"status": "completed", "progress": 100, "completed_at": %d, "expires_at": %d, "error": null}'
    return video.start + state % (at, at + 3600)


def head(prompt: str, size: int) -> bytes:
    """The first bytes of a video's file: MP4 boxes, with the prompt in one that players skip."""
    told = prompt.encode()
    box = (8 + len(told)).to_bytes(4) + b"free" + told
    start = _FTYP + box + (size - len(_FTYP) - len(box)).to_bytes(4) + b"mdat"
    return start + filler(size)[len(start) : _HEAD]


@cache
def filler(size: int) -> bytes:
    """What lies behind the first bytes of every file of this size."""
    block = bytes(range(256)) * 16
    return (block * (size // len(block) + 1))[:size]


def content(prompt: str, size: int) -> bytes:
    """A video's whole file."""
    return head(prompt, size) + filler(size)[_HEAD:]


def prompt_of(file: bytes) -> str:
    """Whose file it is; empty if it does not say."""
    if file[4:8] != b"ftyp" or file[28:32] != b"free":
        return ""
    return file[32 : 24 + int.from_bytes(file[24:28])].decode(errors="replace")
