"""What an answer says in words: why something failed, and what to do about it. Pure."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import SplitResult, urljoin, urlsplit, urlunsplit

from actors.errors import ErrorCode, Failure
from actors.sora.wire import (
    LONGEST_PAUSE,
    MODERATION,
    Phase,
    RemoteVideo,
    as_number,
    error_words,
    http_date,
    identifier,
    inner_id,
    parse_json,
    parse_video,
    short,
)

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
_WORDS = frozenset({"error", "detail", "code", "message"})
"""Where servers put the text of an error."""
_TOLD = frozenset({"revised_prompt", "size"})
"""Texts of a video that are recorded and shown."""
_LONGEST_TEXT = 1_000_000
"""Characters of the longest text that is searched for a video."""
_TRIES = 200
"""Braces in a text that are tried as the beginning of one."""
_DEEPEST_TEXT = 5
"""How deeply JSON in texts may be nested."""
_JSON = json.JSONDecoder()
_MODEL = "set SORA_MODEL or the request's model to one that the server lists"


class Advice(NamedTuple):
    """What to do about an error."""

    way_out: str
    code: ErrorCode | None = None
    """Its real code, where its HTTP status is misleading."""


NEEDS_PROVIDER = Advice(
    "LiteLLM lists only the videos of the provider that a header names: set SORA_HEADERS="
    "'custom-llm-provider: PROVIDER' (hosted_vllm, openai, ...), and set that provider's API base at the proxy"
)
PROXY = Advice("the proxy requires a user and a password: set HTTP_PROXY=http://USER:PASSWORD@HOST:PORT")
_KNOWN = {
    "llm provider not provided": NEEDS_PROVIDER,
    "no connected db": Advice(
        "a LiteLLM proxy without a database answers this to an unknown key: check OPENAI_API_KEY",
        ErrorCode.AUTHENTICATION,
    ),
    "--api-server-count": Advice(
        "start vLLM-Omni with --api-server-count 1, because each worker knows only its own videos"
    ),
    "invalid model name": Advice(_MODEL, ErrorCode.INVALID_REQUEST),
    "model mismatch": Advice(_MODEL, ErrorCode.INVALID_REQUEST),
    "model not found": Advice(_MODEL, ErrorCode.INVALID_REQUEST),
    "model_not_found": Advice(_MODEL, ErrorCode.INVALID_REQUEST),
}
_NO_SUCH_MODEL = re.compile(r"\bmodel\b.{1,300}\bdoes not exist\b")
"""OpenAI's words, and vLLM's."""


def advice(status: int, message: str) -> Advice | None:
    """The advice for an error of a server, by its words and code; None: its own words must do."""
    if status == 407:
        return PROXY
    words = message.lower()
    if _NO_SUCH_MODEL.search(words):
        known: Advice | None = _KNOWN["model not found"]
    else:
        known = next((found for part, found in _KNOWN.items() if part in words), None)
    # OpenAI words a 403 for a model alike; it stops the jobs with that model.
    return known._replace(code=None) if known is not None and status == 403 else known


def http_failure(status: int, body: Any, what: str) -> Failure:
    """The failure for an HTTP error; `what` was tried."""
    code, message = error_words(body)
    words = f"{code or ''} {message}".lower()
    name = _CODES.get(status, ErrorCode.SERVER_ERROR)
    if status in (400, 403, 422) and any(word in words for word in MODERATION):
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


def failed_inside(body: Any, remote_id: str) -> RemoteVideo | None:
    """The failed video with this id that an error quotes; None if it quotes none.

    Only an outermost video counts: the fields of another video are not searched.
    """
    for document in _videos(body, _DEEPEST_TEXT):
        video = parse_video(document)
        same = inner_id(identifier(document) or "") == inner_id(remote_id)
        if same and video is not None and video.phase is Phase.ENDED_BADLY:
            return video
    return None


def _videos(value: Any, depth: int) -> Iterator[dict[str, Any]]:
    if isinstance(value, str):
        for document in _documents(value) if depth else ():
            yield from _videos(document, depth - 1)
    elif isinstance(value, list):
        for entry in value:
            yield from _videos(entry, depth)
    elif isinstance(value, dict):
        if value.get("object") == "video":
            yield value
        else:
            yield from _videos(list(value.values()), depth)


def _documents(text: str) -> Iterator[Any]:
    """The outermost JSON objects in a text."""
    if len(text) > _LONGEST_TEXT:
        return
    at = -1
    for _ in range(_TRIES):
        at = text.find("{", at + 1)
        if at < 0:
            return
        try:
            _, end = _JSON.raw_decode(text, at)
        except (ValueError, RecursionError):
            continue
        document = parse_json(text[at:end].encode(errors="replace"))
        if document is not None:
            yield document
        at = end - 1


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds that the server asks to wait, from its own or its proxy's header: milliseconds, seconds or a date."""
    for name in ("retry-after-ms", "llm_provider-retry-after-ms"):
        if (milliseconds := as_number(headers.get(name))) is not None:
            return _pause(milliseconds / 1000)
    for name in ("retry-after", "llm_provider-retry-after"):
        if (value := headers.get(name)) is None:
            continue
        if (seconds := as_number(value)) is not None:
            return _pause(seconds)
        if (at := http_date(value)) is not None:
            return _pause(at - (_told_now(headers) if now is None else now))
    return None


def _pause(seconds: float) -> float:
    return min(max(0.0, seconds), LONGEST_PAUSE)


def _told_now(headers: Mapping[str, str]) -> float:
    """When an answer was sent, by the server's clock, as its dates are; ours may differ."""
    at = http_date(headers.get("date"))
    return time.time() if at is None else at


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
