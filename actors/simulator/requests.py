"""What is read from a request: the fields of a form or of a JSON body, the query of a listing, checked as OpenAI does.

Owns the rules for prompt, model, seconds, size and input_reference. Fields that it does not know pass: the
servers of this protocol have many of their own.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiohttp.web import FileField

from actors.simulator.gate import Refusal, invalid
from actors.simulator.jobs import state_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp import web

    from actors.simulator.jobs import Ledger
    from actors.simulator.profiles import Profile

LONGEST_PROMPT = 32_000
DEFAULT_LIMIT = 20
LONGEST_SECONDS = 600
HOSTED_SECONDS = (4, 8, 12)
SIDES = range(64, 4097)
"""Pixels; smaller pictures have no room for the mark that says what they are."""
IMAGES = ("image/jpeg", "image/png", "image/webp")


@dataclass(frozen=True, kw_only=True)
class Create:
    """A video that is asked for, valid, defaults filled in."""

    prompt: str
    model: str
    seconds: int
    size: str | None


async def read_fields(request: web.Request, *, json_too: bool = True) -> dict[str, Any]:
    """Read the body's fields; to a server that takes only forms, a JSON body has none."""
    if request.content_type in ("multipart/form-data", "application/x-www-form-urlencoded"):
        try:
            return dict(await request.post())
        except ValueError as error:  # a broken boundary, a field that is not UTF-8
            raise Refusal(400, f"Could not parse multipart form: {error}") from error
    return _json_fields(await request.read()) if json_too else {}


def _json_fields(body: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(body or b"{}")
    except (ValueError, RecursionError) as error:
        message = "We could not parse the JSON body of your request."
        raise Refusal(400, message, code="invalid_json") from error
    if not isinstance(fields, dict):
        message = f"Invalid body: expected an object, but got {type(fields).__name__} instead."
        raise Refusal(400, message, code="invalid_type")
    return fields


def parse_create(fields: Mapping[str, Any], profile: Profile, *, strict: bool) -> Create:
    """Check the fields of a create.

    Raises:
        Refusal: a field is missing or wrong.
    """
    create = Create(
        prompt=parse_prompt(fields),
        model=_text(fields, "model") or "sora-2",
        seconds=_seconds(fields.get("seconds"), strict=strict),
        size=_size(_text(fields, "size")) or profile.default_size,
    )
    _check_reference(fields)
    return create


def parse_prompt(fields: Mapping[str, Any]) -> str:
    """Check the prompt, which creates and remixes have.

    Raises:
        Refusal: it is missing or wrong.
    """
    prompt = _text(fields, "prompt")
    if prompt is None:
        raise invalid("prompt", "Missing required parameter: 'prompt'.", "missing_required_parameter")
    if not prompt:
        message = "Invalid 'prompt': empty string. Expected a string with minimum length 1."
        raise invalid("prompt", message, "empty_string")
    if len(prompt) > LONGEST_PROMPT:
        message = f"Invalid 'prompt': expected at most {LONGEST_PROMPT} characters, but got {len(prompt)}."
        raise invalid("prompt", message, "string_above_max_length")
    return prompt


def _text(fields: Mapping[str, Any], name: str) -> str | None:
    value = fields.get(name)
    if value is None or isinstance(value, str):
        return value
    raise _wrong_type(name, "a string", value)


def _seconds(value: object, *, strict: bool) -> int:
    """Read a whole number; servers take it as text, most as a number too, the hosted API did not."""
    if value is None:
        return 4
    if isinstance(value, bool) or not isinstance(value, str if strict else (str, int)):
        raise _wrong_type("seconds", "a string", value)
    text = str(value)
    if not re.fullmatch(r"[1-9][0-9]{0,2}", text) or int(text) > LONGEST_SECONDS:
        raise invalid("seconds", f"Invalid value: '{text}'. Expected whole seconds, 1 to {LONGEST_SECONDS}.")
    if strict and int(text) not in HOSTED_SECONDS:
        raise invalid("seconds", f"Invalid value: '{text}'. Supported values are: '4', '8', and '12'.")
    return int(text)


def _size(text: str | None) -> str | None:
    if text is None:
        return None
    match = re.fullmatch(r"([1-9][0-9]{1,3})x([1-9][0-9]{1,3})", text)
    sides = [int(side) for side in match.groups()] if match else []
    if not sides or any(side not in SIDES or side % 2 for side in sides):
        message = f"Invalid value: '{text}'. Expected WIDTHxHEIGHT, even, from {SIDES[0]} to {SIDES[-1]}."
        raise invalid("size", message)
    return text


def _check_reference(fields: Mapping[str, Any]) -> None:
    reference = fields.get("input_reference")
    if isinstance(reference, FileField):
        _check_image(reference.content_type)
    elif isinstance(reference, dict):
        if len({"file_id", "image_url"} & reference.keys()) != 1:
            message = "Invalid 'input_reference': expected exactly one of 'file_id' and 'image_url'."
            raise invalid("input_reference", message)
    elif reference is not None:
        raise _wrong_type("input_reference", "a file or an object", reference)


def _check_image(kind: str) -> None:
    if kind not in IMAGES:
        message = f"Invalid file 'input_reference': unsupported mimetype ('{kind}'), not one of {IMAGES}."
        raise invalid("input_reference", message, "unsupported_mimetype")


def _wrong_type(name: str, expected: str, value: object) -> Refusal:
    words = {str: "a string", int: "an integer", bool: "a boolean", list: "an array", dict: "an object"}
    got = words.get(type(value), f"a {type(value).__name__}")
    return invalid(name, f"Invalid type for '{name}': expected {expected}, but got {got} instead.", "invalid_type")


def list_videos(ledger: Ledger, profile: Profile, query: Mapping[str, str], now: float) -> dict[str, Any]:
    """Give the page that a query asks for.

    Raises:
        Refusal: the query makes no sense.
    """
    order = query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise invalid("order", f"Invalid value: '{order}'. Supported values are: 'asc' and 'desc'.")
    limit = _limit(query.get("limit"), profile)
    try:
        jobs, more = ledger.page(after=query.get("after"), limit=limit, newest_first=order == "desc")
    except KeyError:
        if profile.unknown_after_is_refused:
            raise invalid("after", f"No video with the id '{query['after']}' was found.") from None
        jobs, more = [], False
    return {
        "object": "list",
        "data": [profile.video(job, state_of(job, now)) for job in jobs],
        "first_id": jobs[0].id if jobs else None,
        "last_id": jobs[-1].id if jobs else None,
        "has_more": more,
    }


def _limit(text: str | None, profile: Profile) -> int:
    if text is None:
        return DEFAULT_LIMIT
    limits = profile.list_limits
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and int(text) in limits):
        raise invalid("limit", f"Invalid value: '{text}'. Expected a number from {limits[0]} to {limits[-1]}.")
    return int(text)
