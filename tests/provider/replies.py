"""What the Videos API answers when nothing is wrong: the bodies, as values, and how they become responses."""

import json
import time
from dataclasses import dataclass, field
from decimal import Decimal
from email.utils import formatdate
from typing import Any

from aiohttp import web

from tests.provider.options import Options
from tests.provider.records import TERMINAL, Video


@dataclass(slots=True)
class Reply:
    body: Any
    """JSON; or, as bytes or a string, what is sent as it is."""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "application/json"

    def response(self) -> web.Response:
        raw = self.raw()
        headers = dict(self.headers)
        if not any(name.lower() == "content-type" for name in headers):
            headers["Content-Type"] = self.content_type
        return web.Response(body=raw, status=self.status, headers=headers)

    def raw(self) -> bytes:
        if isinstance(self.body, bytes):
            return self.body
        if isinstance(self.body, str):
            return self.body.encode()
        return json.dumps(self.body).encode()


_IN_USAGE = {"cost": ("cost", 1), "ticks": ("cost_in_usd_ticks", 10**10)}
"""The fields of a Video's `usage` that tell its price, and their units in a US dollar."""


def price_header(video: Video, options: Options) -> dict[str, str]:
    return {"x-litellm-response-cost": video.price} if options.tells_price == "header" else {}


def job(video: Video, options: Options) -> dict[str, Any]:
    done = video.done_at
    status, progress = _standing(video)
    told = {
        "id": video.id,
        "object": "video",
        "model": video.model,
        "status": status,
        "progress": progress,
        "created_at": int(video.accepted_at + options.skew),
        "completed_at": int(done + options.skew) if done and status == "completed" else None,
        "expires_at": int(done + options.skew) + 3600 if done and status == "completed" else None,
        "prompt": video.prompt,
        "seconds": video.seconds,
        "size": video.size,
        "remixed_from_video_id": None,
        "error": video.error,
    }
    if status == "completed" and options.tells_price in _IN_USAGE:
        name, units = _IN_USAGE[options.tells_price]
        cost = Decimal(video.price) * units
        told["usage"] = {name: int(cost) if cost == int(cost) else float(cost)}
    if not options.tells:
        return told
    return {key: value for key, value in {**told, **options.tells}.items() if value is not None}


def listing(page: list[dict[str, Any]], *, has_more: bool) -> dict[str, Any]:
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": has_more,
    }


def deleted(video: Video) -> dict[str, Any]:
    return {"id": video.id, "object": "video.deleted", "deleted": True}


def error(status: int, message: str, code: str | None = None, headers: dict[str, str] | None = None) -> Reply:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    body = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    return Reply(body, status, headers or {})


def date(skew: float) -> str:
    return formatdate(time.time() + skew, usegmt=True)


def _standing(video: Video) -> tuple[str, int]:
    if video.status in TERMINAL:
        return video.status, 100 if video.status == "completed" else 0
    passed = time.time() - video.accepted_at
    progress = min(99, int(100 * passed / video.latency)) if video.latency else 99
    return ("in_progress", progress) if video.polls else ("queued", 0)
