"""BatchService: the entry point for programs, the command line and the commands from RabbitMQ.

All its answers come from storage. Thread-safe. Connects to nothing before it is needed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from actors.batch.cancellation import DeleteIsOut
from actors.batch.cleanup import Maintenance, PruneReport, delete_orphan_files_soon
from actors.batch.commands import (
    Cancel,
    Command,
    CommandKey,
    CommandResult,
    Context,
    Create,
    Delete,
    Process,
    Retry,
    Update,
    apply,
    has_videos_made,
    once,
)
from actors.batch.events import EventName
from actors.batch.factory import changed_columns, new_batch
from actors.batch.requests import BatchVideoRequest, check_metadata
from actors.batch.start import existing
from actors.batch.views import Batch, CancellationSummary
from actors.errors import (
    InvalidRequest,
    NotFound,
    SoraBatchError,
)
from actors.reading import MOST
from actors.running import BatchRunner
from actors.settings import Settings, load_settings
from actors.shared import shared_service
from actors.waiting import RunningBatch
from storage.servers import server_of
from storage.videos import VideoFolder

if TYPE_CHECKING:
    from actors.audit import AuditReport

T = TypeVar("T")
logger = logging.getLogger(__name__)
_DELETE_LOOK = 0.2


class BatchService(BatchRunner):
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

        Raises:
            NotFound: there is no such batch or job.
            Conflict: the batch has not ended, there is nothing to retry, or it was started on another server.
            InvalidRequest: a change is invalid.
        """
        self._started()
        columns, references = changed_columns(changes or {}, self.settings)
        gone = self._without_file(batch_id, set(job_ids or ()) - columns.keys())
        if gone:
            job_ids = [job_id for job_id in job_ids or () if job_id not in {job.id for job in gone}]
            if not job_ids and not columns:
                return self._fetch_again(batch_id, gone, None)
            job_ids = job_ids or None
        named = None if job_ids is None else tuple(job_ids)
        retried = self._do(Retry(batch_id, named, columns, references, pay_again, move_server))
        (running,) = self._run([batch_id])
        running.left_alone = retried.left_alone
        return self._fetch_again(batch_id, gone, running) if gone else running

    def resume_batches(self, batch_ids: Sequence[str] | None = None) -> list[RunningBatch]:
        """Resume batches that were started and have not ended: a Future of each one's end.

        Args:
            batch_ids: only these; None: all of this server.

        Raises:
            NotFound: there is no such batch.
            Conflict: it was started on another server, which may have made videos of it.
        """
        provider, _ = self.provider, self._started()
        context = self._context(provider)

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

    def delete_batch(self, batch_id: str, *, keep_files: bool = False) -> None:
        """Delete an ended batch and its files in VIDEO_DIR, also after an interrupted deletion.

        Raises:
            NotFound: there is no such batch.
            Conflict: it has not ended.
        """
        try:
            self._do(Delete(batch_id, keep_files))
        except NotFound:
            folder = self._folder()
            if keep_files or not (folder.batch(batch_id).exists() and self._was_deleted(batch_id)):
                raise
            folder.remove_batch(batch_id)

    def _was_deleted(self, batch_id: str) -> bool:
        """Whether a batch of this database was deleted: another database may have its files in the same folder."""
        last = self._read(lambda: self._storage.journal.read(batch_id))[-1:]
        return [event.type for event in last] == [EventName.BATCH_DELETED]

    # --- commands that came as messages

    def obey(
        self,
        command: Command,
        key: CommandKey,
        answer: Callable[[CommandResult], str],
        trace: dict[str, str] | None = None,
    ) -> str:
        """Execute a command and record it in the inbox with its answer, in one transaction.

        Args:
            command: what to do.
            key: which message it came with.
            answer: makes the answer from the result; may be called again, so it must have no side effects.
            trace: the trace of the message.

        Returns:
            The answer; for a repeated command, its first answer.

        Raises:
            OtherBody: the command's id was used before, with another body.
            UnknownBatch, NotFound, Conflict, InvalidRequest: it can't be done; nothing was recorded.
        """
        context = replace(self._context(self.provider), trace=trace)
        done: list[CommandResult] = []

        def act() -> str:
            # Not counted as queued by us: releasing it here must not un-queue it for others.
            done[:] = [apply(self._storage, command, context)]
            return answer(done[0])

        def write() -> str:
            done.clear()
            return once(self._storage, key, context.at, act)

        text = self._write_after_deletes(write)
        self._follow(command, done[0] if done else None)
        if self._runtime is not None:
            self._runtime.look()
        return text

    def refuse(self, key: CommandKey, answer: str) -> str:
        """Record that a command was refused. A repeated one gets its first answer, as in `obey`."""
        return self._write(lambda: once(self._storage, key, self.now(), lambda: answer))

    def forget_commands(self, older_than: timedelta) -> int:
        """Remove older commands from the inbox: repeated, they would be new. Returns how many were removed."""
        return self._maintenance().forget_commands(self.now() - older_than.total_seconds())

    # --- what runs

    def prune(
        self,
        older_than: timedelta,
        *,
        delete_batches: bool = False,
        progress: Callable[[PruneReport], object] | None = None,
    ) -> PruneReport:
        """Remove the journals of batches that ended long ago, and with `delete_batches` those batches too.

        Uses many small transactions: others can write in between, and after an interrupt the next call continues.
        Calls `progress` with what was removed so far.
        """
        at = self.now()
        before = at - older_than.total_seconds()
        return self._maintenance(progress).prune(before, at, delete_batches=delete_batches)

    def audit(self, *, checksums: bool = False) -> AuditReport:
        """Compare the records with the server's listing and the files in VIDEO_DIR. Changes nothing.

        `checksums`: also read every file and check its checksum.
        """
        self._check_open()
        from actors.audit import audit

        return audit(self.settings, self._storage, self._read, checksums=checksums)

    # --- how a command is done

    def _do(self, command: Command) -> CommandResult:
        context = self._context(self.provider if has_videos_made(command) else "")
        results: dict[int, CommandResult] = {}

        def write() -> CommandResult:
            if not isinstance(command, Retry):
                return self._apply(command, context)
            epoch = existing(self._storage, command.batch_id).epoch
            if epoch not in results:  # else its COMMIT succeeded, and the answer was lost
                result = self._apply(command, context)
                results[existing(self._storage, command.batch_id).epoch] = result
                return result
            return results[epoch]

        result = self._write_after_deletes(write)
        self._follow(command, result)
        return result

    def _context(self, provider: str) -> Context:
        return Context(self.now(), provider, deletes=self._deletes_on_cancel)

    def _apply(self, command: Command, context: Context) -> CommandResult:
        """In a transaction, perhaps repeated after a COMMIT whose answer was lost: the first answer counts."""
        result = apply(self._storage, command, context)
        if result.newly_wanted:
            self._queued.add(result.batch_id)
        return result

    def _follow(self, command: Command, result: CommandResult | None) -> None:
        """The after-effects of a recorded command. None: by the inbox, it was executed before."""
        if result is not None and result.summary is not None:
            self._send_deletes(result.summary)
            self._delete_orphan_files(result.batch_id)
            if self._runtime is not None:
                self._runtime.look()
        if isinstance(command, Delete):
            self._delete_rest(command, result)

    def _delete_rest(self, command: Delete, result: CommandResult | None) -> None:
        """What the transaction of a deletion has left: where it was done before, that may have been broken off."""
        maintenance, batch_id = self._maintenance(), command.batch_id
        if result is None and not self._was_deleted(batch_id):
            return  # another batch has its id by now
        if (result is None or not result.gone) and self._read(lambda: self._storage.batches.hidden(batch_id)):
            maintenance.delete(batch_id, self.now())
        if result is None or result.digests:
            maintenance.drop_references(list(result.digests) if result is not None else None)
        if not command.keep_files:
            self._folder().remove_batch(batch_id)

    def _write_after_deletes(self, run: Callable[[], T]) -> T:
        """As `_write`, once no DELETE of a retried video is in flight: some seconds at most."""
        while True:
            try:
                return self._write(run)
            except DeleteIsOut as out:
                # Withdraw pending ones for good: else another would go out for each that is settled.
                withdraw = partial(self._storage.deletes.withdraw, out.submission_ids)
                time.sleep(min(self._write(withdraw), _DELETE_LOOK))

    def _folder(self) -> VideoFolder:
        return VideoFolder(self.settings.video_dir)

    def _delete_orphan_files(self, batch_id: str) -> None:
        """Remove in the background what a dead owner of a cancelled batch left; a living one does so itself."""
        delete_orphan_files_soon(self._recorder, self._storage, self._folder(), batch_id)

    @property
    def _deletes_on_cancel(self) -> bool:
        return self.settings.sora_delete_on_cancel != "never"

    def _send_deletes(self, summary: CancellationSummary) -> None:
        """Send the DELETEs of a cancellation that are pending at this service's server, if it has one."""
        deletable = any(charge.remote_id for charge in summary.may_be_charged)
        if not (deletable and self._deletes_on_cancel and (self._simulate or self.settings.openai_base_url)):
            return
        server, batch_id = server_of(self.provider), summary.batch_id
        if not any(owed.submission.server == server for owed in self.deletes(batch_id)):
            return
        try:
            self._started().send_deletes()
        except SoraBatchError as error:  # the batch is cancelled anyway
            logger.warning(
                "could not send the DELETEs; the next process that uses this server sends them",
                extra={"action": "delete_remote", "batch_id": batch_id, "error": str(error)},
            )

    def _maintenance(self, progress: Callable[[PruneReport], object] | None = None) -> Maintenance:
        return Maintenance(self._storage, self._read, self._write, progress)


def get_batch_service() -> BatchService:
    """The shared service of this process, with the settings of its environment; a new one if it was closed."""
    return shared_service(BatchService)
