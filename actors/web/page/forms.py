"""What a form says, as the request of a command. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from actors.batch.field_errors import all_of, wrong_field
from actors.errors import FieldError, InvalidRequest
from storage.records import BatchRecord, JobRecord

NEW_FIELDS = (
    "prompts", "batch_name", "duration", "size", "model", "seed", "takes", "params", "matrix", "metadata",
    "concurrency",
)  # fmt: skip
"""The fields of the form of a new batch."""
_PLACES = {
    "/videos": "prompts", "/batch_name": "batch_name", "/defaults/duration": "duration", "/defaults/size": "size",
    "/defaults/model": "model", "/defaults/seed": "seed", "/defaults/takes": "takes", "/defaults/params": "params",
    "/matrix": "matrix", "/metadata": "metadata", "/concurrency": "concurrency",
}  # fmt: skip


def form_of(batch: BatchRecord, job: JobRecord) -> dict[str, str]:
    """The form of a new batch with what was asked for in a job."""
    prompt = f"\\{job.prompt}" if job.prompt.startswith("#") else job.prompt
    given = {
        "prompts": prompt, "batch_name": batch.name, "duration": job.duration, "size": job.size, "model": job.model,
        "seed": job.seed, "params": _lines_of(job.params), "metadata": _lines_of(batch.metadata),
    }  # fmt: skip
    return dict.fromkeys(NEW_FIELDS, "") | {name: str(value) for name, value in given.items() if value is not None}


def can_be_written(job: JobRecord) -> bool:
    """Whether the form can say what was asked for in a job: it takes no files, and a prompt is one line there."""
    return job.reference is None and not job.files and "\n" not in job.prompt


def _lines_of(values: Mapping[str, Any]) -> str:
    return "\n".join(f"{name}={_written(value)}" for name, value in values.items())


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


def request_of(form: Mapping[str, str]) -> dict[str, Any]:
    """The request of a new batch.

    Raises:
        InvalidRequest: a line is no NAME=VALUE.
    """
    errors: list[FieldError] = []
    defaults: dict[str, Any] = {name: _whole(form[name]) for name in ("duration", "seed", "takes") if form[name]}
    defaults |= {name: form[name] for name in ("size", "model") if form[name]}
    params = _pairs(form["params"], "/defaults/params", "fps=24", errors)
    if params:
        defaults["params"] = {name: _json_or_text(value) for name, value in params.items()}
    matrix = _pairs(form["matrix"], "/matrix", "style=oil, watercolor", errors)
    request: dict[str, Any] = {
        "videos": [{"prompt": prompt} for prompt in prompts_of(form["prompts"])],
        "batch_name": form["batch_name"] or None,
        "metadata": _pairs(form["metadata"], "/metadata", "team=blue", errors),
        "concurrency": _whole(form["concurrency"]) if form["concurrency"] else None,
        "defaults": defaults or None,
        "matrix": {name: [_number_or_text(value) for value in _listed(text)] for name, text in matrix.items()} or None,
    }
    if errors:
        raise all_of(errors)
    return {name: value for name, value in request.items() if value is not None}


def _pairs(text: str, place: str, example: str, errors: list[FieldError]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for line in lines_of(text):
        name, equals, value = line.partition("=")
        if not (equals and name.strip()):
            errors.append(wrong_field((place[1:].split("/")), f"each line must be NAME=VALUE, such as {example}", line))
        else:
            pairs[name.strip()] = value.strip()
    return pairs


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
