"""An HTTP error that is going to be answered, before a profile gives it its shape.

Refusal (the only class): what is wrong, with the fields that OpenAI's errors have. Raised anywhere below the
handlers, answered in one place in server.py.
"""

from __future__ import annotations

import math


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
    ) -> None:
        """Hold the parts of the answer; `kind` is told as `type`."""
        super().__init__(message)
        self.status, self.message = status, message
        self.param, self.code, self.kind = param, code, kind
        self.headers = headers or {}


def invalid(param: str, message: str, code: str = "invalid_value") -> Refusal:
    """Give the refusal of a field's value."""
    return Refusal(400, message, param=param, code=code)


def not_found(message: str) -> Refusal:
    """Give the refusal of an id, or of a content that is not there (yet)."""
    return Refusal(404, message, code="not_found")


def unauthorized(message: str, code: str | None) -> Refusal:
    """Give the refusal of a key."""
    return Refusal(401, message, code=code, headers={"WWW-Authenticate": "Bearer"})


def rate_limited(seconds: float) -> Refusal:
    """Give the refusal of a create that comes too soon; it may come again in so many seconds."""
    # Whole seconds, as most clients read them; exactly, in the header that OpenAI's SDK reads first.
    headers = {"Retry-After": str(math.ceil(seconds)), "retry-after-ms": str(math.ceil(seconds * 1000))}
    message = f"Rate limit reached for videos. Please try again in {seconds:.3f}s."
    return Refusal(429, message, code="rate_limit_exceeded", kind="requests", headers=headers)
