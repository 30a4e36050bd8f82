"""sora-batch: batches of videos through Sora's Videos API, each paid for once.

The public names are imported when they are first used: `import actors` itself is quick and connects to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actors.aio import AsyncBatchService
    from actors.client.aio import AsyncBatchClient
    from actors.client.batches import BatchClient
    from actors.client.line import Unanswered
    from actors.errors import (
        BatchReleased,
        Conflict,
        ErrorCode,
        InvalidRequest,
        NotFound,
        SettingsError,
        SoraBatchError,
        SoraError,
        StorageError,
    )
    from actors.events import Event
    from actors.model import Batch, BatchVideoRequest, CancellationSummary, Job, Progress, VideoRequest
    from actors.service import BatchService, get_batch_service
    from actors.settings import Settings, load_settings
    from actors.waiting import RunningBatch

_HOMES = {
    "actors.aio": ("AsyncBatchService",),
    "actors.client.aio": ("AsyncBatchClient",),
    "actors.client.batches": ("BatchClient",),
    "actors.client.line": ("Unanswered",),
    "actors.errors": (
        "BatchReleased", "Conflict", "ErrorCode", "InvalidRequest", "NotFound", "SettingsError", "SoraBatchError",
        "SoraError", "StorageError",
    ),
    "actors.events": ("Event",),
    "actors.model": ("Batch", "BatchVideoRequest", "CancellationSummary", "Job", "Progress", "VideoRequest"),
    "actors.service": ("BatchService", "get_batch_service"),
    "actors.waiting": ("RunningBatch",),
    "actors.settings": ("Settings", "load_settings"),
}  # fmt: skip
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__version__ = "0.1.0"
__all__ = [  # noqa: PLE0604  (mypy reads the names from the imports above)
    "__version__",
    *sorted(_HOME_OF),
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
