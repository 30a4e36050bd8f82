"""Who may ask what: bearer token, Host and Origin; and errors as RFC 9457 has them."""

from __future__ import annotations

import hmac
import ipaddress
import json
import logging
from collections.abc import Iterable
from http import HTTPStatus
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from actors.errors import ErrorCode, FieldError

logger = logging.getLogger(__name__)

OPEN = frozenset({"/livez", "/readyz", "/metrics"})
"""Open to everybody, under any Host: they hold no id and no prompt."""
_READS = frozenset({"GET", "HEAD", "OPTIONS"})
_LONGEST_REQUEST_ID = 128
_HEADERS = {
    "Cache-Control": "no-store",
    "Server": "sora-batch",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}
_CODES = {400: ErrorCode.INVALID_REQUEST, 404: ErrorCode.NOT_FOUND, 405: ErrorCode.INVALID_REQUEST}


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine reach what listens there."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def problem(
    status: int,
    code: ErrorCode,
    detail: str,
    errors: Iterable[FieldError] = (),
    headers: dict[str, str] | None = None,
) -> web.Response:
    """An error as `application/problem+json`."""
    document = {
        "type": f"urn:sora-batch:error:{code.value}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code.value,
        "errors": [
            {"field": each.field, "message": each.message, "expected": each.expected, "code": each.code}
            for each in errors
        ],
    }
    return web.Response(
        status=status, body=json.dumps(document).encode(), content_type="application/problem+json", headers=headers
    )


def guard(token: str | None) -> Middleware:
    """What each request passes before it is handled.

    Args:
        token: the one that requests must carry; None: none is needed, since only this machine can ask.
    """

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        refused = _refusal(request, token)
        if refused is None:
            response = await _handled(request, handler)
        else:
            response = refused
        response.headers.update(_HEADERS)
        request_id = request.headers.get("X-Request-Id", "")
        if 0 < len(request_id) <= _LONGEST_REQUEST_ID and request_id.isascii() and request_id.isprintable():
            response.headers["X-Request-Id"] = request_id
        return response

    return guarded


def _refusal(request: web.Request, token: str | None) -> web.Response | None:
    if request.method not in _READS and not _is_own_origin(request):
        origin = request.headers["Origin"][:200]
        return problem(403, ErrorCode.PERMISSION, f"a request from the foreign origin {origin!r} may change nothing")
    if request.path in OPEN:
        return None
    if token is None:
        if not is_loopback(_host_of(request.headers.get("Host", ""))):
            text = "the Host is not this machine's: use localhost or 127.0.0.1, or set WEB_TOKEN"
            return problem(403, ErrorCode.PERMISSION, text)
        return None
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    # Compared as bytes: a header may hold anything.
    same = hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), token.encode())
    if scheme.lower() == "bearer" and same:
        return None
    wrong = "the token is wrong" if given else "a token is needed"
    text = f"{wrong}: send Authorization: Bearer with the service's WEB_TOKEN"
    return problem(401, ErrorCode.AUTHENTICATION, text, headers={"WWW-Authenticate": 'Bearer realm="sora-batch"'})


def _is_own_origin(request: web.Request) -> bool:
    """Whether a browser sends it from a page of ours; a program sends no Origin."""
    origin = request.headers.get("Origin")
    if origin is None:
        return True
    try:
        place = urlsplit(origin).netloc
    except ValueError:
        return False
    return bool(place) and place.lower() == request.headers.get("Host", "").lower()


def _host_of(host: str) -> str:
    """A Host header without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


async def _handled(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        code = _CODES.get(error.status, ErrorCode.INVALID_REQUEST)
        allow = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
        text = f"{request.method} {request.path[:200]}: {error.reason.lower()}"
        return problem(error.status, code, text, headers=allow)
    except Exception:
        logger.exception("a request failed", extra={"action": "web_failed", "path": request.path})
        return problem(500, ErrorCode.INTERNAL, "the service failed at this request; its log says why")
