"""BatchService: the entry point for programs, the command line, and commands from RabbitMQ and over HTTP.

All its answers come from storage. Thread-safe. Connects to nothing before it is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from actors.batch.changes import changed_columns
from actors.batch.commands import Cancel, Context, Create, Delete, Process, Retry, Update
from actors.batch.factory import new_batch
from actors.batch.requests import BatchVideoRequest, check_budget, check_metadata
from actors.batch.views import Batch, CancellationSummary
from actors.errors import InvalidRequest, NotFound
from actors.service.commanding import BatchCommander
from actors.service.opening import shared_service
from actors.service.reading import MOST
from actors.service.waiting import RunningBatch
from actors.settings import Settings, load_settings
from actors.stores import told_by_the_store

if TYPE_CHECKING:
    from actors.audit_report import AuditReport


class BatchService(BatchCommander):
    """Creates, processes, shows, cancels and retries batches.

    Args:
        settings: None: from the environment and `.env`.
        simulate: the built-in simulator makes the videos.

    Raises:
        SettingsError: a setting can't be used.
        DatabaseUnusable: the database can't be opened (a StorageError).
    """

    def __init__(self, settings: Settings | None = None, *, simulate: bool = False) -> None:
        super().__init__(settings or load_settings(), simulate=simulate)

    # --- the verbs

    def create_batch(self, request: BatchVideoRequest | dict[str, Any]) -> Batch:
        """Record a batch; `process_batch` starts it.

        Raises:
            InvalidRequest: the request is invalid; `errors` names each field.
            Conflict: its id exists with another request.
        """
        self._check_open()
        parsed = BatchVideoRequest.parse(request, max_size=self.settings.batch_max_size)
        new = new_batch(parsed, self.settings, self.now())
        if self._do(Create(new)).created:
            return Batch.of(new.batch, new.jobs)
        return self.get_batch_status(new.batch.id)

    def process_batch(self, batch_id: str, concurrency: int | None = None) -> RunningBatch:
        """Process a batch, here or in the process that already owns it.

        Args:
            batch_id: of a batch in storage.
            concurrency: videos at a time; None: as requested, or BATCH_CONCURRENCY. Can't change while it runs.

        Returns:
            A Future of the final batch, immediately.

        Raises:
            NotFound: there is no such batch.
            Conflict: it was started on another server, which may have made videos of it.
            SettingsError: no server is set.
        """
        if concurrency is not None and (isinstance(concurrency, bool) or not 1 <= concurrency <= MOST):
            raise InvalidRequest(f"concurrency: must be a whole number of 1 or more (got {concurrency!r})")
        self._started()
        self._do(Process(batch_id, concurrency))
        return self._run([batch_id])[0]

    def cancel_batch(self, batch_id: str, reason: str | None = None) -> CancellationSummary:
        """End a batch, whoever runs it. Cancelling it again gives the same summary.

        Raises:
            NotFound: there is no such batch.
            Conflict: it has ended in another way.
        """
        summary = self._do(Cancel(batch_id, reason)).summary
        assert summary is not None
        return summary

    def retry_batch(
        self,
        batch_id: str,
        job_ids: Sequence[str] | None = None,
        changes: Mapping[str, Mapping[str, Any]] | None = None,
        pay_again: bool = False,  # noqa: FBT001, FBT002  (the published signature)
        move_server: bool = False,  # noqa: FBT001, FBT002
        budget: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    ) -> RunningBatch:
        """Retry what failed or was cancelled.

        Videos the server still has are re-attached, not paid for again. A job whose submission is unknown is skipped
        unless it is named (then the listing is read again) or `pay_again` gives consent. What would fail again
        unchanged (a blocked prompt, an invalid request) is skipped unless it is named or changed; the Future's
        `left_alone` has the ids. A completed job whose file is missing is downloaded again if it is named: free of
        charge, and only the recorded bytes; else it stays as it is, and the Future raises a SoraError that says why.

        Args:
            batch_id: of a batch that has ended.
            job_ids: only these jobs.
            changes: by job id, the changed fields of its request: a new payment.
            pay_again: consent to pay for what may exist: unknown outcomes, lost videos, and what is named.
            move_server: the batch's server has moved to this service's address; with `pay_again`: it is another server.
            budget: the most that the batch may use from now on, in all: `{"amount": 40, "unit": "USD"}` or a list of
                these, one per unit; an empty list removes it.

        Raises:
            NotFound: there is no such batch or job.
            Conflict: the batch has not ended, there is nothing to retry, or it was started on another server.
            InvalidRequest: a change is invalid.
        """
        self._started()
        with self.retrying():
            columns, references = changed_columns(changes or {}, self.settings)
            most = None if budget is None else check_budget(budget)
            named = None if job_ids is None else tuple(job_ids)
            command, gone = self._seek_files(Retry(batch_id, named, columns, references, pay_again, move_server, most))
            retried, running = self._do(command), None
            if command.retries:
                (running,) = self._run([batch_id])
                running.left_alone = retried.left_alone
            return running if running and not gone else self._fetch_again(batch_id, gone, running)

    def resume_batches(self, batch_ids: Sequence[str] | None = None) -> list[RunningBatch]:
        """Resume batches that were started and have not ended: a Future of each one's end.

        Args:
            batch_ids: only these; None: all of this server.

        Raises:
            NotFound: there is no such batch.
            Conflict: it was started on another server, which may have made videos of it.
        """
        provider, _ = self.provider, self._started()
        context = Context(self.now(), provider, deletes=self._deletes_on_cancel)

        def write() -> list[str]:
            chosen = list(batch_ids) if batch_ids is not None else self._storage.batches.unfinished(provider)
            for batch_id in chosen:
                self._apply(Process(batch_id), context)
            return chosen

        return self._run(self._write(write))

    def update_metadata(self, batch_id: str, metadata: dict[str, Any]) -> Batch:
        """Replace a batch's metadata, in any state.

        Raises:
            NotFound: there is no such batch.
            InvalidRequest: it is not a plain JSON object, or too large.
        """
        self._do(Update(batch_id, check_metadata(metadata)))
        return self.get_batch_status(batch_id)

    def update_budget(self, batch_id: str, budget: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> Batch:
        """Replace what a batch may use at most, in any state: one `{amount, unit}` or a list; an empty list removes it.

        A batch that has stopped at its budget goes on with `retry_batch`.

        Raises:
            NotFound: there is no such batch.
            InvalidRequest: an entry is no amount with a unit.
        """
        self._do(Update(batch_id, budget=check_budget(budget)))
        return self.get_batch_status(batch_id)

    def delete_batch(self, batch_id: str, *, keep_files: bool = False) -> None:
        """Delete an ended batch and its files in VIDEO_DIR, also after an interrupted deletion.

        Raises:
            NotFound: there is no such batch.
            Conflict: it has not ended.
        """
        try:
            self._do(Delete(batch_id, keep_files))
        except NotFound:
            if keep_files or not self._was_deleted(batch_id):
                raise
            with told_by_the_store():
                if not self.stores.holds(batch_id):
                    raise
                self.stores.remove_batch(batch_id)

    # --- what runs

    def audit(self, *, checksums: bool = False) -> AuditReport:
        """Compare the records with the server's listing and the files in the store. Changes nothing.

        `checksums`: also read every file and check its checksum.

        Raises:
            StorageError: the database or the store can't be asked.
        """
        self._check_open()
        from actors.audit import audit

        with told_by_the_store():
            return audit(self.settings, self._storage, self._read, checksums=checksums)


def get_batch_service() -> BatchService:
    """The shared service of this process, with the settings of its environment; a new one if it was closed."""
    return shared_service(BatchService)
