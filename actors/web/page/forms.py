"""What a form says, as the request of a command. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from actors.batch.field_errors import all_of, wrong_field
from actors.batch.requests import BatchVideoRequest
from actors.documents import Unreadable
from actors.errors import FieldError, InvalidRequest
from actors.expectations import NONE, read_budget
from actors.formats.reading import Request, format_of, read_batch, with_lines
from storage.records import BatchRecord, JobRecord

NEW_FIELDS = (
    "prompts", "document", "document_name", "batch_name", "duration", "size", "model", "seed", "takes", "params",
    "matrix", "metadata", "concurrency", "budget",
)  # fmt: skip
"""The fields of the form of a new batch."""
_DECODER = json.JSONDecoder()
_PLACES = {
    "/videos": "prompts", "/batch_name": "batch_name", "/defaults/duration": "duration", "/defaults/size": "size",
    "/defaults/model": "model", "/defaults/seed": "seed", "/defaults/takes": "takes", "/defaults/params": "params",
    "/matrix": "matrix", "/metadata": "metadata", "/concurrency": "concurrency", "/budget": "budget",
    "/document": "document",
}  # fmt: skip


def form_of(batch: BatchRecord, job: JobRecord) -> dict[str, str]:
    """The form of a new batch with what was asked for in a job."""
    prompt = f"\\{job.prompt}" if job.prompt.startswith("#") else job.prompt
    given = {
        "prompts": prompt, "batch_name": batch.name, "duration": job.duration, "size": job.size, "model": job.model,
        "seed": job.seed, "params": lines_with(job.params), "metadata": lines_with(batch.metadata),
    }  # fmt: skip
    return dict.fromkeys(NEW_FIELDS, "") | {name: str(value) for name, value in given.items() if value is not None}


def can_be_written(job: JobRecord) -> bool:
    """Whether the form can say what was asked for in a job: it takes no files, and a prompt is one line there."""
    return job.reference is None and not job.files and "\n" not in job.prompt


def lines_with(values: Mapping[str, Any]) -> str:
    """Names and values, one pair per line."""
    return "\n".join(f"{_name(name)}={_written(value)}" for name, value in values.items())


def _name(name: str) -> str:
    """A name that is read as itself again: one that could be taken for something else is a JSON string."""
    plain = name == name.strip() and name and not name.startswith('"') and not any(mark in name for mark in "=\n\r")
    return name if plain else json.dumps(name, ensure_ascii=False)


def _written(value: Any) -> str:
    """A value that is read as itself again."""
    if isinstance(value, str) and value == value.strip() and "\n" not in value and _json_or_text(value) == value:
        return value
    return json.dumps(value, ensure_ascii=False)


def lines_of(text: str) -> list[str]:
    """The lines of a text that say something; only LF and CRLF end one."""
    return [line for line in (each.removesuffix("\r").strip() for each in text.split("\n")) if line]


def prompts_of(text: str) -> list[str]:
    r"""One prompt a line; `#` begins a comment, and `\#` a prompt with that sign."""
    return [line.removeprefix("\\") if line.startswith("\\#") else line for line in lines_of(text) if line[0] != "#"]


def request_of(form: Mapping[str, str]) -> Request:
    """The request of a new batch: of its batch file, if there is one, completed by the rest of the form.

    Raises:
        InvalidRequest: the file can't be read, or a line is no NAME=VALUE.
    """
    errors: list[FieldError] = []
    defaults: dict[str, Any] = {name: _whole(form[name]) for name in ("duration", "seed", "takes") if form[name]}
    defaults |= {name: form[name] for name in ("size", "model") if form[name]}
    params = _values(form["params"], "/defaults/params", "fps=24", errors)
    if params:
        defaults["params"] = params
    matrix = _pairs(form["matrix"], "/matrix", "style=oil, watercolor", errors)
    own: dict[str, Any] = {
        "batch_name": form["batch_name"] or None,
        "metadata": _values(form["metadata"], "/metadata", "team=blue", errors) or None,
        "concurrency": _whole(form["concurrency"]) if form["concurrency"] else None,
        "matrix": {name: [_number_or_text(value) for value in _listed(text)] for name, text in matrix.items()} or None,
        "budget": _budget(form["budget"], errors) or None,
    }
    request = _document(form, errors)
    if errors:
        raise all_of(errors)
    return _completed(request, [{"prompt": prompt} for prompt in prompts_of(form["prompts"])], defaults, own)


def _document(form: Mapping[str, str], errors: list[FieldError]) -> Request:
    text, name = form["document"], form["document_name"] or None
    if not text:
        return Request(videos=[])
    try:
        return read_batch(text, format_of(name, text))
    except Unreadable as error:
        errors.append(FieldError("/document", f"{name or 'The batch file'}: {error}", "a batch file", "unreadable"))
        return Request()


def _completed(
    request: Request, videos: list[dict[str, Any]], defaults: dict[str, Any], own: dict[str, Any]
) -> Request:
    """The request with what else the form says: videos come behind, defaults below, the rest in place of the file's."""
    if isinstance(request.get("videos"), list):
        request["videos"] = [*request["videos"], *videos]
    said = request.get("defaults") or {}
    if isinstance(said, dict):
        below = {name: value for name, value in defaults.items() if not (name == "duration" and "seconds" in said)}
        if isinstance(said.get("params"), dict):
            said = {**said, "params": {**below.get("params", {}), **said["params"]}}
        if below or said:
            request["defaults"] = {**below, **said}
    given = {name: value for name, value in own.items() if value is not None}
    if "batch_name" in given:
        request.pop("batchName", None)
    for name in ("metadata", "matrix"):
        if name in given and isinstance(request.get(name), dict):
            given[name] = {**request[name], **given[name]}
    request.update(given)
    return request


def parsed(form: Mapping[str, str], most: int) -> BatchVideoRequest:
    """The request of a new batch, validated; at most so many videos.

    Raises:
        InvalidRequest: it is wrong; for a batch file, with the line.
    """
    request = request_of(form)
    try:
        return BatchVideoRequest.parse(request, max_size=most)
    except InvalidRequest as error:
        raise InvalidRequest(error.message, with_lines(error, request)) from None


def budget_of(text: str) -> list[dict[str, str]]:
    """A budget as somebody has written it; nothing, or `none`, is an empty one.

    Raises:
        InvalidRequest: it is none.
    """
    errors: list[FieldError] = []
    found = _budget(text, errors)
    if errors:
        raise all_of(errors)
    return found


def _budget(text: str, errors: list[FieldError]) -> list[dict[str, str]]:
    if not text or text.lower() == NONE:
        return []
    try:
        return [{"amount": each.amount, "unit": each.unit} for each in read_budget(text)]
    except ValueError as error:
        errors.append(FieldError("/budget", f"budget {text!r}: {error}", "such as 20 USD", "value_error"))
        return []


def metadata_patch(form: Mapping[str, str]) -> dict[str, Any]:
    """What a form changes in a batch's metadata, as a JSON Merge Patch: what others changed meanwhile stays.

    Args:
        form: `metadata` as it was filled in, and as it was `before`.

    Raises:
        InvalidRequest: a line is no NAME=VALUE.
    """
    errors: list[FieldError] = []
    before, after = (_values(form.get(name, ""), "/metadata", "team=blue", errors) for name in ("before", "metadata"))
    if errors:
        raise all_of(errors)
    return _patch(before, after)


def _patch(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    patch: dict[str, Any] = {name: None for name in before if name not in after}
    for name, value in after.items():
        there = before.get(name)
        if name not in before or value != there or type(value) is not type(there):
            both = isinstance(value, dict) and isinstance(there, dict)
            patch[name] = _patch(there, value) if both and isinstance(there, dict) else value
    return patch


def _values(text: str, place: str, example: str, errors: list[FieldError]) -> dict[str, Any]:
    """Names, and values that are JSON, or else text."""
    return {name: _json_or_text(value) for name, value in _pairs(text, place, example, errors).items()}


def _pairs(text: str, place: str, example: str, errors: list[FieldError]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for line in lines_of(text):
        name, equals, value = _parted(line)
        if not (equals and name):
            errors.append(wrong_field((place[1:].split("/")), f"each line must be NAME=VALUE, such as {example}", line))
        else:
            pairs[name] = value.strip()
    return pairs


def _parted(line: str) -> tuple[str, str, str]:
    """Name, equals sign and value of a line; a name may be a JSON string."""
    if line.startswith('"'):
        with suppress(ValueError, RecursionError):
            name, end = _DECODER.raw_decode(line)
            between, equals, value = line[end:].partition("=")
            if not between.strip():
                return name, equals, value
    name, equals, value = line.partition("=")
    return name.strip(), equals, value


def _listed(text: str) -> list[str]:
    return [value for value in (part.strip() for part in text.split(",")) if value]


def _whole(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else text


def _number_or_text(text: str) -> Any:
    value = _json_or_text(text)
    return value if isinstance(value, int | float) else text


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def wrong_fields(error: InvalidRequest) -> list[tuple[str | None, str]]:
    """What must change: the field of the form, if it is one's, and a sentence."""
    return [(_field_of(each.field), _sentence(each)) for each in error.errors[:20]]


def _sentence(error: FieldError) -> str:
    if (error.field, error.code) == ("/videos", "too_short"):
        return "Write at least one prompt."
    return error.message.removeprefix("defaults.")


def with_document(error: InvalidRequest) -> list[tuple[str | None, str]]:
    """The same for a form with a batch file: what can't be in the rest of the form is in that."""
    return [("document" if field == "prompts" else field, text) for field, text in wrong_fields(error)]


def _field_of(pointer: str) -> str | None:
    return next((name for place, name in _PLACES.items() if f"{pointer}/".startswith(f"{place}/")), None)


def changes_of(
    form: Mapping[str, str], prompts: Mapping[int, str], ids: Mapping[int, str]
) -> dict[str, dict[str, Any]]:
    """The changed prompts of a retry, by job id.

    Args:
        form: has `prompt-3` for video 3.
        prompts: as they are recorded.
        ids: of its jobs.
    """
    changes = {}
    for index, recorded in prompts.items():
        given = form.get(f"prompt-{index}")
        if given is not None and _plain(given) != _plain(recorded):
            changes[ids[index]] = {"prompt": _plain(given)}
    return changes


def _plain(text: str) -> str:
    """A text area sends CRLF for each end of a line."""
    return text.replace("\r\n", "\n").strip()


def digest_of(name: str, form: Iterable[tuple[str, str]]) -> str:
    """Tells forms apart: what is sent twice has the same."""
    said = json.dumps([name, sorted(form)], ensure_ascii=True)
    return hashlib.sha256(said.encode()).hexdigest()
