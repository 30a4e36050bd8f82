"""Turns a validated request, with what the settings add to it, into the records of a new batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from actors.batch.references import load_reference
from actors.batch.requests import BatchVideoRequest, VideoRequest, canonical_digest, invalid, job_id, new_batch_id
from actors.batch.start import NewBatch
from actors.errors import InvalidRequest
from actors.settings import Settings
from storage.records import BatchRecord, JobRecord, ReferenceRecord
from storage.states import BatchStatus, JobStatus

_References = dict[str, ReferenceRecord]


def new_batch(request: BatchVideoRequest, settings: Settings, now: float, *, paths: bool = True) -> NewBatch:
    """The records of a batch that is yet to be stored, and the bytes of its input references.

    `paths`: whether they may be read from any local path, or only below SORA_REFERENCE_DIRS.

    Raises:
        InvalidRequest: an input reference can't be had.
    """
    batch_id = request.id or new_batch_id()
    references: _References = {}
    jobs = [
        _new_job(batch_id, position, video, settings, references, now, paths=paths)
        for position, video in enumerate(request.videos, 1)
    ]
    document = request.model_dump(mode="json", exclude={"id"})
    for video, job in zip(document["videos"], jobs, strict=True):
        video["input_reference"] = job.reference  # its bytes belong to the request, not the name of its file
    timeout = settings.batch_timeout.total_seconds()
    batch = BatchRecord(
        id=batch_id, name=request.batch_name, metadata=dict(request.metadata), status=BatchStatus.PENDING,
        concurrency=request.concurrency or settings.batch_concurrency,
        timeout=timeout if request.timeout_ms is None else request.timeout_ms / 1000,
        digest=canonical_digest(document), provider=None, total=len(jobs), completed=0, failed=0, cancelled=0,
        processing=0, error=None, sequence=0, epoch=0, owner=None, wanted=False, claims=0, spent=0.0,
        created_at=now, updated_at=now, started_at=None, completed_at=None,
    )  # fmt: skip
    return NewBatch(batch, jobs, list(references.values()))


def changed_columns(
    changes: Mapping[str, Mapping[str, Any]], settings: Settings, *, paths: bool = True
) -> tuple[dict[str, dict[str, Any]], list[ReferenceRecord]]:
    """The columns that changed requests set, by job id, and the bytes of their input references.

    `paths`: as for `new_batch`.

    Raises:
        InvalidRequest: a change is wrong.
    """
    columns: dict[str, dict[str, Any]] = {}
    references: _References = {}
    for changed_id, change in changes.items():
        try:
            video = VideoRequest.model_validate({"prompt": "unchanged", **change})
        except ValidationError as error:
            raise invalid(error, "changes", changed_id) from None
        if "metadata" in video.model_fields_set:
            raise InvalidRequest(f"changes of {changed_id}: metadata is not sent to the server and can't change")
        given = video.model_dump(exclude_unset=True, include={"prompt", "duration", "size", "model"})
        if "prompt" not in change:
            del given["prompt"]
        if "input_reference" in video.model_fields_set:
            place = ("changes", changed_id, "input_reference")
            given["reference"] = _reference(video, place, settings, references, paths=paths)
        columns[changed_id] = given
    return columns, list(references.values())


def _new_job(
    batch_id: str,
    position: int,
    video: VideoRequest,
    settings: Settings,
    references: _References,
    now: float,
    *,
    paths: bool,
) -> JobRecord:
    return JobRecord(
        id=job_id(batch_id, position), batch_id=batch_id, position=position, status=JobStatus.PENDING,
        prompt=video.prompt, duration=video.duration or settings.sora_seconds,
        model=video.model or settings.sora_model, size=video.size or settings.sora_size,
        reference=_reference(
            video, ("videos", str(position - 1), "input_reference"), settings, references, paths=paths
        ),
        metadata=dict(video.metadata), remote_id=None, progress=0, attempts=0, error=None, video=None,
        created_at=now, updated_at=now, started_at=None, completed_at=None,
    )  # fmt: skip


def _reference(
    video: VideoRequest, place: tuple[str, ...], settings: Settings, references: _References, *, paths: bool
) -> dict[str, Any] | None:
    if video.input_reference is None:
        return None
    kept, record = load_reference(video.input_reference, settings, place, paths=paths)
    if record is not None:
        references[record.digest] = record
    return kept
