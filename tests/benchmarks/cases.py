"""What is measured: the cases, and who is measured in them."""

from __future__ import annotations

from dataclasses import dataclass

OURS, FLOOR, SDK, SDK_AIOHTTP, DRAMATIQ = "sora-batch", "floor", "openai", "openai-aiohttp", "dramatiq"
PEERS = {
    FLOOR: ("floor",),
    OURS: ("ours",),
    SDK_AIOHTTP: ("openai_sdk", "aiohttp"),
    SDK: ("openai_sdk", "httpx"),
    DRAMATIQ: ("dramatiq_group",),
}
"""By name: the module in `peers/` and its words. In this order they take their turns."""
LISTENING = "sora-batch-listening"
VARIANTS = {LISTENING: ("ours", "listening")}
"""Of ours; they take turns with the plain one only."""
WITH_RABBITMQ = frozenset({DRAMATIQ})
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Case:
    """So many videos, so many at once, of such a latency."""

    name: str
    videos: int
    concurrency: int
    latency: float
    """Seconds that the server takes for a video."""
    poll: float = 0.1
    content_bytes: int = 10_000
    batches: int = 1
    failing_every: int = 0
    refused_every: int = 0
    queued_first: bool = False
    without: tuple[str, ...] = ()
    """Peers that would not end in a bearable time."""

    @property
    def ideal(self) -> float:
        """The seconds that a client needs that needs none for itself."""
        return -(-self.videos // self.concurrency) * self.latency

    @property
    def deadline(self) -> float:
        """Seconds after which a peer is given up."""
        return 60 + 5 * self.ideal + 0.05 * self.videos

    @property
    def title(self) -> str:
        """What it is, in a line."""
        parts = [f"{self.videos:,} videos, {self.concurrency:,} at once, {self.latency:g} s each"]
        if self.batches > 1:
            parts.append(f"in {self.batches:,} batches")
        if self.content_bytes >= MIB:
            parts.append(f"files of {self.content_bytes // MIB} MiB")
        if self.failing_every:
            parts.append(f"{100 // self.failing_every} % fail")
        if self.refused_every:
            parts.append(f"{100 // self.refused_every} % of the POSTs refused by 429")
        if self.queued_first:
            parts.append("told `queued` at first")
        return ", ".join([*parts, f"polled every {self.poll:g} s"])


def _in_flight(count: int) -> Case:
    without = (DRAMATIQ,) if count > 100 else ()
    return Case(f"flight-{count}", count, count, 30, poll=2, without=without)


CASES = {
    case.name: case
    for case in (
        Case("10", 10, 3, 2),
        Case("100", 100, 10, 0.2),
        Case("1000", 1000, 50, 0.2),
        Case("2000-slow", 2000, 200, 2),
        Case("2000-fast", 2000, 20, 0),
        Case("2000-queued", 2000, 20, 0, queued_first=True),
        Case("large", 100, 10, 0, content_bytes=8 * MIB),
        Case("failures", 400, 20, 0.2, failing_every=20, refused_every=10),
        Case("batches", 3000, 150, 0.2, batches=1000),
        _in_flight(100),
        _in_flight(1000),
        _in_flight(5000),
        _in_flight(10_000),
    )
}
