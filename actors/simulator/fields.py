"""Reading a request: the fields of a form or a JSON body, and which of them are returned.

Owns the forms that fields come in, their bounds, and what can be drawn. Which fields a server knows and how it checks
them is in profiles.py, vllm_omni.py and sglang.py.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from aiohttp.web import FileField

from actors.json_objects import is_nested_deeper
from actors.simulator.gate import Refusal, invalid

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aiohttp import web
    from pydantic import BaseModel, ValidationError

Model = TypeVar("Model", bound="BaseModel")

MULTIPART, URLENCODED = "multipart/form-data", "application/x-www-form-urlencoded"
LONGEST_SECONDS = 600
SIDES = range(64, 4097)
"""Pixels; smaller pictures have no room for the mark that says what they are."""
MOST_TOLD = 512 * 1024
"""Bytes of JSON, less the contents of files: 64 KiB of any text fit, escaped."""
LONGEST_PROMPT = 32_000
DEEPEST = 32
"""Objects and arrays within each other."""


@dataclass(frozen=True, kw_only=True)
class Create:
    """A video that is asked for, valid, defaults filled in."""

    prompt: str
    model: str
    seconds: int
    size: str | None
    told: dict[str, Any] = field(default_factory=dict)
    """What else the video object tells, by name."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """What a listing is asked for."""

    after: str | None
    limit: int | None
    """None: all."""
    newest_first: bool


class File(dict[str, Any]):
    """A file as it is told back: `filename`, `bytes`, `content_type` and `sha256`; its content is not kept."""

    @classmethod
    def of(cls, name: str | None, content_type: str, digest: str, size: int) -> File:
        """Describe one."""
        return cls(filename=name, bytes=size, content_type=content_type, sha256=digest)


async def read_form(request: web.Request) -> dict[str, Any]:
    """Read a form's fields: texts, and files with what they are (see `File`); a list where a name comes again.

    Raises:
        Refusal: it can't be read.
    """
    try:
        form = await request.post()
    except ValueError as error:  # a broken boundary, a field that is not UTF-8
        raise Refusal(400, f"Could not parse multipart form: {error}") from error
    fields: dict[str, Any] = {}
    for name in form:
        values = [await _part(value) for value in form.getall(name)]
        fields[name] = values if len(values) > 1 else values[0]
    return fields


async def read_json(request: web.Request) -> dict[str, Any]:
    """Read a JSON object; none is an empty one.

    Raises:
        Refusal: it is something else.
    """
    body = await request.read()
    try:
        fields = json.loads(body or b"{}", parse_constant=_no_json)
    except (ValueError, RecursionError) as error:
        message = "We could not parse the JSON body of your request."
        raise Refusal(400, message, code="invalid_json") from error
    if not isinstance(fields, dict):
        message = f"Invalid body: expected an object, but got {type(fields).__name__} instead."
        raise Refusal(400, message, code="invalid_type")
    return fields


def _no_json(constant: str) -> None:
    message = f"{constant} is not JSON"
    raise ValueError(message)


async def _part(value: str | bytes | bytearray | FileField) -> object:
    if isinstance(value, FileField):
        return await asyncio.to_thread(_file, value)
    if isinstance(value, str):
        return value
    try:
        return value.decode()  # a part with a Content-Type that is no text: JSON, most likely
    except UnicodeDecodeError:
        return File.of(None, "application/octet-stream", hashlib.sha256(value).hexdigest(), len(value))


def _file(sent: FileField) -> File:
    digest, size = hashlib.sha256(), 0
    while piece := sent.file.read(2**20):
        digest.update(piece)
        size += len(piece)
    return File.of(sent.filename, sent.content_type, digest.hexdigest(), size)


def last_of_each(form: Mapping[str, Any]) -> dict[str, Any]:
    """Return a form as FastAPI reads it: the last value of a repeated name counts, and an empty text is none."""
    last = {name: value[-1] if isinstance(value, list) else value for name, value in form.items()}
    return {name: value for name, value in last.items() if value != ""}


def validated(
    model: type[Model], fields: Mapping[str, Any], place: str, refused: Callable[[ValidationError, str], Refusal]
) -> Model:
    """Check fields against a model.

    Args:
        model: what they must be.
        fields: by name.
        place: where they stand in the request, `body` or `query`.
        refused: words what is wrong, given the place.

    Raises:
        Refusal: they are not.
    """
    from pydantic import ValidationError  # who asks for it has imported it

    try:
        return model.model_validate(dict(fields))
    except ValidationError as error:
        raise refused(error, place) from error


def read_prompt(fields: Mapping[str, Any]) -> str:
    """Check the prompt, which creates and remixes have.

    Raises:
        Refusal: it is missing or wrong.
    """
    prompt = read_text(fields, "prompt")
    if prompt is None:
        raise invalid("prompt", "Missing required parameter: 'prompt'.", "missing_required_parameter")
    if not prompt:
        message = "Invalid 'prompt': empty string. Expected a string with minimum length 1."
        raise invalid("prompt", message, "empty_string")
    if len(prompt) > LONGEST_PROMPT:
        message = f"Invalid 'prompt': expected at most {LONGEST_PROMPT} characters, but got {len(prompt)}."
        raise invalid("prompt", message, "string_above_max_length")
    return prompt


def read_text(fields: Mapping[str, Any], name: str) -> str | None:
    """Return a field that is a text or not there; raise a Refusal if it is something else."""
    value = fields.get(name)
    if value is None or isinstance(value, str):
        return value
    raise wrong_type(name, "a string", value)


def wrong_type(name: str, expected: str, value: object) -> Refusal:
    """Return the refusal of a field's type."""
    words = {str: "a string", int: "an integer", bool: "a boolean", list: "an array", dict: "an object"}
    got = "a file" if isinstance(value, File) else words.get(type(value), f"a {type(value).__name__}")
    return invalid(name, f"Invalid type for '{name}': expected {expected}, but got {got} instead.", "invalid_type")


def check_drawable(seconds: int, size: str | None, *, prefix: str = "") -> None:
    """Check what can be drawn, whichever server is simulated.

    Raises:
        Refusal: it would take too long, or the sides are odd, too short or too long.
    """
    if not 0 < seconds <= LONGEST_SECONDS:
        message = f"Invalid value: '{seconds}'. Expected whole seconds, 1 to {LONGEST_SECONDS}."
        raise invalid(f"{prefix}seconds", message)
    sides = re.fullmatch(r"([0-9]{1,4})x([0-9]{1,4})", size) if size is not None else None
    if size is not None and not (sides and all(int(side) in SIDES and not int(side) % 2 for side in sides.groups())):
        message = f"Invalid value: '{size}'. Expected WIDTHxHEIGHT, even, from {SIDES[0]} to {SIDES[-1]}."
        raise invalid(f"{prefix}size", message)


def told_back(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a video object tells of these fields: files and data URLs by what they are, all else as it was sent.

    Raises:
        Refusal: it is too much, or too deeply nested.
    """
    for name, value in fields.items():
        if is_nested_deeper(value, DEEPEST):
            raise invalid(name, f"Invalid value for '{name}': more than {DEEPEST} objects or arrays in each other.")
    told = {name: _described(value) for name, value in fields.items()}
    seed = told.get("seed")
    if isinstance(seed, str) and re.fullmatch(r"-?[0-9]{1,19}", seed):
        told["seed"] = int(seed)  # servers tell a seed as the number that it is, whatever form it came in
    if (size := len(json.dumps(told))) > MOST_TOLD:
        message = f"The further fields are too large: {size} bytes as JSON, at most {MOST_TOLD}."
        raise Refusal(413, message, code="request_too_large")
    return told


def _described(value: object) -> object:
    match value:
        case dict() if not isinstance(value, File):
            return {name: _described(inner) for name, inner in value.items()}
        case list():
            return [_described(inner) for inner in value]
        case str() if value.startswith("data:"):
            return _data_url(value)
        case _:
            return value


def _data_url(url: str) -> object:
    head, comma, data = url.partition(",")
    kind, _, coding = head.removeprefix("data:").rpartition(";")
    try:
        content = base64.b64decode(data, validate=True)
    except ValueError:
        return url
    if not comma or coding != "base64":
        return url
    return File.of(None, kind, hashlib.sha256(content).hexdigest(), len(content))
