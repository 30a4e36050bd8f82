"""sora-batch: batches of videos through Sora's Videos API, each paid for once.

Public names are imported on first use: `import actors` is quick and connects to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actors.aio import AsyncBatchService
    from actors.audit_report import (
        AuditReport,
        FlaggedPrice,
        ListedPrice,
        MissingFile,
        MissingVideo,
        OwedDelete,
        SurplusVideo,
        UnknownVideo,
    )
    from actors.batch.cleanup import PruneReport
    from actors.batch.commands import Command, CommandKey, CommandResult
    from actors.batch.costs import Budget, CostGroup, CostReport
    from actors.batch.events import Event, EventName
    from actors.batch.fields import BudgetRequest, FileId
    from actors.batch.job_views import Cost, Job, JobError, JobWarning, ReportedVideo, VideoFile
    from actors.batch.quotes import Quote, QuotedCost, QuotedPrice, QuotedVideo
    from actors.batch.requests import BatchVideoRequest, VideoDefaults, VideoRequest
    from actors.batch.views import Batch, CancellationSummary, Charge, Progress
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
    from actors.fetching.fetch import FetchedFile, FetchProblem, FetchReport
    from actors.messages import Wait
    from actors.observer import Observer
    from actors.rabbitmq.client.asynchronous import AsyncBatchClient
    from actors.rabbitmq.client.blocking import BatchClient
    from actors.rabbitmq.client.calls import Unanswered
    from actors.rabbitmq.client.feed import EventFeed
    from actors.rabbitmq.client.stream import EventStream
    from actors.rabbitmq.connection import Connection
    from actors.service import BatchService, get_batch_service
    from actors.service.waiting import RunningBatch
    from actors.settings import Settings, load_settings
    from storage.deletes import Owed
    from storage.records import DeleteRecord, EventRecord, SubmissionRecord
    from storage.states import BatchStatus, ChargeState, DeleteState, JobStatus, SubmissionState
    from storage.unfinished import Unfinished

_HOMES = {
    "actors.aio": ("AsyncBatchService",),
    "actors.audit_report": (
        "AuditReport", "FlaggedPrice", "ListedPrice", "MissingFile", "MissingVideo", "OwedDelete", "SurplusVideo",
        "UnknownVideo",
    ),
    "actors.batch.commands": ("Command", "CommandKey", "CommandResult"),
    "actors.batch.costs": ("Budget", "CostGroup", "CostReport"),
    "actors.batch.events": ("Event", "EventName"),
    "actors.batch.cleanup": ("PruneReport",),
    "actors.batch.fields": ("BudgetRequest", "FileId"),
    "actors.batch.job_views": ("Cost", "Job", "JobError", "JobWarning", "ReportedVideo", "VideoFile"),
    "actors.batch.quotes": ("Quote", "QuotedCost", "QuotedPrice", "QuotedVideo"),
    "actors.batch.requests": ("BatchVideoRequest", "VideoDefaults", "VideoRequest"),
    "actors.batch.views": ("Batch", "CancellationSummary", "Charge", "Progress"),
    "actors.errors": (
        "BatchReleased", "Conflict", "DatabaseUnusable", "ErrorCode", "Failure", "FieldError", "InvalidRequest",
        "NotFound", "ServiceClosed", "SettingsError", "SoraBatchError", "SoraError", "StorageError",
    ),
    "actors.fetching.fetch": ("FetchProblem", "FetchReport", "FetchedFile"),
    "actors.messages": ("Wait",),
    "actors.observer": ("Observer",),
    "actors.rabbitmq.client.asynchronous": ("AsyncBatchClient",),
    "actors.rabbitmq.client.blocking": ("BatchClient",),
    "actors.rabbitmq.client.calls": ("Unanswered",),
    "actors.rabbitmq.client.feed": ("EventFeed",),
    "actors.rabbitmq.client.stream": ("EventStream",),
    "actors.rabbitmq.connection": ("Connection",),
    "actors.service": ("BatchService", "get_batch_service"),
    "actors.settings": ("Settings", "load_settings"),
    "actors.service.waiting": ("RunningBatch",),
    "storage.deletes": ("Owed",),
    "storage.records": ("DeleteRecord", "EventRecord", "SubmissionRecord"),
    "storage.states": ("BatchStatus", "ChargeState", "DeleteState", "JobStatus", "SubmissionState"),
    "storage.unfinished": ("Unfinished",),
}  # fmt: skip
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__version__ = "0.1.0"
# Listed instead of derived from _HOMES, because type checkers read them here.
__all__ = [
    "AsyncBatchClient", "AsyncBatchService", "AuditReport", "Batch", "BatchClient", "BatchReleased", "BatchService",
    "BatchStatus", "BatchVideoRequest", "Budget", "BudgetRequest", "CancellationSummary", "Charge",
    "ChargeState", "Command",
    "CommandKey", "CommandResult", "Conflict", "Connection", "Cost", "CostGroup", "CostReport",
    "DatabaseUnusable", "DeleteRecord", "DeleteState", "ErrorCode", "Event", "EventFeed", "EventName",
    "EventRecord", "EventStream", "Failure", "FetchProblem", "FetchReport",
    "FetchedFile", "FieldError", "FileId", "FlaggedPrice", "InvalidRequest", "Job", "JobError",
    "JobStatus", "JobWarning", "ListedPrice", "MissingFile", "MissingVideo", "NotFound", "Observer", "Owed",
    "OwedDelete", "Progress", "PruneReport", "Quote", "QuotedCost", "QuotedPrice", "QuotedVideo", "ReportedVideo",
    "RunningBatch", "ServiceClosed", "Settings", "SettingsError", "SoraBatchError",
    "SoraError", "StorageError", "SubmissionRecord", "SubmissionState", "SurplusVideo", "Unanswered", "Unfinished",
    "UnknownVideo",
    "VideoDefaults", "VideoFile", "VideoRequest", "Wait", "__version__", "get_batch_service", "load_settings",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
