"""The changes that a retry makes to jobs' requests: read, and merged with them within the limits of any request."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from actors.batch.factory import References
from actors.batch.field_errors import all_of, invalid, wrong_field
from actors.batch.fields import DOCUMENT_MAX_BYTES, FILES_MAX_BYTES, MOST_FILES, given_twice
from actors.batch.requests import VideoRequest
from actors.errors import InvalidRequest
from actors.settings import Settings
from storage.records import Document, JobRecord, ReferenceRecord, options_of
from storage.storage import Storage


def changed_columns(
    changes: Mapping[str, Mapping[str, Any]], settings: Settings, *, paths: bool = True
) -> tuple[dict[str, dict[str, Any]], list[ReferenceRecord]]:
    """The columns that the changes set, by job id, and the bytes of their input references.

    `options` has the changed seed, params and files, which are merged with those of the job. `paths`: see `new_batch`.

    Raises:
        InvalidRequest: a change is wrong.
    """
    columns: dict[str, dict[str, Any]] = {}
    references = References(settings, paths=paths)
    for changed_id, change in changes.items():
        given, removed = _without_removed_files(change)
        try:
            video = VideoRequest.model_validate({"prompt": "unchanged", **given})
        except ValidationError as error:
            raise invalid(error, "changes", changed_id) from None
        columns[changed_id] = changed = _changed(changed_id, video, references, prompt="prompt" in change)
        if removed:
            changed["options"]["files"].update(dict.fromkeys(removed))
    return columns, references.records


def _without_removed_files(change: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[str]]:
    """A change without the files that it sets to null, and their names: they are removed from the job's."""
    files = change.get("files")
    if not isinstance(files, dict):
        return change, []
    removed = [name for name, file in files.items() if file is None]
    return {**change, "files": {name: file for name, file in files.items() if file is not None}}, removed


def _changed(changed_id: str, video: VideoRequest, references: References, *, prompt: bool) -> dict[str, Any]:
    said = video.model_fields_set
    if "metadata" in said:
        raise InvalidRequest(
            f"changes of {changed_id}: a retry can't change metadata, which is never sent to the server"
        )
    if video.takes is not None:
        raise InvalidRequest(f"changes of {changed_id}: a job makes a single take; create another batch for more takes")
    if video.seed == "random":
        raise InvalidRequest(f'changes of {changed_id}: seed can\'t be "random" in a retry; give a number')
    given = video.model_dump(exclude_unset=True, include={"prompt", "duration", "size", "model"})
    if not prompt:
        del given["prompt"]
    place = ("changes", changed_id)
    if "input_reference" in said:
        given["reference"] = references.kept(video.input_reference, (*place, "input_reference"))
    options: dict[str, Any] = {"params": dict(video.params)} if "params" in said else {}
    if "seed" in said:
        options["seed"] = video.seed
    if "files" in said:
        options["files"] = references.all_kept(video.files, (*place, "files"))
    return given | ({"options": options} if options else {})


def columns_of(job: JobRecord, change: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that a change sets: params and files are merged with those of the job, and null removes one.

    Raises:
        InvalidRequest: the merged request exceeds a limit.
    """
    columns = dict(change)
    further = columns.pop("options", None)
    if further is not None:
        params, files = (_joined(getattr(job, name), further.get(name, {})) for name in ("params", "files"))
        _check(job.id, params, files, "files" if further.get("files") else "params")
        columns["options"] = options_of(
            seed=further.get("seed", job.seed),
            take=job.options.get("take") if job.options else None,
            params=params,
            files=files,
        )
    return columns


def _joined(before: Document, change: Document) -> Document:
    return {name: value for name, value in {**before, **change}.items() if value is not None}


def _check(job_id: str, params: Document, files: Document, changed: str) -> None:
    twice = given_twice(files, params)
    if twice is not None:
        way_out = {
            "files": "the job's params contain too: set it to null there",
            "params": "is one of the job's files: omit it",
        }
        expected = f"contains {twice}, which {way_out[changed]}"
        raise all_of([wrong_field(("changes", job_id, changed), expected)])
    if len(json.dumps(params, ensure_ascii=False).encode()) > DOCUMENT_MAX_BYTES:
        expected = f"must be at most {DOCUMENT_MAX_BYTES} bytes as JSON, the job's own params included"
        raise all_of([wrong_field(("changes", job_id, "params"), expected)])
    if len(files) > MOST_FILES:
        expected = f"must have at most {MOST_FILES} entries, the job's own files included"
        raise all_of([wrong_field(("changes", job_id, "files"), expected)])


def check_files(storage: Storage, columns: Mapping[str, Mapping[str, Any]]) -> None:
    """Check the total size of the stored files of each changed job.

    Raises:
        InvalidRequest: it exceeds the limit.
    """
    for job_id, changed in columns.items():
        files = (changed.get("options") or {}).get("files", {}).values()
        size = storage.jobs.bytes_of([file["digest"] for file in files if "digest" in file])
        if size > FILES_MAX_BYTES:
            expected = f"must total at most {FILES_MAX_BYTES >> 20} MiB, and total {size} bytes with the job's own"
            raise all_of([wrong_field(("changes", job_id, "files"), expected, code="too_large")])


def is_changed(job: JobRecord, columns: Mapping[str, Any]) -> bool:
    """Whether a change asks for something different: only then may the job be paid for again."""
    return not all(_same(getattr(job, name), value) for name, value in columns.items())


def _same(one: Any, other: Any) -> bool:
    """Whether both are the same to a server: 1 equals 1.0, but not true as in Python."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(value, other[name]) for name, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)
