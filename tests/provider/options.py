"""How the provider works when no fault is asked of it: one frozen object, validated at once."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

ID_STYLES = ("openai", "uuid", "hex", "vllm")
PRICE_TELLINGS = ("cost", "ticks", "header")
REPLICA_CHOICES = ("random", "round_robin", "sticky")

SMALLEST_VIDEO = 32
"""Bytes: an ftyp box and the head of an mdat box."""


def _words_that_fail() -> dict[str, dict[str, Any]]:
    return {
        "[fail]": {"code": "video_generation_failed", "message": "The video could not be generated."},
        "[moderation]": {
            "code": "moderation_blocked",
            "message": "Your request was blocked by our moderation system.",
        },
    }


@dataclass(frozen=True, kw_only=True)
class Options:
    latency: tuple[float, float] = (0.05, 0.05)
    """Seconds from a video's acceptance to its end: the least and the most."""
    content_bytes: int = 4096
    fail_rate: float = 0.0
    """The part of all videos that fail, 0 to 1."""
    fail_words: dict[str, dict[str, Any]] = field(default_factory=_words_that_fail)
    """A word in a prompt, and the error that its video then ends with."""
    api_key: str | None = None
    """The only key that is let in; without one, everybody is."""
    id_style: str = "openai"
    seed: int = 0
    skew: float = 0.0
    """Seconds that the server's clock (`Date`, `created_at`) is ahead of the machine's."""
    tells: dict[str, Any] = field(default_factory=dict)
    """What each Video says instead or besides, such as `usage`; null leaves a key out."""
    create_headers: dict[str, str] = field(default_factory=dict)
    """Further headers of the answer to a create."""
    prices: dict[str, str] = field(default_factory=dict)
    """US dollars a second, as decimal text, by model (`*`: any other); a video without one is free."""
    tells_price: str | None = None
    """How: `usage.cost` or `usage.cost_in_usd_ticks` of a completed video, or LiteLLM's header on a create's answer."""
    bills_failed: bool = True
    """Whether a video that failed is paid all the same."""
    replicas: int = 1
    """Servers behind the address, each with the videos that it has accepted and no others."""
    replica_choice: str = "random"
    """Which of them a request gets to; `sticky`: all requests of a connection get to the same."""

    def __post_init__(self) -> None:
        low, high = self.latency
        _demand(0 <= low <= high, f"latency must be 0 <= least <= most, not {self.latency!r}")
        _demand(self.content_bytes >= SMALLEST_VIDEO, f"content_bytes must be at least {SMALLEST_VIDEO}")
        _demand(0 <= self.fail_rate <= 1, f"fail_rate must be from 0 to 1, not {self.fail_rate!r}")
        _demand(self.replicas >= 1, f"replicas must be at least 1, not {self.replicas!r}")
        telling = self.tells_price in (None, *PRICE_TELLINGS)
        _demand(telling, f"tells_price must be one of {PRICE_TELLINGS}, not {self.tells_price!r}")
        known = self.replica_choice in REPLICA_CHOICES
        _demand(known, f"replica_choice must be one of {REPLICA_CHOICES}, not {self.replica_choice!r}")
        _demand(self.id_style in ID_STYLES, f"id_style must be one of {ID_STYLES}, not {self.id_style!r}")

    def changed(self, changes: Mapping[str, Any]) -> Self:
        unknown = changes.keys() - {known.name for known in fields(self)}
        _demand(not unknown, f"unknown options: {sorted(unknown)}")
        values = dict(changes)
        if "latency" in values:
            values["latency"] = latency(values["latency"])
        return replace(self, **values)


def latency(value: float | str | list[float] | tuple[float, float]) -> tuple[float, float]:
    """Read seconds (`2`), or the least and the most (`"1-3"`, `[1, 3]`)."""
    if isinstance(value, str):
        least, _, most = value.partition("-")
        return float(least), float(most or least)
    if isinstance(value, list | tuple):
        return float(value[0]), float(value[1])
    return float(value), float(value)


def _demand(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)
