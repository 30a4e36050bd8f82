"""What the log tells of a batch that this process owns."""

from __future__ import annotations

import logging
import time
from typing import Any

from actors.messages import Loaded, Report, Wait, Waiting, Withdrawn
from storage.states import BatchStatus

logger = logging.getLogger(__name__)


class BatchLog:
    """Writes one line for each claim, wait, release and restart."""

    def __init__(self, loaded: Loaded, owner_id: str) -> None:
        self._id, self._epoch, self._owner = loaded.batch.id, loaded.batch.epoch, owner_id
        self._is_new, self._former = loaded.batch.status is BatchStatus.PENDING, loaded.former
        self._open = len(loaded.open_jobs)

    def tell(self, event: str, text: str, **more: Any) -> None:
        """Log what happened to the batch."""
        if logger.isEnabledFor(logging.INFO):
            logger.info(text, extra={"action": event, "event": event, "batch_id": self._id, **more})

    def claimed(self) -> None:
        """Log how the batch came to this process."""
        about = {"epoch": self._epoch} if self._is_new else {"epoch": self._epoch, "jobs_open": self._open}
        if self._former == self._owner:
            self.tell("batch.restarted", "started the supervisor of the batch again", **about)
        elif self._former is not None:
            self.tell("batch.taken_over", "took the batch over from a dead process", former_owner=self._former, **about)
        elif self._is_new:
            self.tell("batch.claimed", "claimed the batch", **about)
        else:  # it was released, retried, moved or updated
            self.tell("batch.claimed", "claimed a batch that had begun before", **about)

    def report(self, report: Report, before: Wait | None) -> None:
        """Log why a video waits: once for each reason, not for each try.

        Args:
            report: a worker's.
            before: why the video was waiting until now.
        """
        job_id = report.job_id
        if isinstance(report, Withdrawn):
            code, error = report.failure.code.value, report.failure.message
            self.tell("job.withdrawn", "a submission made nothing", job_id=job_id, error_code=code, error=error)
        elif isinstance(report, Waiting) and (wait := report.wait) and getattr(before, "reason", None) != wait.reason:
            left = round(wait.until - time.monotonic(), 1)
            self.tell("job.waiting", "a video is waiting", job_id=job_id, reason=wait.reason, seconds=left)

    def worker_restarted(self, worker: int, error: str) -> None:
        """Log that a worker died and another one is started."""
        self.tell("worker.restarted", "a worker died; started it again", worker=worker, error=error)

    def released(self, *, wanted: bool) -> None:
        """Log that the release of the batch is recorded."""
        self.tell("batch.released", "released the batch", epoch=self._epoch, wanted=wanted)

    def lost(self) -> None:
        """Log that a write was refused, or that the batch was cancelled or taken over."""
        self.tell("batch.lost", "another process owns the batch now", epoch=self._epoch)
