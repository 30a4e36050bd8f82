"""Guesses: how many wrong tokens a peer may send. Nobody else's requests are slowed by them."""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import math
import time
from collections import OrderedDict, deque
from typing import TYPE_CHECKING

from actors.web.problems import Refused, refused

if TYPE_CHECKING:
    from aiohttp import web

FAILURES, FAILURE_SECONDS = 10, 60.0
"""So many wrong tokens may one peer send in so many seconds."""
TURN_SECONDS, WAIT_SECONDS = 1.0, 5.0
"""Of a peer that has sent more, one token is looked at in so many seconds; and so long may one wait for its turn."""
_PEERS = 10_000


class Failures:
    """The wrong tokens of the last minute, by peer."""

    def __init__(self) -> None:
        self._times: OrderedDict[str, deque[tuple[float, bytes]]] = OrderedDict()

    def note(self, peer: str, guess: str | None = None) -> None:
        """Count a failure; a guess that was made just before is none: it tells its peer nothing new."""
        times = self._times.pop(peer, None) or deque(maxlen=FAILURES)
        digest = b"" if guess is None else hashlib.sha256(guess.encode("utf-8", "surrogateescape")).digest()
        if guess is None or all(digest != before for _, before in times):
            times.append((time.monotonic(), digest))
        self._times[peer] = times
        if len(self._times) > _PEERS:
            self._times.popitem(last=False)

    def wait(self, peer: str) -> float:
        """Seconds until a peer may try again; 0 or less: now."""
        times = self._times.get(peer)
        full = times is not None and len(times) == FAILURES
        return times[0][0] + FAILURE_SECONDS - time.monotonic() if times and full else 0.0


class Guesses:
    """The wrong tokens of programs. Who has sent many waits for a turn, also with the right one: all look alike."""

    def __init__(self) -> None:
        self._failures = Failures()
        self._turns: dict[str, float] = {}

    def wrong(self, peer: str, token: str) -> None:
        """Note a wrong token."""
        self._failures.note(peer, token)

    async def turn(self, peer: str) -> None:
        """Wait until a token of this peer may be looked at.

        Raises:
            Refused: 429, too many wait.
        """
        if self._failures.wait(peer) <= 0:
            self._turns.pop(peer, None)
            return
        now = time.monotonic()
        at = max(now, self._turns.get(peer, now))
        if at - now > WAIT_SECONDS:
            raise too_many(at - now)
        self._turns[peer] = at + TURN_SECONDS
        if len(self._turns) > _PEERS:
            self._turns = {each: turn for each, turn in self._turns.items() if turn > now}
        await asyncio.sleep(at - now)


def too_many(wait: float) -> Refused:
    """429: a peer has sent too many wrong tokens. `wait`: seconds."""
    seconds = max(1, math.ceil(wait))
    text = f"too many wrong tokens: wait {seconds} s before the next try"
    return refused(429, text, headers={"Retry-After": str(seconds)})


def peer_of(request: web.Request, *, behind_proxy: bool = False) -> str:
    """Who asks; of IPv6 the network, all of which one machine may have.

    Args:
        request: the request.
        behind_proxy: whether a proxy of this machine is believed that says for whom it asks.
    """
    address = _address(request.remote or "")
    if behind_proxy and address is not None and address.is_loopback:
        address = _address(request.headers.get("X-Forwarded-For", "").rpartition(",")[2].strip()) or address
    if address is None:
        return request.remote or ""
    return str(ipaddress.ip_network((address, 64), strict=False)) if address.version == 6 else str(address)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
