"""sora-batch: batches of videos through Sora's Videos API, each paid for once.

The public names are imported when they are first used: `import actors` itself is quick and connects to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actors.aio import AsyncBatchService
    from actors.audit import AuditReport, MissingFile, MissingVideo, OwedDelete, SurplusVideo, UnknownVideo
    from actors.broker.connection import Connection
    from actors.client.aio import AsyncBatchClient
    from actors.client.batches import BatchClient
    from actors.client.line import Unanswered
    from actors.client.stream import EventFeed, EventStream
    from actors.errors import (
        BatchReleased,
        Conflict,
        DatabaseUnusable,
        ErrorCode,
        Failure,
        FieldError,
        InvalidRequest,
        NotFound,
        ServiceClosed,
        SettingsError,
        SoraBatchError,
        SoraError,
        StorageError,
    )
    from actors.events import Event, EventName
    from actors.messages import Wait
    from actors.model import (
        Batch,
        BatchVideoRequest,
        CancellationSummary,
        Charge,
        FileId,
        Job,
        JobError,
        Progress,
        VideoFile,
        VideoRequest,
    )
    from actors.service import BatchService, get_batch_service
    from actors.settings import Settings, load_settings
    from actors.upkeep import PruneReport
    from actors.waiting import RunningBatch
    from actors.wishes import Granted, Receipt, Wish
    from storage.deletes import Owed
    from storage.records import DeleteRecord, EventRecord, SubmissionRecord
    from storage.states import BatchStatus, DeleteState, JobStatus, SubmissionState

_HOMES = {
    "actors.aio": ("AsyncBatchService",),
    "actors.audit": ("AuditReport", "MissingFile", "MissingVideo", "OwedDelete", "SurplusVideo", "UnknownVideo"),
    "actors.broker.connection": ("Connection",),
    "actors.client.aio": ("AsyncBatchClient",),
    "actors.client.batches": ("BatchClient",),
    "actors.client.line": ("Unanswered",),
    "actors.client.stream": ("EventFeed", "EventStream"),
    "actors.errors": (
        "BatchReleased", "Conflict", "DatabaseUnusable", "ErrorCode", "Failure", "FieldError", "InvalidRequest",
        "NotFound", "ServiceClosed", "SettingsError", "SoraBatchError", "SoraError", "StorageError",
    ),
    "actors.events": ("Event", "EventName"),
    "actors.messages": ("Wait",),
    "actors.model": (
        "Batch", "BatchVideoRequest", "CancellationSummary", "Charge", "FileId", "Job", "JobError", "Progress",
        "VideoFile", "VideoRequest",
    ),
    "actors.service": ("BatchService", "get_batch_service"),
    "actors.settings": ("Settings", "load_settings"),
    "actors.upkeep": ("PruneReport",),
    "actors.waiting": ("RunningBatch",),
    "actors.wishes": ("Granted", "Receipt", "Wish"),
    "storage.deletes": ("Owed",),
    "storage.records": ("DeleteRecord", "EventRecord", "SubmissionRecord"),
    "storage.states": ("BatchStatus", "DeleteState", "JobStatus", "SubmissionState"),
}  # fmt: skip
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__version__ = "0.1.0"
# Each name is written down, and not taken from _HOMES: a type checker reads them here.
__all__ = [
    "AsyncBatchClient", "AsyncBatchService", "AuditReport", "Batch", "BatchClient", "BatchReleased", "BatchService",
    "BatchStatus", "BatchVideoRequest", "CancellationSummary", "Charge", "Conflict", "Connection",
    "DatabaseUnusable", "DeleteRecord", "DeleteState", "ErrorCode", "Event", "EventFeed", "EventName",
    "EventRecord", "EventStream", "Failure", "FieldError", "FileId", "Granted", "InvalidRequest", "Job", "JobError",
    "JobStatus", "MissingFile", "MissingVideo", "NotFound", "Owed", "OwedDelete", "Progress", "PruneReport",
    "Receipt", "RunningBatch", "ServiceClosed", "Settings", "SettingsError", "SoraBatchError", "SoraError",
    "StorageError", "SubmissionRecord", "SubmissionState", "SurplusVideo", "Unanswered", "UnknownVideo",
    "VideoFile", "VideoRequest", "Wait", "Wish", "__version__", "get_batch_service", "load_settings",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
