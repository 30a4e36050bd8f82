"""What `serve` removes from time to time, in a thread beside it: old commands, files and histories."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Self

from actors.errors import ServiceClosed, SoraBatchError

if TYPE_CHECKING:
    from actors.service import BatchService

logger = logging.getLogger(__name__)
_PAUSE = 600.0
_END_SECONDS = 5.0


class _Stopping(Exception):
    """The service stops: what remains is removed after its next start."""


class Housekeeping:
    """Runs until it is left. Each kind of thing is removed in small pieces, and what fails is tried again later."""

    def __init__(self, service: BatchService) -> None:
        self._service, self._stop = service, threading.Event()
        self._thread = threading.Thread(target=self._run, name="sora-housekeeping", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(_END_SECONDS)

    def _run(self) -> None:
        settings = self._service.settings
        while not self._stop.is_set():
            self._do(
                "batches that are being deleted", "delete", timedelta(0), lambda _: self._service.finish_deletions()
            )
            self._do("old commands of the inbox", "inbox", settings.command_keep, self._service.forget_commands)
            self._do("files (VIDEO_KEEP)", "video_keep", settings.video_keep, self._remove_files)
            self._do("events (HISTORY_KEEP)", "history_keep", settings.history_keep, self._prune)
            # What dies as this process starts is nobody's only when its lease is over.
            self._stop.wait(2 * settings.batch_lease.total_seconds())
            self._do("partial files", "sweep", timedelta(0), lambda _: self._service.sweep_parts())
            self._stop.wait(_PAUSE)

    def _do(self, what: str, action: str, span: timedelta | None, remove: Callable[[timedelta], int]) -> None:
        if span is None or self._stop.is_set():
            return
        try:
            count = remove(span)
        except (_Stopping, ServiceClosed):
            return
        except SoraBatchError as error:
            logger.warning("could not remove %s", what, extra={"action": action, "error": str(error)})
        except Exception:
            logger.exception("could not remove %s", what, extra={"action": action})
        else:
            level = logging.INFO if count else logging.DEBUG
            logger.log(level, "removed %s", what, extra={"action": action, "count": count})

    def _remove_files(self, span: timedelta) -> int:
        return self._service.remove_files(span, progress=self._check)

    def _prune(self, span: timedelta) -> int:
        return self._service.prune(span, progress=self._check).events

    def _check(self, _: object) -> None:
        if self._stop.is_set():
            raise _Stopping
