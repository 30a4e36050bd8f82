"""What a form says, as the request of a command. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from actors.batch.field_errors import all_of
from actors.batch.requests import BatchVideoRequest
from actors.documents import Unreadable
from actors.errors import FieldError, InvalidRequest
from actors.expectations import NONE, read_budget
from actors.formats.reading import LINES, Request, format_of, read_batch, with_lines
from actors.web.page.lines import lines_of, lines_with, pairs_in, value_of, values_in
from storage.records import BatchRecord, JobRecord

Errors = Sequence[tuple[str | None, str]]
"""What must change in a form: the field, if it is one's, and a sentence."""
NEW_FIELDS = (
    "prompts", "document", "document_name", "batch_name", "duration", "size", "model", "seed", "takes", "params",
    "matrix", "metadata", "concurrency", "budget",
)  # fmt: skip
"""The fields of the form of a new batch."""
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


def filled(sent: Mapping[str, str]) -> dict[str, str]:
    """The form of a new batch as it was filled in; a file's prompts come behind those that were typed."""
    form = {name: sent.get(name, "").strip() for name in NEW_FIELDS}
    form["document"] = form["document"].replace("\r\n", "\n")  # as a text area sends it
    text, name = sent.get("file", "").strip(), sent.get("file_name", "")
    if not text:
        return form
    if format_of(name or None, text) == LINES:
        return form | {"prompts": "\n".join(each for each in (form["prompts"], text) if each)}
    return form | {"document": text, "document_name": name}


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
    params = values_in(form["params"], "/defaults/params", "fps=24", errors)
    if params:
        defaults["params"] = params
    matrix = pairs_in(form["matrix"], "/matrix", "style=oil, watercolor", errors)
    own: dict[str, Any] = {
        "batch_name": form["batch_name"] or None,
        "metadata": values_in(form["metadata"], "/metadata", "team=blue", errors) or None,
        "concurrency": _whole(form["concurrency"]) if form["concurrency"] else None,
        "matrix": {name: _choices(text) for name, text in matrix.items()} or None,
    }
    try:
        own["budget"] = budget_of(form["budget"]) or None
    except InvalidRequest as error:
        errors += error.errors
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
    if not text or text.lower() == NONE:
        return []
    try:
        return [{"amount": each.amount, "unit": each.unit} for each in read_budget(text)]
    except ValueError as error:
        raise all_of([FieldError("/budget", f"budget {text!r}: {error}", "such as 20 USD", "value_error")]) from None


def _whole(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else text


def _choices(text: str) -> list[Any]:
    """The values of a name of the matrix: numbers, and else texts."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    return [value if isinstance(value := value_of(part), int | float) else part for part in parts]


def wrong_fields(error: InvalidRequest) -> Errors:
    """What must change: the field of the form, if it is one's, and a sentence."""
    return [(_field_of(each.field), _sentence(each)) for each in error.errors[:20]]


def _sentence(error: FieldError) -> str:
    if (error.field, error.code) == ("/videos", "too_short"):
        return "Write at least one prompt."
    return error.message.removeprefix("defaults.")


def with_document(error: InvalidRequest) -> Errors:
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
