"""The Videos API as servers really speak it: bodies and headers in, our own types out. Pure, and tolerant.

Only `id` and `status` of a video are reliable. An unknown status means "not finished": a deadline ends it.
"""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Any, NamedTuple

from actors.errors import ErrorCode, Failure
from actors.json_objects import is_nested_deeper

_GOOD = frozenset({"completed", "succeeded", "success", "done"})
_BAD = frozenset({"failed", "error", "cancelled", "canceled", "expired", "deleted", "rejected"})
MODERATION = ("moderation", "content_policy", "sentinel", "safety")
_BILLED = ("cost", "cost_in_usd_ticks", "duration_seconds", "total_tokens", "completion_tokens")
PRICE_HEADER = "x-litellm-response-cost"
_WRAPPED, _LITELLM, _ID = "video_", "litellm:", "video_id:"
WRAPPED = "video_bGl0ZWxsbT"
"""The prefix of every id of a LiteLLM proxy: `litellm:` in base64."""
DETAIL_MAX = 500
_LARGEST = 1e15
_LATEST = 253_402_300_800.0
"""The end of the year 9999, in seconds since 1970: later times can't be shown."""
_MOST_VALUES = 1_000_000
_DEEPEST = 64
_LONGEST_ID, _IDENTIFIES = 1024, (str, int)
LONGEST_PAUSE = 86_400.0
"""Seconds: no server may pause a process for longer than a day."""


class Phase(Enum):
    """The meaning of a status."""

    WORKING = "working"
    READY = "ready"
    ENDED_BADLY = "ended badly"


class RemoteVideo(NamedTuple):
    """A video as a server reported it; None: not reported. A tuple: a listing has many, again and again."""

    id: str | None
    status: str
    phase: Phase
    progress: int | None
    created_at: float | None
    prompt: str | None
    model: str | None
    seconds: str | None
    size: str | None
    failure: Failure | None
    """Why it failed."""
    urls: tuple[str, ...]
    """Other URLs of its file."""
    inline: str | None
    """The file itself, in base64: a synchronous server has no other place for it."""
    seed: int | None = None
    revised_prompt: str | None = None
    told: dict[str, Any] | None = None
    """Its price and the billed seconds, under the server's own names."""


def parse_video(body: Any) -> RemoteVideo | None:
    """Read a video object; None if it is none."""
    if not isinstance(body, dict) or not isinstance(body.get("status"), str):
        return None
    status = short(body["status"])
    phase = phase_of(status)
    data = body.get("data")
    entries = [entry for entry in data if isinstance(entry, dict)] if isinstance(data, list) else []
    return RemoteVideo(
        id=identifier(body),
        status=status,
        phase=phase,
        progress=_percent(body.get("progress")),
        created_at=_time(body.get("created_at") or body.get("created")),
        prompt=_text(body.get("prompt")),
        model=_text(body.get("model")),
        seconds=_seconds(body.get("seconds")),
        size=_text(body.get("size")),
        failure=_generation_failure(status, body.get("error")) if phase is Phase.ENDED_BADLY else None,
        urls=_urls(body, entries),
        inline=next((entry["b64_json"] for entry in entries if isinstance(entry.get("b64_json"), str)), None),
        seed=_seed(body.get("seed")),
        revised_prompt=_text(body.get("revised_prompt")),
        told=_billed(body["usage"]) if isinstance(body.get("usage"), dict) else None,
    )


def _billed(usage: dict[str, Any]) -> dict[str, Any] | None:
    """The prices in a server's `usage`, as reported and unconverted."""
    told = {f"usage.{name}": usage.get(name) for name in _BILLED}
    return {
        name: value for name, value in told.items() if not isinstance(value, bool) and as_number(value) is not None
    } or None


def price_told(headers: Mapping[str, str]) -> dict[str, Any] | None:
    """The price in the header of a LiteLLM proxy's answer to a create, in US dollars, as text."""
    value = headers.get(PRICE_HEADER)
    return {PRICE_HEADER: value} if value is not None and as_number(value) is not None else None


def _seed(value: Any) -> int | None:
    number = int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20 else value
    return number if isinstance(number, int) and not isinstance(number, bool) and 0 <= number < 2**63 else None


def phase_of(status: str) -> Phase:
    """The meaning of a status, in any case."""
    word = status.lower()
    if word in _GOOD:
        return Phase.READY
    return Phase.ENDED_BADLY if word in _BAD else Phase.WORKING


def parse_json(text: bytes | bytearray) -> Any:
    """Read JSON; None if it is none, or has too many values or levels."""
    opened = text.count(b"[") + text.count(b"{")
    if opened + text.count(b",") > _MOST_VALUES:
        return None
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return None if opened > _DEEPEST and is_nested_deeper(document, _DEEPEST) else document


def error_words(body: Any) -> tuple[str | None, str]:
    """`(code, message)` of an error, in any shape that servers use."""
    error = body
    if isinstance(body, dict):
        error = body.get("error", body.get("detail", body))
    if isinstance(error, dict):
        code = error.get("code")
        message = error.get("message") or error.get("detail") or error.get("error") or ""
        return (short(str(code)) if code is not None else None), short(message)
    if isinstance(error, list):
        return None, short(json.dumps(error, ensure_ascii=False))
    return None, short(error or "")


def _generation_failure(status: str, error: Any) -> Failure:
    code, message = error_words(error if isinstance(error, dict | str | list) else None)
    words = f"{code or ''} {message}".lower()
    blocked = any(word in words for word in MODERATION)
    name = ErrorCode.MODERATION_BLOCKED if blocked else ErrorCode.GENERATION_FAILED
    text = message or f"the server reported the status {status!r} without a reason"
    return Failure(name, text, {"status": status, "code": code, "message": message})


@functools.lru_cache(maxsize=8)  # all answers within a second have the same date
def http_date(value: str | None) -> float | None:
    """An HTTP date as seconds since 1970; None if it is none."""
    try:
        return parsedate_to_datetime(value).timestamp() if value else None
    except (ValueError, OverflowError, TypeError):
        return None


def poll_hint(headers: Mapping[str, str]) -> float | None:
    """Seconds until the server wants to be polled again."""
    milliseconds = as_number(headers.get("openai-poll-after-ms"))
    return None if milliseconds is None or milliseconds <= 0 else min(milliseconds / 1000, LONGEST_PAUSE)


def _urls(body: dict[str, Any], entries: list[dict[str, Any]]) -> tuple[str, ...]:
    found: list[Any] = [body.get("url")]
    for key in ("urls", "unsigned_urls"):
        more = body.get(key)
        found += more if isinstance(more, list) else []
    found += [entry.get("url") for entry in entries]
    return tuple(url for url in found if isinstance(url, str) and url.startswith(("http://", "https://")))


def short(value: Any) -> str:
    """A server's text, shortened, and without characters that a database can't store."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = text.replace("\0", "").encode(errors="replace").decode()
    return text if len(text) <= DETAIL_MAX else f"{text[: DETAIL_MAX - 3]}..."


def identifier(body: dict[str, Any]) -> str | None:
    """A video's id, if it can be stored and used in a URL: dots alone would change the path."""
    value = body.get("id") or body.get("task_id")
    text = str(value) if isinstance(value, _IDENTIFIES) and value else ""
    return text if text.strip(".") and len(text) <= _LONGEST_ID and _can_be_kept(text) else None


def inner_id(remote_id: str) -> str:
    """The id of the server behind a LiteLLM proxy, which the proxy's own ids contain; any other id is returned as is.

    The proxy writes the id of one video in several ways, so ids are compared by this.
    """
    if not remote_id.startswith(_WRAPPED):
        return remote_id
    packed = remote_id.removeprefix(_WRAPPED).rstrip("=").replace("-", "+").replace("_", "/")
    try:
        text = base64.b64decode(packed + "=" * (-len(packed) % 4), validate=True).decode()
    except ValueError:
        return remote_id
    parts = text.removeprefix(_LITELLM).split(";") if text.startswith(_LITELLM) else []
    inner = next((part.removeprefix(_ID) for part in parts if part.startswith(_ID)), "")
    return inner_id(inner) if inner else remote_id


def _can_be_kept(text: str) -> bool:
    """Whether a database and JSON can hold it: no NUL character, no lone surrogate."""
    if text.isascii():
        return "\0" not in text
    return text == text.replace("\0", "").encode(errors="replace").decode()


def _time(value: Any) -> float | None:
    number = as_number(value)
    return number if number is not None and 0 <= number < _LATEST else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value and _can_be_kept(value) else None


def as_number(value: Any) -> float | None:
    """A number or a text as a number of a believable size."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if abs(number) < _LARGEST else None  # NaN and infinity fail this too


def _percent(value: Any) -> int | None:
    number = as_number(value.strip().removesuffix("%") if isinstance(value, str) else value)
    return None if number is None else min(100, max(0, int(number)))


def _seconds(value: Any) -> str | None:
    number = as_number(value.strip().lower().removesuffix("s") if isinstance(value, str) else value)
    return None if number is None else f"{number:g}"
