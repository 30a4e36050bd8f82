"""Who may ask what: bearer token or session, Host, Origin, read-only; and how many wrong tokens a peer may send."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import math
import time
from collections import OrderedDict, deque
from urllib.parse import urlsplit

from aiohttp import web

from actors.web.problems import Refused, refused

OPEN = frozenset({"/livez", "/readyz", "/metrics"})
"""Open to everybody, under any Host: they hold no id and no prompt."""
SESSION = "sora_batch_session"
"""The cookie of a login."""
SESSION_SECONDS = 7 * 24 * 3600
ONLY_SHOWS = "this service only shows batches (WEB_READ_ONLY): use one that may change them"
_CARRIES_TOKEN = web.RequestKey("carries_token", bool)
"""Whether the Authorization that a request carries is right: found out once, at its peer's turn."""
_READS = frozenset({"GET", "HEAD", "OPTIONS"})
FAILURES, FAILURE_SECONDS = 10, 60.0
"""So many wrong tokens may one peer send in so many seconds."""
TURN_SECONDS, WAIT_SECONDS = 1.0, 5.0
"""Of a peer that has sent more, one token is looked at in so many seconds; and so long may one wait for its turn."""
_PEERS = 10_000


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine reach what listens there."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Access:
    """Who may ask.

    Args:
        token: the one that requests must carry; None: none is needed, since only this machine can ask.
        read_only: whether nobody may change anything.
        public_url: where browsers find the service, if a proxy before it changes the Host.
    """

    def __init__(self, token: str | None, *, read_only: bool = False, public_url: str | None = None) -> None:
        self.token, self.read_only = token, read_only
        self._public = _place(public_url or "")
        self._guesses = Guesses()
        self._key = hmac.digest((token or "").encode(), b"sora-batch session", hashlib.sha256)

    def is_token(self, given: str) -> bool:
        """Whether this is the token; in constant time, and as bytes, since a header may hold anything."""
        return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), (self.token or "").encode())

    def session(self) -> str:
        """A cookie's value that is taken in the token's place for a week, or until there is another token."""
        until = str(int(time.time()) + SESSION_SECONDS)
        return f"{until}.{self._signature(until)}"

    def peer_of(self, request: web.Request) -> str:
        """Who asks, as far as wrong tokens are counted."""
        return peer_of(request, behind_proxy=bool(self._public))

    async def check(self, request: web.Request) -> None:
        """Refuse what may not be asked.

        Raises:
            Refused: 401 without the token, 403 from a foreign Origin or Host, or for a write in read-only mode; 429
                after many wrong tokens.
        """
        handler = request.match_info.handler
        writes = request.method not in _READS
        if writes and not self._is_own_origin(request):
            origin = request.headers["Origin"][:200]
            raise refused(403, f"a request from the foreign origin {origin!r} can't change anything")
        if self.token is not None and request.headers.get("Authorization"):
            await self._check_token(request)
        if request.path not in OPEN:
            self._check_who(request, public=getattr(handler, "public", False))
        if writes and self.read_only and not getattr(handler, "changes_nothing", False):
            raise refused(403, ONLY_SHOWS)

    def is_known(self, request: web.Request) -> bool:
        """Whether a request carries the token, or a session that was begun with it."""
        return request[_CARRIES_TOKEN] if _CARRIES_TOKEN in request else self.has_session(request)

    def has_session(self, request: web.Request) -> bool:
        """Whether a request carries the cookie of a login that is still good."""
        until, _, signature = request.cookies.get(SESSION, "").partition(".")
        same = hmac.compare_digest(signature.encode("utf-8", "surrogateescape"), self._signature(until).encode())
        return same and until.isdigit() and int(until) > time.time()

    async def _check_token(self, request: web.Request) -> None:
        """Look at the token, also where none is needed: whatever an answer says more for it is a guess confirmed."""
        peer = self.peer_of(request)
        await self._guesses.turn(peer)
        given = request.headers.get("Authorization", "")
        scheme, _, token = given.partition(" ")
        request[_CARRIES_TOKEN] = scheme.lower() == "bearer" and self.is_token(token.strip())
        if not request[_CARRIES_TOKEN]:
            self._guesses.wrong(peer, given)

    def _check_who(self, request: web.Request, *, public: bool) -> None:
        if self.token is None:
            if not is_loopback(_host_of(request.headers.get("Host", ""))):
                raise refused(403, "the Host is not this machine's: use localhost or 127.0.0.1, or set WEB_TOKEN")
            return
        if public or self.is_known(request):
            return
        wrong = "the token is wrong" if _CARRIES_TOKEN in request else "a token is needed"
        text = f"{wrong}: send Authorization: Bearer with the service's WEB_TOKEN"
        raise refused(401, text, headers={"WWW-Authenticate": 'Bearer realm="sora-batch"'})

    def _is_own_origin(self, request: web.Request) -> bool:
        """Whether a browser sends it from a page of ours; a program sends no Origin."""
        origin = request.headers.get("Origin")
        if origin is None:
            return True
        place = _place(origin)
        return bool(place) and place in {request.headers.get("Host", "").lower(), self._public}

    def _signature(self, until: str) -> str:
        return hmac.new(self._key, until.encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()


def _place(url: str) -> str:
    """Host and port of a URL; "": it has none."""
    try:
        return urlsplit(url).netloc.lower()
    except ValueError:
        return ""


def _host_of(host: str) -> str:
    """A Host header without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


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
