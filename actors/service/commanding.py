"""BatchCommander: how a command is done, with all that follows from it; for `BatchService`.

A call of the library, a message from RabbitMQ and a request over HTTP are all done here.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from actors.batch.cancellation import DeleteIsOut
from actors.batch.commands import (
    Command,
    CommandKey,
    CommandResult,
    Context,
    Delete,
    Retry,
    answered,
    apply,
    has_videos_made,
    once,
)
from actors.batch.events import EventName
from actors.batch.loading import existing
from actors.batch.views import Batch, CancellationSummary
from actors.errors import SoraBatchError
from actors.service.refetching import MissingFiles
from actors.service.upkeep import FilesLeft, Upkeep, tell_of_files_elsewhere
from storage.urls import server_of

if TYPE_CHECKING:
    from storage.records import JobRecord

logger = logging.getLogger(__name__)
T = TypeVar("T")
_DELETE_LOOK = 0.2


class BatchCommander(MissingFiles, Upkeep):
    """Does commands: each in one transaction, then what follows from it."""

    # --- commands that came as messages

    def obey(
        self,
        command: Command,
        key: CommandKey | None,
        answer: Callable[[CommandResult], str],
        trace: dict[str, str] | None = None,
        expects: Collection[str] | None = None,
    ) -> str:
        """Execute a command and record it in the inbox with its answer, in one transaction.

        Args:
            command: what to do.
            key: which message it came with; None: it has no id, and is not recorded.
            answer: makes the answer from the result; may be called again, so it must have no side effects.
            trace: the trace of the message.
            expects: the versions (`version_of`) that the batch may have.

        Returns:
            The answer; for a repeated command, its first answer.

        Raises:
            OtherBody: the command's id was used before, with another body.
            UnknownBatch, NotFound, Conflict, InvalidRequest: it can't be done; nothing was recorded.
        """
        if not self._ceilings_stand:
            self._set_ceilings()
        context = replace(self._context(command), trace=trace, lasting=True, expects=expects)
        if isinstance(command, Retry):
            with self.retrying():
                command, gone = self._seek_files_for_others(command)
                return self._obeyed(command, key, answer, context, gone)
        return self._obeyed(command, key, answer, context, [])

    def _obeyed(
        self,
        command: Command,
        key: CommandKey | None,
        answer: Callable[[CommandResult], str],
        context: Context,
        gone: list[JobRecord],
    ) -> str:
        """The answer to a command, once it is recorded. `gone`: the jobs of a retry whose file is downloaded again."""
        answers: dict[int, str] = {}
        done: list[CommandResult] = []

        def act() -> str:
            # Not counted as queued by us: releasing it here must not un-queue it for others.
            done[:] = [apply(self._storage, command, context)]
            return answer(done[0])

        def write() -> str:
            if key is None:
                return self._unless_done(command, answers, act)
            done.clear()
            return once(self._storage, key, context.at, act)

        text = self._write_after_deletes(write)
        self._take_up(command, done[0] if done else None)
        if isinstance(command, Retry) and gone and done:
            self._fetch_for_others(command, gone)
        return text

    def _take_up(self, command: Command, result: CommandResult | None) -> None:
        """What follows from a recorded message: a batch that it wants is run here, or by whoever looks first."""
        try:
            self._follow(command, result)
        except FilesLeft as error:  # it is deleted all the same
            logger.warning("the files of a deleted batch are not removed yet", extra=error.as_logged())
        if self.adopts and result is not None and result.newly_wanted:
            self._run([result.batch_id])
        elif self._runtime is not None:
            self._runtime.look()

    def current(self, batch_id: str) -> tuple[Batch, int]:
        """A batch with its jobs, and its sequence number, as the transaction has them in which `answer` is called.

        Raises:
            NotFound: there is no such batch any more.
        """
        batch = existing(self._storage, batch_id)
        return self._view(batch), batch.sequence

    def refuse(self, key: CommandKey, answer: str) -> str:
        """Record that a command was refused. A repeated one gets its first answer, as in `obey`."""
        return self.keep(key, lambda: answer)

    def answered(self, key: CommandKey) -> str | None:
        """The answer to a command that was received before; None: it was not. It saves what `obey` needs beforehand.

        Raises:
            OtherBody: the id was used before, with another body.
        """
        return self._read(lambda: answered(self._storage, key))

    def keep(self, key: CommandKey, answer: Callable[[], str]) -> str:
        """Record the answer to what changes nothing. A repeated one gets its first answer, and `answer` is not called.

        Raises:
            OtherBody: the id was used before, with another body.
        """
        return self._write(lambda: once(self._storage, key, self.now(), answer))

    def _was_deleted(self, batch_id: str) -> bool:
        """Whether a batch of this database was deleted: another database may have its files in the same folder."""
        last = self._read(lambda: self._storage.journal.read(batch_id))[-1:]
        return [event.type for event in last] == [EventName.BATCH_DELETED]

    # --- how a command is done

    def _do(self, command: Command) -> CommandResult:
        if not self._ceilings_stand:
            self._set_ceilings()
        context = self._context(command)
        results: dict[int, CommandResult] = {}
        act = partial(self._apply, command, context)
        result = self._write_after_deletes(lambda: self._unless_done(command, results, act))
        self._follow(command, result)
        return result

    def _unless_done(self, command: Command, results: dict[int, T], act: Callable[[], T]) -> T:
        """In a transaction, perhaps repeated after a COMMIT whose answer was lost. Only a retry would notice."""
        if not isinstance(command, Retry):
            return act()
        epoch = existing(self._storage, command.batch_id).epoch
        if epoch not in results:  # else its COMMIT succeeded, and the answer was lost
            result = act()
            results[existing(self._storage, command.batch_id).epoch] = result
            return result
        return results[epoch]

    def _context(self, command: Command) -> Context:
        provider = self.provider if has_videos_made(command) else ""
        return Context(self.now(), provider, deletes=self._deletes_on_cancel, stores=self.stores.prefixes)

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
            # What a dead owner of the batch left; a living one does so itself.
            self._orphans.clean_soon(result.batch_id)
            if self._runtime is not None:
                self._runtime.look()
        if isinstance(command, Delete):
            self._delete_rest(command, result)

    def _delete_rest(self, command: Delete, result: CommandResult | None) -> None:
        """What the transaction of a deletion has left: where it was done before, that may have been broken off."""
        maintenance, batch_id = self._maintenance(), command.batch_id
        if result is None and not self._was_deleted(batch_id):
            return  # another batch has its id by now
        if result is None or not result.gone:
            try:
                maintenance.finish_deletion(batch_id)
            except OSError as error:
                raise FilesLeft(batch_id, error) from error
        if result is None or result.digests:  # its jobs are gone by now, which used them
            maintenance.drop_references(list(result.digests) if result is not None else None)
        if result is not None and result.elsewhere:
            tell_of_files_elsewhere(batch_id, result.elsewhere)

    def _write_after_deletes(self, run: Callable[[], T]) -> T:
        """As `_write`, once no DELETE of a retried video is in flight: some seconds at most."""
        while True:
            try:
                return self._write(run)
            except DeleteIsOut as out:
                # Withdraw pending ones for good: else another would go out for each that is settled.
                withdraw = partial(self._storage.deletes.withdraw, out.submission_ids)
                time.sleep(min(self._write(withdraw), _DELETE_LOOK))

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
