"""AsyncBatchService: `BatchService` for asyncio programs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from actors.batch.cleanup import PruneReport
from actors.batch.events import Event
from actors.batch.requests import BatchVideoRequest
from actors.batch.views import Batch, CancellationSummary
from actors.service import BatchService
from actors.service.waiting import RunningBatch
from actors.settings import Settings
from storage.records import SubmissionRecord
from storage.states import BatchStatus

if TYPE_CHECKING:
    from actors.audit_report import AuditReport
    from actors.batch.costs import CostReport
    from actors.batch.job_views import Job
    from actors.batch.quotes import Quote
    from actors.fetching.fetch import FetchReport
    from actors.messages import Wait
    from storage.deletes import Owed


class AsyncBatchService:
    """The same methods as coroutines. Those that process a batch return the final `Batch` at its end.

    `start_batch` starts one without waiting. Cancelling a task that waits for a batch does not affect the batch; use
    `cancel_batch`.
    """

    def __init__(self, settings: Settings | None = None, *, simulate: bool = False) -> None:
        self._service = BatchService(settings, simulate=simulate)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def create_batch(self, request: BatchVideoRequest | dict[str, Any]) -> Batch:
        """As `BatchService.create_batch`."""
        return await asyncio.to_thread(self._service.create_batch, request)

    async def process_batch(self, batch_id: str, concurrency: int | None = None) -> Batch:
        """As `BatchService.process_batch`, and waits for the batch's end."""
        return await asyncio.wrap_future(await asyncio.to_thread(self._service.process_batch, batch_id, concurrency))

    async def start_batch(self, batch_id: str, concurrency: int | None = None) -> RunningBatch:
        """As `BatchService.process_batch`, returning its Future: await its end with `asyncio.wrap_future`."""
        return await asyncio.to_thread(self._service.process_batch, batch_id, concurrency)

    async def quote(self, request: BatchVideoRequest | dict[str, Any]) -> Quote:
        """As `BatchService.quote`."""
        return await asyncio.to_thread(self._service.quote, request)

    async def get_batch_status(self, batch_id: str) -> Batch:
        """As `BatchService.get_batch_status`."""
        return await asyncio.to_thread(self._service.get_batch_status, batch_id)

    async def cancel_batch(self, batch_id: str, reason: str | None = None) -> CancellationSummary:
        """As `BatchService.cancel_batch`."""
        return await asyncio.to_thread(self._service.cancel_batch, batch_id, reason)

    async def list_batches(
        self,
        status: BatchStatus | str | None = None,
        metadata: Mapping[str, Any] | None = None,
        limit: int = 50,
        after: str | None = None,
    ) -> list[Batch]:
        """As `BatchService.list_batches`."""
        return await asyncio.to_thread(self._service.list_batches, status, metadata, limit, after)

    async def retry_batch(
        self,
        batch_id: str,
        job_ids: Sequence[str] | None = None,
        changes: Mapping[str, Mapping[str, Any]] | None = None,
        pay_again: bool = False,  # noqa: FBT001, FBT002  (the published signature)
        move_server: bool = False,  # noqa: FBT001, FBT002
        budget: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    ) -> Batch:
        """As `BatchService.retry_batch`, and waits for the batch's end."""
        return await asyncio.wrap_future(
            await asyncio.to_thread(
                self._service.retry_batch, batch_id, job_ids, changes, pay_again, move_server, budget
            )
        )

    async def resume_batches(self, batch_ids: Sequence[str] | None = None) -> list[Batch]:
        """As `BatchService.resume_batches`, and waits for the end of all of them."""
        running = await asyncio.to_thread(self._service.resume_batches, batch_ids)
        return list(await asyncio.gather(*(asyncio.wrap_future(future) for future in running)))

    async def costs(self, since: str | None = None, by: str | None = None) -> CostReport:
        """As `BatchService.costs`."""
        return await asyncio.to_thread(self._service.costs, since, by)

    async def settle_cost(self, submission_id: str, word: str, *, by: str | None = None) -> Batch | None:
        """As `BatchService.settle_cost`."""
        return await asyncio.to_thread(lambda: self._service.settle_cost(submission_id, word, by=by))

    async def update_budget(self, batch_id: str, budget: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> Batch:
        """As `BatchService.update_budget`."""
        return await asyncio.to_thread(self._service.update_budget, batch_id, budget)

    async def update_metadata(self, batch_id: str, metadata: dict[str, Any]) -> Batch:
        """As `BatchService.update_metadata`."""
        return await asyncio.to_thread(self._service.update_metadata, batch_id, metadata)

    async def delete_batch(self, batch_id: str, *, keep_files: bool = False) -> None:
        """As `BatchService.delete_batch`."""
        await asyncio.to_thread(lambda: self._service.delete_batch(batch_id, keep_files=keep_files))

    async def history(self, batch_id: str, from_sequence: int = 1) -> list[Event]:
        """As `BatchService.history`."""
        return await asyncio.to_thread(self._service.history, batch_id, from_sequence)

    async def pruned(self, batch_id: str) -> int:
        """As `BatchService.pruned`."""
        return await asyncio.to_thread(self._service.pruned, batch_id)

    async def submissions(self, batch_id: str) -> list[SubmissionRecord]:
        """As `BatchService.submissions`."""
        return await asyncio.to_thread(self._service.submissions, batch_id)

    async def deletes(self, batch_id: str) -> list[Owed]:
        """As `BatchService.deletes`."""
        return await asyncio.to_thread(self._service.deletes, batch_id)

    async def waits(self, batch_id: str) -> dict[str, Wait]:
        """As `BatchService.waits`."""
        return await asyncio.to_thread(self._service.waits, batch_id)

    async def jobs_without_file(self, batch_id: str) -> list[str]:
        """As `BatchService.jobs_without_file`."""
        return await asyncio.to_thread(self._service.jobs_without_file, batch_id)

    async def prune(
        self,
        older_than: timedelta,
        *,
        delete_batches: bool = False,
        files: bool = False,
        progress: Callable[[PruneReport], object] | None = None,
    ) -> PruneReport:
        """As `BatchService.prune`; `progress` is called in another thread."""
        prune = partial(self._service.prune, older_than, delete_batches=delete_batches, files=files, progress=progress)
        return await asyncio.to_thread(prune)

    async def remove_files(
        self, older_than: timedelta, *, progress: Callable[[PruneReport], object] | None = None
    ) -> int:
        """As `BatchService.remove_files`; `progress` is called in another thread."""
        return await asyncio.to_thread(partial(self._service.remove_files, older_than, progress=progress))

    async def audit(self, *, checksums: bool = False) -> AuditReport:
        """As `BatchService.audit`."""
        return await asyncio.to_thread(lambda: self._service.audit(checksums=checksums))

    async def fetch(
        self, batch_id: str, folder: str | Path, name_of: Callable[[Job], str] | None = None
    ) -> FetchReport:
        """As `BatchService.fetch`."""
        return await asyncio.to_thread(self._service.fetch, batch_id, folder, name_of)

    async def let_go(self, batch_id: str) -> None:
        """As `BatchService.let_go`."""
        await asyncio.to_thread(self._service.let_go, batch_id)

    async def close(self) -> None:
        """As `BatchService.close`."""
        await asyncio.to_thread(self._service.close)
