"""Answers about a job: its request, its state, its file and its cost (pydantic). Snake case on the wire."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    model_validator,
)

from storage.records import Document, JobRecord
from storage.states import JobStatus
from storage.stores import uri_of


class Output(BaseModel):
    """An answer: frozen."""

    model_config = ConfigDict(frozen=True)


class JobError(Output):
    """Why a job or a batch failed."""

    code: str
    message: str
    retryable: bool
    detail: dict[str, Any] | None = None


class VideoFile(Output):
    """A finished file."""

    uri: str
    """Where it is for good: `file:///...`, or its place in a bucket."""
    path: str | None = None
    """Its path where the store is a folder; else null."""
    url: str | None = None
    """Where a service answers with it over HTTP, by `WEB_PUBLIC_URL`; in an event, as it was when recorded."""
    bytes: int
    sha256: str
    content_type: str
    removed_at: datetime | None = Field(default=None, exclude_if=lambda at: at is None)
    """When the file was removed; only there if it was."""

    @model_validator(mode="before")
    @classmethod
    def _with_uri(cls, given: Any) -> Any:
        """A service of the previous version tells of the path alone."""
        return {**given, "uri": uri_of(given)} if isinstance(given, dict) and "uri" not in given else given


class JobWarning(Output):
    """A difference between the request and the finished video."""

    code: str
    message: str
    asked: str | int | float | None
    made: str | int | float | None


class ReportedVideo(Output):
    """What the server reported about the finished video; null: not reported."""

    seconds: float | None
    size: str | None
    seed: int | None
    revised_prompt: str | None


class Cost(Output):
    """What submissions cost in one currency, in millionths of its unit. Released ones are in no sum."""

    currency: str | None
    """Null: the price is unknown."""
    estimated_micros: int
    """What the table of prices said of all of them."""
    reserved_micros: int
    """Those whose outcome is unknown: they may have been paid for."""
    charged_micros: int
    """What the server, or a person, told. Added up exactly, and rounded once."""
    assumed_micros: int
    """Those that the server accepted without telling a price."""
    unknown_prices: int
    """How many have no price: what they cost comes on top."""


class Job(Output):
    """One video of a batch. A service of the previous version omits the fields that have a default."""

    id: str
    index: int
    status: JobStatus
    prompt: str
    duration: int | None
    model: str | None
    size: str | None
    seed: int | None = None
    params: dict[str, Any] = Field(default_factory=dict)
    """Server-specific fields, as requested."""
    take: int = 1
    """Number of this take of its request, from 1."""
    metadata: dict[str, Any]
    remote_id: str | None
    progress: int
    attempts: int
    error: JobError | None
    video: VideoFile | None
    warnings: list[JobWarning] = Field(default_factory=list)
    reported: ReportedVideo | None = None
    """What the server reported about the video; null: nothing yet."""
    cost: list[Cost] = Field(default_factory=list)
    """What its submissions cost, with one entry per currency."""
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    completed_at: datetime | None

    @classmethod
    def of(cls, record: JobRecord, cost: Sequence[Document] = ()) -> Self:
        """The public view of a record, and of what it costs."""
        return cls.model_validate(job_document(record, cost))


def job_document(record: JobRecord, cost: Sequence[Document] = ()) -> dict[str, Any]:
    """A record as `Job` shows it, as JSON with the fields in the same order, without a model."""
    return {
        "id": record.id,
        "index": record.position,
        "status": record.status,
        "prompt": record.prompt,
        "duration": record.duration,
        "model": record.model,
        "size": record.size,
        "seed": record.seed,
        "params": record.params,
        "take": record.take,
        "metadata": record.metadata,
        "remote_id": record.remote_id,
        "progress": record.progress,
        "attempts": record.attempts,
        "error": _in_order(record.error, _ERROR),
        "video": _video(record.video) if record.video else None,
        "warnings": record.made.get("warnings", []) if record.made else [],
        "reported": _in_order(record.made.get("reported"), _REPORTED) if record.made else None,
        "cost": list(cost),
        "created_at": moment(record.created_at),
        "updated_at": moment(record.updated_at),
        "started_at": moment(record.started_at),
        "completed_at": moment(record.completed_at),
    }


def with_urls(records: list[JobRecord], public_url: str | None) -> list[JobRecord]:
    """The records as a service answers with them: the URL of a file is its own, not that of whoever recorded it.

    `public_url`: its `WEB_PUBLIC_URL`; None: it has none.
    """
    return [_with_url(record, public_url) if record.video else record for record in records]


def _with_url(record: JobRecord, public_url: str | None) -> JobRecord:
    assert record.video is not None
    url = video_url(public_url, record.batch_id, record.position)
    return record if record.video.get("url") == url else record._replace(video={**record.video, "url": url})


def video_url(public_url: str | None, batch_id: str, position: int) -> str | None:
    """Where a service with this `WEB_PUBLIC_URL` answers with the file of a job; None: it has no such setting."""
    return None if public_url is None else f"{public_url}/api/v1/batches/{batch_id}/jobs/{position}/video"


def _video(recorded: dict[str, Any]) -> dict[str, Any]:
    """What is recorded for a file, as it is shown: earlier versions recorded its path alone."""
    removed_at = recorded.get("removed_at")
    shown = {
        "uri": uri_of(recorded),
        "path": None if removed_at else recorded.get("path"),
        "url": None if removed_at else recorded.get("url"),
        "bytes": recorded["bytes"],
        "sha256": recorded["sha256"],
        "content_type": recorded["content_type"],
    }
    return {**shown, "removed_at": moment(removed_at)} if removed_at else shown


_ERROR = tuple(JobError.model_fields)

_REPORTED = tuple(ReportedVideo.model_fields)


def _in_order(document: dict[str, Any] | None, names: tuple[str, ...]) -> dict[str, Any] | None:
    """Its fields in the model's order, which a database may not keep."""
    return {name: document.get(name) for name in names} if document else None


@functools.lru_cache(maxsize=128)  # jobs that move together share their times
def moment(seconds: float | None) -> Any:
    """Seconds since 1970 as an aware datetime in UTC; None stays None."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def job_id(batch_id: str, position: int) -> str:
    """A job's id, from its batch's id and its position in it, from 1."""
    return f"{batch_id}-{position:02d}"
