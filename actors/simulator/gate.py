"""The middleware of every handler: replicas, the key, the rate of creates, the shape of errors, the mark.

A handler, or whatever it calls, raises a Refusal; a middleware answers it in the profile's words.
"""

from __future__ import annotations

import logging
import math
import random
import secrets
from contextvars import ContextVar
from http import HTTPStatus
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware

    from actors.simulator.profiles import Profile

logger = logging.getLogger(__name__)
REPLICA = ContextVar("replica", default=0)
"""The replica that answers the request, from 0."""


class Refusal(Exception):
    """A request that is answered with an HTTP status of 400 or above."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        kind: str = "invalid_request_error",
        headers: dict[str, str] | None = None,
        detail: object = None,
    ) -> None:
        """Hold the parts of the answer; `kind` is told as `type`, `detail` where a server tells no more than that."""
        super().__init__(message)
        self.status, self.message = status, message
        self.param, self.code, self.kind = param, code, kind
        self.headers, self.detail = headers or {}, detail


def invalid(param: str, message: str, code: str = "invalid_value") -> Refusal:
    """Return the refusal of a field's value."""
    return Refusal(400, message, param=param, code=code)


def not_found(message: str) -> Refusal:
    """Return the refusal of an id, or of a content that is not there (yet)."""
    return Refusal(404, message, code="not_found")


def unauthorized(message: str, code: str | None) -> Refusal:
    """Return the refusal of a key."""
    return Refusal(401, message, code=code, headers={"WWW-Authenticate": "Bearer"})


def rate_limited(seconds: float) -> Refusal:
    """Return the refusal of a create that comes too soon; it may come again in so many seconds."""
    # Whole seconds, as most clients read them; exactly, in the header that OpenAI's SDK reads first.
    headers = {"Retry-After": str(math.ceil(seconds)), "retry-after-ms": str(math.ceil(seconds * 1000))}
    message = f"Rate limit reached for videos. Please try again in {seconds:.3f}s."
    return Refusal(429, message, code="rate_limit_exceeded", kind="requests", headers=headers)


async def mark(_: web.Request, response: web.StreamResponse) -> None:
    """Say in every answer that it is simulated."""
    response.headers["X-Simulated"] = "true"


def middlewares(profile: Profile, api_key: str | None, replicas: int, seed: int) -> list[Middleware]:
    """Return the middlewares, the outermost first."""
    each = [_answer_refusals(profile), _check_key(api_key)]
    return [_balance(replicas, seed), *each] if replicas > 1 else each


def _balance(replicas: int, seed: int) -> Middleware:
    """Choose the replica that answers a request, as a load balancer does that knows nothing of the videos."""
    dice = random.Random(seed)  # noqa: S311  (a dice, no secret)

    @web.middleware
    async def choose(request: web.Request, handler: Handler) -> web.StreamResponse:
        replica = dice.randrange(replicas)
        REPLICA.set(replica)
        response = await handler(request)
        response.headers["X-Simulated-Replica"] = str(replica)
        return response

    return choose


def _check_key(api_key: str | None) -> Middleware:
    """Let requests pass that carry the key, or all if there is none."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if api_key is not None:
            _demand_key(request.headers.get("Authorization", ""), api_key)
        return await handler(request)

    return check


def _demand_key(header: str, api_key: str) -> None:
    scheme, _, key = header.partition(" ")
    if scheme.lower() != "bearer" or not key:
        raise unauthorized("You didn't provide an API key. Expected: Authorization: Bearer YOUR_KEY.", None)
    if not secrets.compare_digest(key.strip().encode(), api_key.encode()):
        raise unauthorized("Incorrect API key provided.", "invalid_api_key")


def _answer_refusals(profile: Profile) -> Middleware:
    """Answer what went wrong below in the profile's words."""

    @web.middleware
    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except Refusal as error:
            refusal = error
        except web.HTTPException as error:
            refusal = _from_aiohttp(request, error)
        except Exception as error:
            logger.exception("the simulator failed", extra={"action": "simulator_error", "path": request.path})
            refusal = Refusal(500, f"The simulator failed: {error}", kind="server_error")
        return web.json_response(profile.error(refusal), status=refusal.status, headers=refusal.headers)

    return answer


def _from_aiohttp(request: web.Request, error: web.HTTPException) -> Refusal:
    """Return an unknown route, a wrong method or a body that is too large as a refusal."""
    headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
    message = f"{error.reason} ({request.method} {request.path})"
    code = "unknown_url" if error.status == HTTPStatus.NOT_FOUND else None
    return Refusal(error.status, message, code=code, headers=headers, detail=error.reason)


class RateLimit:
    """A token bucket; reads no clock."""

    def __init__(self, per_second: float) -> None:
        """Begin full; a bucket holds at least one, or nothing would ever pass."""
        self._per_second = per_second
        self._room = max(1.0, per_second)
        self._tokens = self._room
        self._looked_at: float | None = None

    def take(self, now: float) -> float:
        """Take one; 0.0 if there was one, else the seconds until there is.

        Args:
            now: seconds on a monotonic clock.
        """
        passed = 0.0 if self._looked_at is None else now - self._looked_at
        self._looked_at = now
        self._tokens = min(self._room, self._tokens + passed * self._per_second)
        if self._tokens < 1:
            return (1 - self._tokens) / self._per_second
        self._tokens -= 1
        return 0.0
