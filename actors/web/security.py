"""Who may ask what: bearer token or session, Host, Origin, read-only. And what every answer carries."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from aiohttp import web

from actors.web.guesses import Guesses, peer_of
from actors.web.problems import Problem, problem_of, refused

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware

H = TypeVar("H", bound=Callable[..., Awaitable[web.StreamResponse]])
logger = logging.getLogger(__name__)

OPEN = frozenset({"/livez", "/readyz", "/metrics"})
"""Open to everybody, under any Host: they hold no id and no prompt."""
SESSION = "sora_batch_session"
"""The cookie of a login."""
SESSION_SECONDS = 7 * 24 * 3600
ONLY_SHOWS = "this service only shows batches (WEB_READ_ONLY): use one that may change them"
REQUEST_ID = web.RequestKey("request_id", str)
"""What `X-Request-Id` says, or was made up in its place."""
_CARRIES_TOKEN = web.RequestKey("carries_token", bool)
"""Whether the Authorization that a request carries is right: found out once, at its peer's turn."""
_READS = frozenset({"GET", "HEAD", "OPTIONS"})
_LONGEST_REQUEST_ID = 128
HEADERS = {
    "Cache-Control": "no-store",
    "Server": "sora-batch",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}
"""What every answer has, unless its handler says otherwise."""
PageOf = Callable[[web.Request, Problem], web.StreamResponse | None]
"""Shows an error as a page, where a browser asks; None: as JSON."""


def public(handler: H) -> H:
    """Mark what is answered without a token, such as the form of the login."""
    handler.public = True  # type: ignore[attr-defined]
    return handler


def changes_nothing(handler: H) -> H:
    """Mark a POST that changes no batch: WEB_READ_ONLY does not refuse it."""
    handler.changes_nothing = True  # type: ignore[attr-defined]
    return handler


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


def guard(access: Access, page_of: PageOf) -> Middleware:
    """What each request passes before it is handled; and what becomes of an error."""

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        request[REQUEST_ID] = _request_id(request)
        began = time.monotonic()
        try:
            await access.check(request)
            response = await handler(request)
        except web.HTTPRedirection as redirection:
            _log(request, redirection.status, time.monotonic() - began)
            raise
        except Exception as error:  # noqa: BLE001  (whatever it is, the client gets a problem)
            found = _problem(request, error)
            response = page_of(request, found) or found.response()
        _log(request, response.status, time.monotonic() - began)
        return response

    return guarded


async def stamp(request: web.Request, response: web.StreamResponse) -> None:
    """Give an answer the headers that every answer has, before it begins; a handler's own ones stand."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers["Server"] = HEADERS["Server"]  # aiohttp names itself and Python before
    response.headers["X-Request-Id"] = request.get(REQUEST_ID) or _request_id(request)


def _problem(request: web.Request, error: Exception) -> Problem:
    found = problem_of(error)
    if found is None or found.status >= 500:
        what = {"action": "web_failed", "path": request.path[:200], "request_id": request[REQUEST_ID]}
        if found is not None:
            logger.warning("a request failed", extra={**what, "error": str(error)})
            return found
        logger.error("a request failed", exc_info=error, extra=what)
        text = f"the service failed to process this request; its log says why, at request_id {request[REQUEST_ID]}"
        return refused(500, text).problem
    if isinstance(error, web.HTTPException):
        return refused(
            found.status, f"{request.method} {request.path[:200]}: {found.detail}", headers=found.headers
        ).problem
    return found


def _log(request: web.Request, status: int, seconds: float) -> None:
    logger.log(
        logging.DEBUG if request.path in OPEN else logging.INFO,
        "answered a request",
        extra={
            "action": "web",
            "request_id": request[REQUEST_ID],
            "method": request.method,
            "path": request.path[:200],
            "status": status,
            "ms": round(seconds * 1000, 1),
        },
    )


def _request_id(request: web.Request) -> str:
    given = request.headers.get("X-Request-Id", "")
    if 0 < len(given) <= _LONGEST_REQUEST_ID and given.isascii() and given.isprintable():
        return given
    return secrets.token_hex(8)


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
