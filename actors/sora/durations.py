"""Durations: how soon recent videos of a kind were ready, as observed. Pure.

Videos of a kind take equally long: same model, seconds, size. Ages are seconds since a video's acceptance.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field

_RECENT, _QUICK = 16, 8
"""How many recent videos count; of these the quickest decide, except for one in so many."""
_KINDS = 256
_CLOSE = 0.1
"""How far below an age seen as ready the truth may be, as a fraction of it, before an earlier poll pays."""
_TRIES = 4
"""One in so many is polled earlier, to learn whether such videos are ready sooner; all, if none was unready."""


@dataclass(slots=True)
class _Kind:
    ready: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT))
    quick: float | None = None
    """The age at which the quick ones are ready."""
    longest_unready: float = 0.0
    """The largest age below `quick` at which one was not ready."""
    asked: int = 0


class Durations:
    """Learns from every poll, and says when the next video is worth polling."""

    def __init__(self) -> None:
        self._kinds: dict[Hashable, _Kind] = {}

    def unready(self, kind: Hashable, age: float) -> None:
        """A video was still being made at this age."""
        seen = self._of(kind)
        if seen.quick is None or age < seen.quick:
            seen.longest_unready = max(seen.longest_unready, age)

    def ready(self, kind: Hashable, age: float) -> None:
        """A video was ready at this age, perhaps earlier."""
        seen = self._of(kind)
        seen.ready.append(age)
        seen.quick = sorted(seen.ready)[len(seen.ready) // _QUICK]
        if seen.longest_unready >= seen.quick:
            seen.longest_unready = 0.0

    def expected(self, kind: Hashable) -> float | None:
        """The age at which a new video is worth polling; None: nothing is known of its kind."""
        seen = self._kinds.get(kind)
        if seen is None or seen.quick is None:
            return None
        seen.asked += 1
        tries = not seen.longest_unready or seen.asked % _TRIES == 0
        if tries and seen.quick - seen.longest_unready > _CLOSE * seen.quick:
            return (seen.quick + seen.longest_unready) / 2
        return seen.quick

    def _of(self, kind: Hashable) -> _Kind:
        if kind not in self._kinds:
            if len(self._kinds) == _KINDS:
                del self._kinds[next(iter(self._kinds))]
            self._kinds[kind] = _Kind()
        return self._kinds[kind]
