"""The changes that a retry makes to a job's request: merged with it, within the limits of any request."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from actors.batch.field_errors import all_of, wrong_field
from actors.batch.fields import DOCUMENT_MAX_BYTES, FILES_MAX_BYTES, MOST_FILES, given_twice
from storage.records import Document, JobRecord, options_of
from storage.storage import Storage


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
