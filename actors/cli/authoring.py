"""A request as given on the command line: a file, prompts, pictures, and options for all videos.

Precedence: a video's own fields, the `defaults` of its file, the options, the file of `--defaults`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from actors.cli.batch_files import picture_name, pictures, place_name, read_defaults, read_request
from actors.cli.options import Written, parse_metadata
from actors.documents import Unreadable, json_or_text
from actors.errors import FieldError, InvalidRequest
from actors.expectations import NONE, read_budget, span_of
from actors.formats.reading import Request

_OPTION_NAMES = {"params": "--param"}
_IN_EACH_VIDEO = ("model", "size", "duration")
"""Set in each video, as before there were `defaults`: the same command is the same request."""


def requested(written: Written) -> Request:
    """The request, of which only the options are validated yet.

    Raises:
        InvalidRequest: a file can't be read, or an option is wrong.
    """
    found = pictures(written.references or ())
    own = _own(written)
    below = _checked_defaults(written.defaults)
    if found and written.file is None and not written.prompts:
        request = Request(videos=[{}])
        if "prompt" not in below:
            raise InvalidRequest("--input-reference needs a prompt: give one with -p, or name a batch file")
    else:
        request = read_request(written.file, written.prompts or ())
    _complete(request, below, own, found)
    _override(request, written)
    return request


def _own(written: Written) -> dict[str, Any]:
    """The options that apply to all videos."""
    given = {
        "model": written.model, "size": written.size, "duration": written.duration, "seed": written.seed,
        "takes": written.takes, "params": parse_params(written.params),
    }  # fmt: skip
    own = {name: value for name, value in given.items() if value is not None and value != {}}
    try:
        _check(own)
    except InvalidRequest as error:
        named = tuple(_as_option(entry) for entry in error.errors)
        raise InvalidRequest("; ".join(entry.message for entry in named), named) from None
    return own


def _as_option(error: FieldError) -> FieldError:
    field = error.field.split("/")[2]
    option = _OPTION_NAMES.get(field, f"--{field}")
    message = error.message.removeprefix(f"defaults.{field}")
    return FieldError(error.field, f"{option}{message}", error.expected, error.code)


def _checked_defaults(source: str | None) -> dict[str, Any]:
    """The contents of the file of `--defaults`."""
    if source is None:
        return {}
    defaults = _normal(read_defaults(source))
    try:
        _check(defaults)
    except InvalidRequest as error:
        raise InvalidRequest(f"{place_name(source)}: {error}", error.errors) from None
    return defaults


def _check(defaults: dict[str, Any]) -> None:
    from pydantic import ValidationError

    from actors.batch.field_errors import invalid
    from actors.batch.requests import VideoDefaults

    try:
        VideoDefaults.model_validate(defaults)
    except ValidationError as error:
        raise invalid(error, "defaults") from None


def _normal(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that are set, each by one name; null counts as unset."""
    said = {name: value for name, value in fields.items() if value is not None}
    if "inputReference" in said and "input_reference" not in said:
        said["input_reference"] = said.pop("inputReference")
    if "seconds" in said and "duration" not in said:
        said["duration"] = said.pop("seconds")
    return said


def _complete(request: Request, below: dict[str, Any], own: dict[str, Any], found: Sequence[str]) -> None:
    """Fill in from the options and the file of `--defaults` what the file does not set."""
    said = request.get("defaults") or {}
    videos = request.get("videos")
    if not isinstance(said, dict) or not isinstance(videos, list):
        return  # validation will name it
    said = _normal(said)
    in_each = {name: value for name, value in own.items() if name in _IN_EACH_VIDEO and name not in said}
    request["videos"] = [_completed(video, in_each) if isinstance(video, dict) else video for video in videos]
    rest = {name: value for name, value in own.items() if name not in _IN_EACH_VIDEO}
    if len(found) == 1:
        rest["input_reference"] = found[0]
    merged = {**below, **rest, **said}
    params = [each["params"] for each in (below, rest, said) if isinstance(each.get("params"), dict)]
    if params and isinstance(merged["params"], dict):
        merged["params"] = {name: value for each in params for name, value in each.items()}
    if merged and (below or rest):
        request["defaults"] = merged
    if found:
        if "input_reference" in said:
            raise InvalidRequest("--input-reference: the defaults of the file already name a picture; omit the option")
        _add_pictures(request, found, merged.get("metadata"))


def _completed(video: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    if "seconds" in video:  # the same field by its other name
        given = {name: value for name, value in given.items() if name != "duration"}
    return given | video


def _add_pictures(request: Request, found: Sequence[str], usual: Any) -> None:
    """Repeat each video that names no picture, once per picture."""
    if not any(map(_is_bare, request["videos"])):
        raise InvalidRequest("--input-reference: every video of the batch names its own picture; omit the option")
    labels = [_label(picture, braces=bool(request.get("matrix"))) for picture in found]
    videos: list[Any] = []
    origins: list[int] = []
    for index, video in enumerate(request["videos"]):
        made = [video]
        if _is_bare(video):
            own = found if len(found) > 1 else [None]  # a single one is in the defaults
            made = [_pictured(video, *each, usual) for each in zip(own, labels, strict=True)]
        videos += made
        origins += [index] * len(made)
    request["videos"], request.origins = videos, origins


def _is_bare(video: Any) -> bool:
    return isinstance(video, dict) and not any(video.get(name) for name in ("input_reference", "inputReference"))


def _label(picture: str, *, braces: bool) -> str | None:
    """The picture's name for the video's metadata; with a matrix, its braces are doubled."""
    name = picture_name(picture)
    return name if name is None or not braces else name.replace("{", "{{").replace("}", "}}")


def _pictured(video: dict[str, Any], picture: str | None, label: str | None, usual: Any) -> dict[str, Any]:
    """`usual`: the metadata of videos that set none."""
    pictured = {name: value for name, value in video.items() if name != "inputReference"}
    if picture is not None:
        pictured["input_reference"] = picture
    metadata = video.get("metadata", usual) or {}
    if label is not None and isinstance(metadata, dict):
        pictured["metadata"] = {"input_reference": label, **metadata}
    return pictured


def metadata_keys(request: Request) -> Iterator[str]:
    """The keys that the metadata of the request's videos may have."""
    videos = request.get("videos")
    for said in (request.get("defaults"), *(videos if isinstance(videos, list) else ())):
        if isinstance(said, dict) and isinstance(said.get("metadata"), dict):
            yield from map(str, said["metadata"])
    if isinstance(request.get("matrix"), dict):
        yield from map(str, request["matrix"])


def _override(request: Request, written: Written) -> None:
    """Override the file's batch fields by the options."""
    given = {
        "batch_name": written.name, "id": written.batch_id, "concurrency": written.concurrency,
        "budget": parse_budget(written.budget), "timeout_ms": parse_timeout(written.timeout),
    }  # fmt: skip
    for name, other in (("batch_name", "batchName"), ("timeout_ms", "timeoutMs")):
        if given[name] is not None:
            request.pop(other, None)
    request |= {name: value for name, value in given.items() if value is not None}
    metadata = parse_metadata(written.metadata)
    if metadata and isinstance(request.setdefault("metadata", {}), dict):
        request["metadata"] = request["metadata"] | metadata


def parse_params(pairs: Sequence[str] | None) -> dict[str, Any]:
    """Read `NAME=VALUE` pairs: values that parse as JSON are JSON, all others text.

    Raises:
        InvalidRequest: one has no `=`, no name, or a duplicate key.
    """
    params: dict[str, Any] = {}
    for pair in pairs or ():
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise InvalidRequest(f"--param {pair!r}: expected NAME=VALUE, such as fps=24")
        try:
            params[name] = json_or_text(value)
        except Unreadable as error:
            raise InvalidRequest(f"--param {pair!r}: {error}") from None
    return params


def parse_new_budget(text: str | None) -> list[dict[str, str]] | None:
    """Read the budget of an existing batch: `none` removes it.

    Raises:
        InvalidRequest: a part is not an amount with a unit.
    """
    return [] if text is not None and text.strip().lower() == NONE else parse_budget(text)


def parse_budget(text: str | None) -> list[dict[str, str]] | None:
    """Read `20 USD, 30 seconds, 5 videos`.

    Raises:
        InvalidRequest: a part is not an amount with a unit.
    """
    try:
        return None if text is None else [{"amount": each.amount, "unit": each.unit} for each in read_budget(text)]
    except ValueError as error:
        raise InvalidRequest(f"--budget {text!r}: {error}") from None


def parse_timeout(text: str | None) -> int | None:
    """Read `90s`, `12h` or milliseconds, into milliseconds.

    Raises:
        InvalidRequest: it is none of them.
    """
    if text is None:
        return None
    given = text.strip()
    found = span_of(f"{given}ms" if given.isdigit() else given)
    if found is None:
        expected = "a duration (500ms, 90s, 5m, 12h, 30d) or a number of milliseconds; 0 is no limit"
        raise InvalidRequest(f"--timeout {text!r}: must be {expected}")
    return round(found.total_seconds() * 1000)
