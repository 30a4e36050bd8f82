"""How a simulator is to behave: one frozen object, checked at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from actors.simulator.profiles import PROFILES

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class SimulatorOptions:
    """How a simulator treats the requested videos.

    Raises:
        ValueError: a value that no simulator can have.
    """

    latency: tuple[float, float] = (2.0, 5.0)
    """Seconds from acceptance to the end, drawn evenly between the two."""
    failure_rate: float = 0.0
    """The share of generations that fail, 0 to 1."""
    moderation: tuple[str, ...] = ()
    """A prompt with one of these words in it, in any case, fails with `moderation_blocked`."""
    rate_limit: float | None = None
    """Creates per second; one second's worth may come at once, above that 429."""
    api_key: str | None = None
    """Demanded as a Bearer token."""
    content_bytes: int | None = None
    """Draw nothing: contents are of exactly this size and begin as their kind does (MP4: an `ftyp` box)."""
    seed: int | None = None
    """The same seed and prompts give the same latencies and failures, in whatever order they come."""
    profile: str = "openai"
    """Whose answers to give: a name in PROFILES."""
    strict: bool = False
    """Accept only the seconds, sizes, models and fields of the hosted API; only with the profile `openai`."""
    model: str | None = None
    """The only model served; by default `sora-2`, and with the profile `openai` any requested one."""
    replicas: int = 1
    """The number of stores behind one port, each with its own videos: every request goes to a random one."""
    state_file: Path | None = None
    """JSON lines of what was accepted and deleted, so that a restarted simulator continues."""

    def __post_init__(self) -> None:
        """Check the values against each other."""
        low, high = self.latency
        _demand(0 <= low <= high, f"latency must go from low to high, both 0 or more (got {self.latency!r})")
        _demand(0 <= self.failure_rate <= 1, f"failure_rate must be from 0 to 1 (got {self.failure_rate!r})")
        _demand(self.rate_limit is None or self.rate_limit > 0, f"rate_limit must be above 0 (got {self.rate_limit!r})")
        _demand(self.content_bytes is None or self.content_bytes >= 0, "content_bytes must be 0 or more")
        _demand(self.profile in PROFILES, f"profile must be one of {', '.join(PROFILES)} (got {self.profile!r})")
        _demand(
            not self.strict or self.profile == "openai",
            f"strict works with the profile openai only; {self.profile} always validates as its server does",
        )
        _demand(self.replicas >= 1, f"replicas must be 1 or more (got {self.replicas!r})")


def _demand(holds: bool, message: str) -> None:  # noqa: FBT001 - an assertion's condition has no other name
    if not holds:
        raise ValueError(message)
