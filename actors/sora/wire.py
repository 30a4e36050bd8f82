"""The Videos API as servers really speak it: bodies and headers in, our own types out. Pure, and tolerant.

Only `id` and `status` of a video are reliable. An unknown status means "not finished": a deadline ends it.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit, urlunsplit

from actors.depth import is_nested_deeper
from actors.errors import ErrorCode, Failure
from actors.sora.advice import advice

_GOOD = frozenset({"completed", "succeeded", "success", "done"})
_BAD = frozenset({"failed", "error", "cancelled", "canceled", "expired", "deleted", "rejected"})
_MODERATION = ("moderation", "content_policy", "sentinel", "safety")
_WORDS = frozenset({"error", "detail", "code", "message"})
"""Where servers put the text of an error."""
_TOLD = frozenset({"revised_prompt", "size"})
"""Texts of a video that are recorded and shown."""
DETAIL_MAX = 500
_LARGEST = 1e15
_LATEST = 253_402_300_800.0
"""The end of the year 9999, in seconds since 1970: later times can't be shown."""
_MOST_VALUES = 1_000_000
_DEEPEST = 64
_LONGEST_ID = 1024
_LONGEST_PAUSE = 86_400.0
"""Seconds: no server may pause a process for longer than a day."""

REFUSALS = frozenset({400, 401, 402, 403, 404, 405, 413, 415, 422, 429})
"""Answers to a create that prove that nothing was made. Any other answer without an id is unknown."""

_REDIRECTS = frozenset({301, 302, 307, 308})
"""Answers to a create that prove the same if they redirect it to its own path at another address."""

_PORTS = {"http": 80, "https": 443}

_CODES = {
    408: ErrorCode.TIMEOUT,
    400: ErrorCode.INVALID_REQUEST,
    401: ErrorCode.AUTHENTICATION,
    402: ErrorCode.QUOTA_EXCEEDED,
    403: ErrorCode.PERMISSION,
    404: ErrorCode.NOT_FOUND,
    405: ErrorCode.NOT_FOUND,
    413: ErrorCode.INVALID_REQUEST,
    415: ErrorCode.INVALID_REQUEST,
    422: ErrorCode.INVALID_REQUEST,
    429: ErrorCode.RATE_LIMITED,
}


class Phase(Enum):
    """The meaning of a status."""

    WORKING = "working"
    READY = "ready"
    ENDED_BADLY = "ended badly"


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteVideo:
    """A video as a server reported it; None: not reported."""

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


_BILLED = ("cost", "cost_in_usd_ticks", "duration_seconds", "total_tokens", "completion_tokens")


def _billed(usage: dict[str, Any]) -> dict[str, Any] | None:
    """The prices in a server's `usage`, as reported and unconverted."""
    told = {name: usage.get(name) for name in _BILLED}
    found = {
        f"usage.{name}": value
        for name, value in told.items()
        if not isinstance(value, bool) and _number(value) is not None
    }
    return found or None


def price_told(headers: Mapping[str, str]) -> dict[str, Any] | None:
    """The price in the header of a LiteLLM proxy's answer to a create, in US dollars, as text."""
    value = headers.get(PRICE_HEADER)
    return {PRICE_HEADER: value} if value is not None and _number(value) is not None else None


PRICE_HEADER = "x-litellm-response-cost"


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
    if sum(map(text.count, (b",", b"[", b"{"))) > _MOST_VALUES:
        return None
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return None if is_nested_deeper(document, _DEEPEST) else document


def masked(body: Any, mask: Callable[[str], str]) -> Any:
    """A body with secrets masked where it is recorded: in its error texts, and in the texts of its videos."""
    if not isinstance(body, dict):
        return _hidden(body, mask)
    told = {key: _hidden(value, mask) for key, value in body.items() if key in _WORDS | _TOLD}
    listed = body.get("data")
    if isinstance(listed, list):
        told["data"] = [masked(entry, mask) if isinstance(entry, dict) else entry for entry in listed]
    return {**body, **told}


def _hidden(value: Any, mask: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, dict):
        return {mask(key): _hidden(entry, mask) for key, entry in value.items()}
    return [_hidden(entry, mask) for entry in value] if isinstance(value, list) else value


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


def http_failure(status: int, body: Any, what: str) -> Failure:
    """The failure for an HTTP error; `what` was tried."""
    code, message = error_words(body)
    words = f"{code or ''} {message}".lower()
    name = _CODES.get(status, ErrorCode.SERVER_ERROR)
    if status in (400, 403, 422) and any(word in words for word in _MODERATION):
        name = ErrorCode.MODERATION_BLOCKED
    elif name is ErrorCode.RATE_LIMITED and ("insufficient_quota" in words or "exceeded your current quota" in words):
        name = ErrorCode.QUOTA_EXCEEDED
    text = f"{what} failed with HTTP {status}" + (f": {message}" if message else "")
    if (known := advice(status, words)) is not None:
        name, text = known.code or name, f"{text}; {known.way_out}"
    return Failure(name, text, {"status": status, "code": code, "message": message})


def redirected(status: int, location: str, asked: str) -> Failure | None:
    """The failure of a create that is redirected to its own path elsewhere: nothing was made. None: outcome unknown.

    The address differs in scheme, host, port, prefix or a trailing slash. A redirect to any other path may lead to the
    video that was made, and one to the very same address to a list of videos.
    """
    if status not in _REDIRECTS or not location:
        return None
    try:
        target, own = urlsplit(urljoin(asked, location)), urlsplit(asked)
        moved, slash = _address(target) != _address(own), target.path.endswith("/")
    except ValueError:
        return None
    path, own_path = target.path.rstrip("/"), own.path
    ours = path.rpartition("/")[2] == own_path.rpartition("/")[2]
    if target.scheme not in _PORTS or not target.hostname or target.query or not ours:
        return None
    place = short(urlunsplit((target.scheme, target.netloc.rpartition("@")[2], target.path, "", "")))
    base = place.rstrip("/").rpartition("/")[0]
    if moved or path != own_path:
        way_out = f"set OPENAI_BASE_URL={base}{', keeping its query' if own.query else ''}"
    elif slash:
        way_out = f"OPENAI_BASE_URL={base} is right; have the server or its proxy accept POST /videos without the slash"
    else:
        return None
    text = f"creating the video was redirected to {place} (HTTP {status}), and nothing was made: {way_out}"
    return Failure(ErrorCode.NETWORK, text, {"status": status, "location": place})


def _address(url: SplitResult) -> tuple[str, str | None, int | None]:
    return url.scheme, url.hostname, url.port or _PORTS.get(url.scheme)


def _generation_failure(status: str, error: Any) -> Failure:
    code, message = error_words(error if isinstance(error, dict | str | list) else None)
    words = f"{code or ''} {message}".lower()
    blocked = any(word in words for word in _MODERATION)
    name = ErrorCode.MODERATION_BLOCKED if blocked else ErrorCode.GENERATION_FAILED
    text = message or f"the server reported the status {status!r} without a reason"
    return Failure(name, text, {"status": status, "code": code, "message": message})


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds that the server asks to wait, from its own or its proxy's header: milliseconds, seconds or a date."""
    for name in ("retry-after-ms", "llm_provider-retry-after-ms"):
        if (milliseconds := _number(headers.get(name))) is not None:
            return _pause(milliseconds / 1000)
    for name in ("retry-after", "llm_provider-retry-after"):
        if (value := headers.get(name)) is None:
            continue
        if (seconds := _number(value)) is not None:
            return _pause(seconds)
        if (at := http_date(value)) is not None:
            return _pause(at - (_told_now(headers) if now is None else now))
    return None


def _told_now(headers: Mapping[str, str]) -> float:
    """When an answer was sent, by the server's clock, as its dates are; ours may differ."""
    at = http_date(headers.get("date"))
    return time.time() if at is None else at


def _pause(seconds: float) -> float:
    return min(max(0.0, seconds), _LONGEST_PAUSE)


@functools.lru_cache(maxsize=8)  # all answers within a second have the same date
def http_date(value: str | None) -> float | None:
    """An HTTP date as seconds since 1970; None if it is none."""
    try:
        return parsedate_to_datetime(value).timestamp() if value else None
    except (ValueError, OverflowError, TypeError):
        return None


def poll_hint(headers: Mapping[str, str]) -> float | None:
    """Seconds until the server wants to be polled again."""
    milliseconds = _number(headers.get("openai-poll-after-ms"))
    return None if milliseconds is None or milliseconds <= 0 else min(milliseconds / 1000, _LONGEST_PAUSE)


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
    text = str(value) if isinstance(value, str | int) and value else ""
    return text if text.strip(".") and len(text) <= _LONGEST_ID and _can_be_kept(text) else None


def _can_be_kept(text: str) -> bool:
    """Whether a database and JSON can hold it: no NUL character, no lone surrogate."""
    if text.isascii():
        return "\0" not in text
    return text == text.replace("\0", "").encode(errors="replace").decode()


def _time(value: Any) -> float | None:
    number = _number(value)
    return number if number is not None and 0 <= number < _LATEST else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value and _can_be_kept(value) else None


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if abs(number) < _LARGEST else None  # NaN and infinity fail this too


def _percent(value: Any) -> int | None:
    number = _number(value.strip().removesuffix("%") if isinstance(value, str) else value)
    return None if number is None else min(100, max(0, int(number)))


def _seconds(value: Any) -> str | None:
    number = _number(value.strip().lower().removesuffix("s") if isinstance(value, str) else value)
    return None if number is None else f"{number:g}"
