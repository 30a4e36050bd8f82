"""What holds for every request: the key, the shape of errors, the mark."""

from __future__ import annotations

import logging
import secrets
from http import HTTPStatus
from typing import TYPE_CHECKING

from aiohttp import web

from actors.simulator.refusals import Refusal, unauthorized

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware

    from actors.simulator.profiles import Profile

logger = logging.getLogger(__name__)


async def mark(_: web.Request, response: web.StreamResponse) -> None:
    """Say in every answer that it is simulated."""
    response.headers["X-Simulated"] = "true"


def check_key(api_key: str | None) -> Middleware:
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


def answer_refusals(profile: Profile) -> Middleware:
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
    """Give an unknown route, a wrong method or a body that is too large as a refusal."""
    headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
    message = f"{error.reason} ({request.method} {request.path})"
    code = "unknown_url" if error.status == HTTPStatus.NOT_FOUND else None
    return Refusal(error.status, message, code=code, headers=headers)
