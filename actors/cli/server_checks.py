"""`doctor`'s checks of the server: what it is, whether it works with these settings, and what to change."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urljoin

from actors.errors import SettingsError, SoraError
from actors.loop import IOLoop
from actors.settings import Settings
from actors.sora.client import SoraClient
from actors.sora.failures import NEEDS_PROVIDER, PROXY, advice
from actors.sora.rate_limiter import RateLimiter
from actors.sora.requests import Models, Server
from actors.sora.wire import error_words, parse_json
from storage.urls import masked_url, without_user

_TIMEOUT, _SHORT = 10.0, 3.0
"""Seconds for the answer that matters, and for those with additional details."""
_LISTING = "/videos"
_NO_ROUTE = "no Videos API here, or one without a listing, so a POST whose answer is lost can't be looked up"
_NOT_WHOLE = (
    "; SORA_LISTING is partial, so a POST without an answer can't be proved to have made nothing; set "
    "SORA_LISTING=whole if this address has one store behind it"
)
_CANT_LOOK_UP = "until then, a POST whose answer is lost can't be looked up"
_WARMING_UP = (
    "is running, but did not answer within 10 s: SGLang does not answer while it warms up; wait until it is "
    "ready, or raise SORA_SUBMIT_TIMEOUT"
)
_REFUSES_OTHERS = frozenset({Server.VLLM_OMNI, Server.LITELLM, Server.DYNAMO})
"""They refuse a model that they do not list; others accept any name."""
_MOST_NAMES = 10


def look(settings: Settings, base_url: str) -> tuple[bool, str]:
    """Whether the server can be used, and a sentence about it.

    Uses the client that `run` uses: what that can't send is not sent here.
    """
    io = IOLoop("sora-doctor")
    try:
        return io.submit(_look(settings, base_url)).result()
    except SettingsError as error:
        return False, str(error)
    finally:
        io.close()


async def _look(settings: Settings, base_url: str) -> tuple[bool, str]:
    place = masked_url(base_url)
    async with SoraClient(settings, base_url, RateLimiter()) as client:
        try:
            status, headers, body = await client.look(_TIMEOUT, _LISTING, "limit=1")
        except SoraError as error:
            if isinstance(error.__cause__, TimeoutError) and await _answers(client, "/liveness"):
                return False, f"{place} {_WARMING_UP}"
            way_out = "; start it, or correct OPENAI_BASE_URL" if "unreachable" in str(error) else ""
            return False, f"{place} {error}{way_out}"
        if "Location" in headers:
            asked = without_user(base_url).partition("?")[0]
            headers = {**headers, "Location": urljoin(f"{asked}{_LISTING}", headers["Location"])}
        ok, message = verdict(status, headers, body)
        if settings.sora_listing == "partial" and status == 200 and ok and _shows_prompts(body):
            message += _NOT_WHOLE
        models = Models(None, ())
        with suppress(SoraError):
            models = await client.recogniser.models(_SHORT)
        problem = await _dead(client) if models.server is Server.SGLANG else None
        problem = problem or (_unfit(settings, models) if ok else None)
        if problem is not None:
            ok, message = False, problem
        elif ok:
            message += _unlisted(settings, models)
        elif status >= 400 and settings.api_key is None and not settings.headers and without_user(base_url) == base_url:
            message += "; OPENAI_API_KEY is not set"
        if status == 401 and settings.proxy_for(base_url) is not None and base_url.startswith("http://"):
            message += f"; if the proxy says so: {PROXY.way_out}"
    who = f" ({models.server.value})" if models.server else ""
    return ok, f"{place}{who}: {message}"


async def _answers(client: SoraClient, path: str) -> bool:
    with suppress(SoraError):
        return (await client.look(_SHORT, path, above=True))[0] == 200
    return False


async def _dead(client: SoraClient) -> str | None:
    """Why SGLang makes no more videos, although it still lists them."""
    with suppress(SoraError):
        status, _, body = await client.look(_SHORT, "/health", above=True)
        words = error_words(parse_json(body))[1]
        if status == 503 and words:
            return f"it is unhealthy and accepts no videos: {words} (GET /health, HTTP 503)"
    return None


def _unfit(settings: Settings, models: Models) -> str | None:
    """Which setting does not work with the server."""
    form = settings.sora_request_format
    if models.server is Server.VLLM_OMNI and form == "json":
        return "it accepts no JSON: set SORA_REQUEST_FORMAT=multipart"
    if models.server is Server.DYNAMO and form == "multipart":
        return "it accepts only JSON: set SORA_REQUEST_FORMAT=json"
    unlisted = _unlisted(settings, models)
    return unlisted.removeprefix("; ") if unlisted and models.server in _REFUSES_OTHERS else None


def _unlisted(settings: Settings, models: Models) -> str:
    """That SORA_MODEL is not one of the server's models; `` if it is, or that is unknown."""
    name, names = settings.sora_model, models.names
    if name is None or not names or name in names or any("*" in each for each in names):
        return ""
    some = ", ".join(names[:_MOST_NAMES]) + (", ..." if len(names) > _MOST_NAMES else "")
    return f"; it does not list the model {name!r} (SORA_MODEL); it lists {some}"


def verdict(status: int, headers: Mapping[str, str], body: bytes) -> tuple[bool, str]:  # noqa: PLR0911  (one a kind of answer)
    """What an answer to GET /videos means."""
    document = parse_json(body)
    words = error_words(document)[1] if status >= 400 else ""
    known, said = advice(status, words), f"HTTP {status}: {words}" if words else f"HTTP {status}"
    if known is NEEDS_PROVIDER:
        return True, f"has the Videos API, but no listing: {known.way_out}; {_CANT_LOOK_UP}"
    if known is not None:
        return False, f"answered {said}; {known.way_out}"
    if status == 401:
        wrong = "the key (OPENAI_API_KEY) is wrong or missing, or it belongs in another header (SORA_AUTH)"
        return False, f"{wrong} ({said})"
    if status == 403:
        return False, f"the key (OPENAI_API_KEY) lacks the permission ({said})"
    if status == 429:
        return True, f"reachable, but rate-limiting right now ({said})"
    if status == 405:
        return True, "has the Videos API, without a listing: a POST whose answer is lost can't be looked up (HTTP 405)"
    if 300 <= status < 400:
        return False, _redirect(headers.get("Location") or "")
    if status == 404:
        return False, f"{_NO_ROUTE} ({said}; does OPENAI_BASE_URL end with /v1?)"
    if status != 200:
        return False, f"answered {said}; check the server's log"
    return _listing(document)


def _listing(document: Any) -> tuple[bool, str]:
    if document is None:
        return False, "no Videos API: its answer to GET /videos is not JSON"
    if isinstance(document, dict) and isinstance(document.get("data"), list):
        return True, "has the Videos API, with a listing"
    return False, "no Videos API: its answer to GET /videos is not a list"


def _redirect(location: str) -> str:
    """A POST never follows a redirect: it might lead to another server."""
    place = location.partition("#")[0].partition("?")[0]
    told = f"redirects to {masked_url(place)}"
    if place.endswith(_LISTING):
        right = masked_url(place.removesuffix(_LISTING))
        return f"{told}, which a POST does not follow: set OPENAI_BASE_URL={right}"
    if place.endswith(f"{_LISTING}/"):
        return f"{told}, which a POST does not follow: make the server, or the proxy in front of it, accept {_LISTING}"
    return f"{told}: set OPENAI_BASE_URL to the server itself, up to and with its /v1"


def _shows_prompts(body: bytes) -> bool:
    """Whether the listing shows prompts, by which our videos are recognised."""
    document = parse_json(body)
    return any(isinstance(entry, dict) and entry.get("prompt") for entry in document["data"])
