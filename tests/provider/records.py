"""The ledger: what was asked of the provider, and what it made, that is, what would have been paid.

It owns the records and the counts. It makes no decision, knows no HTTP and starts no timer.
"""

import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from tests.provider import mp4

TERMINAL = frozenset({"completed", "failed", "expired", "cancelled", "deleted", "lost"})
"""Statuses in which nothing is being made any more; `lost` is a video that a restart forgot."""


@dataclass(slots=True)
class Post:
    """One `POST /v1/videos`, counted when its headers arrived."""

    number: int
    at: float
    idempotency_key: str | None
    authorization: bool
    """Whether an Authorization header came with it."""
    content_type: str
    trace: list[str | None]
    """Its `traceparent` and `tracestate`."""
    prompt: str = ""
    fields: dict[str, Any] = field(default_factory=dict)
    complete: bool = False
    """Whether its body arrived whole."""
    accepted: bool = False
    """Whether a video was made for it: it is paid."""
    answered: bool = False
    status: int | None = None
    """The HTTP status that it was answered with."""
    video_id: str | None = None
    fault: str | None = None


@dataclass(slots=True)
class Video:
    """One video that was accepted, and so paid, whatever became of it."""

    id: str
    number: int
    post: int
    prompt: str
    model: str
    seconds: str
    size: str
    latency: float
    bytes: int
    accepted_at: float
    price: str = "0"
    """What it costs in US dollars."""
    bills_failed: bool = True
    replica: int = 0
    """The server that has it, of those behind the address."""
    doom: dict[str, Any] | None = None
    """The error that it will end with."""
    status: str = "queued"
    error: dict[str, Any] | None = None
    done_at: float | None = None
    deleted_at: float | None = None
    forgotten: bool = False
    polls: int = 0
    fetched: list[float] = field(default_factory=list)
    """When its content was sent whole."""

    @property
    def group(self) -> str | None:
        """The prompt up to its first colon: tests put a batch's name there."""
        name, colon, _ = self.prompt.partition(":")
        return name if colon else None

    @property
    def billed(self) -> Decimal:
        """What is paid for it, in US dollars."""
        return Decimal(0) if self.status == "failed" and not self.bills_failed else Decimal(self.price)

    @property
    def known(self) -> bool:
        """Whether a client may still ask for it."""
        return self.deleted_at is None and not self.forgotten

    def as_json(self) -> dict[str, Any]:
        digest = mp4.sha256(self.id, self.bytes) if self.status == "completed" else None
        return _as_json(self) | {"group": self.group, "sha256": digest}


@dataclass(slots=True)
class Elsewhere:
    """A request at the other address, the one that redirects lead to."""

    at: float
    method: str
    path: str
    authorization: bool


class Ledger:
    """Everything that happened since the start or the last reset, restarts included."""

    def __init__(self) -> None:
        self.posts: list[Post] = []
        self.videos: dict[str, Video] = {}
        self.elsewhere: list[Elsewhere] = []
        self.requests: Counter[str] = Counter()
        self.in_flight: Counter[str | None] = Counter()
        self.max_in_flight = 0
        self.max_in_flight_per_group: Counter[str] = Counter()
        self.max_requests_per_second = 0
        self.ended: Counter[str] = Counter()
        self.fetched = 0
        self.answered = 0
        self.deleted = 0
        self.paid_twice: list[str] = []
        self._last_second: deque[float] = deque()
        self._of_prompt: dict[str, list[Video]] = {}

    def requested(self, route: str) -> None:
        self.requests[route] += 1
        now = time.monotonic()
        self._last_second.append(now)
        while self._last_second[0] <= now - 1:
            self._last_second.popleft()
        self.max_requests_per_second = max(self.max_requests_per_second, len(self._last_second))

    def posted(self, headers: Mapping[str, str]) -> Post:
        post = Post(
            number=len(self.posts) + 1,
            at=time.time(),
            idempotency_key=headers.get("Idempotency-Key"),
            authorization="Authorization" in headers,
            trace=[headers.get("traceparent"), headers.get("tracestate")],
            content_type=headers.get("Content-Type", ""),
        )
        self.posts.append(post)
        return post

    def accepted(self, post: Post, video: Video) -> None:
        post.accepted, post.video_id = True, video.id
        self.videos[video.id] = video
        earlier = self._of_prompt.setdefault(video.prompt, [])
        if any(other.status not in TERMINAL or other.status == "completed" for other in earlier):
            self.paid_twice.append(video.prompt)
        earlier.append(video)
        self._one_more_in_flight(video.group)

    def ended_as(self, video: Video, status: str, error: dict[str, Any] | None) -> None:
        video.status, video.error, video.done_at = status, error, time.time()
        self.in_flight[None] -= 1
        if video.group is not None:
            self.in_flight[video.group] -= 1
        self.ended[status] += 1

    def answered_with(self, post: Post, status: int) -> None:
        post.answered, post.status = True, status
        self.answered += 1

    def fetched_whole(self, video: Video) -> None:
        video.fetched.append(time.time())
        self.fetched += 1

    def noted_elsewhere(self, seen: Elsewhere) -> None:
        self.elsewhere.append(seen)

    def deleted_by_request(self, video: Video) -> None:
        video.deleted_at = time.time()
        self.deleted += 1

    def counts(self) -> dict[str, int]:
        """What a test can wait for; every number costs the same however long the ledger is."""
        return {
            "posts": len(self.posts),
            "accepted": len(self.videos),
            "answered": self.answered,
            "in_flight": self.in_flight[None],
            "max_in_flight": self.max_in_flight,
            "completed": self.ended["completed"],
            "failed": self.ended["failed"],
            "deleted": self.deleted,
            "fetched": self.fetched,
            "elsewhere": len(self.elsewhere),
            "leaked_authorizations": sum(seen.authorization for seen in self.elsewhere),
        }

    def summary(self) -> dict[str, Any]:
        return self.counts() | {
            "max_in_flight_per_group": dict(self.max_in_flight_per_group),
            "max_requests_per_second": self.max_requests_per_second,
            "requests": dict(self.requests),
            "posts_per_prompt": dict(Counter(post.prompt for post in self.posts)),
            "paid_per_prompt": {prompt: len(made) for prompt, made in self._of_prompt.items()},
            "paid_twice": self.paid_twice,
            "billed": f"{sum((video.billed for video in self.videos.values()), Decimal(0)):f}",
        }

    def as_json(self) -> dict[str, Any]:
        return self.summary() | {
            "posts": [_as_json(post) for post in self.posts],
            "videos": [video.as_json() for video in self.videos.values()],
            "elsewhere": [_as_json(seen) for seen in self.elsewhere],
        }

    def _one_more_in_flight(self, group: str | None) -> None:
        self.in_flight[None] += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight[None])
        if group is not None:
            self.in_flight[group] += 1
            most = max(self.max_in_flight_per_group[group], self.in_flight[group])
            self.max_in_flight_per_group[group] = most


def _as_json(record: Post | Video | Elsewhere) -> dict[str, Any]:
    """Do as `dataclasses.asdict`, without its copies: a ledger has tens of thousands of records."""
    return {name: getattr(record, name) for name in record.__slots__}
