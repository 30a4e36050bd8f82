"""How often something that died is restarted."""

from __future__ import annotations

from collections.abc import Iterable

RESTARTS, RESTART_PERIOD = 3, 60.0


def restart_allowed(past: Iterable[float], now: float) -> bool:
    """Whether something that died may be restarted, after restarts at these times."""
    return sum(now - RESTART_PERIOD < at for at in past) < RESTARTS
