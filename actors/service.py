"""BatchService: the one way in, for programs, the command line and the commands from RabbitMQ.

Everything it answers comes from storage. Safe to call from several threads. Connects to nothing before it is needed.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import peewee

from actors import operations, wishes
from actors.deletes import DeleteIsOut
from actors.errors import (
    BatchReleased,
    DatabaseUnusable,
    ErrorCode,
    Failure,
    InvalidRequest,
    NotFound,
    ServiceClosed,
    SoraBatchError,
    SoraError,
    StorageError,
)
from actors.events import Event, EventName
from actors.intake import changed_columns, new_batch
from actors.messages import Wait
from actors.model import (
    Batch,
    BatchVideoRequest,
    CancellationSummary,
    batch_status,
    check_metadata,
)
from actors.settings import SIMULATOR, Settings, load_settings
from actors.upkeep import PruneReport, Upkeep
from actors.waiting import RunningBatch, Waiting
from actors.wishes import Granted, Receipt, Wish
from storage.changes import Storage
from storage.database import Database, DatabaseClosed, DatabaseError
from storage.deletes import Owed
from storage.providers import server_of
from storage.recorder import Recorder
from storage.records import BatchRecord, EventRecord, JobRecord, SubmissionRecord
from storage.states import BatchStatus, SubmissionState
from storage.videos import VideoFolder

if TYPE_CHECKING:
    from actors.audit import AuditReport
    from actors.broker.connection import Connection
    from actors.broker.publisher import EventPublisher
    from actors.runtime import Runtime

T = TypeVar("T")
logger = logging.getLogger(__name__)
_ANSWER_SECONDS, _GRACE_SECONDS = 10.0, 1.0
_MOST = 1_000_000
_PUBLISH_SECONDS = 3.0
_DELETE_LOOK = 0.2


class BatchService:
    """Creates, processes, shows, cancels and retries batches.

    Args:
        settings: None: from the environment and `.env`.
        simulate: the built-in simulator makes the videos.

    Raises:
        SettingsError: a setting can't be used.
        DatabaseUnusable: the database can't be opened (a StorageError).
    """

    def __init__(self, settings: Settings | None = None, *, simulate: bool = False) -> None:
        self.settings = settings or load_settings()
        self._simulate = simulate
        self._lock = threading.RLock()
        self._closed, self._process = False, os.getpid()
        try:
            self._database = Database(self.settings.database_url)
            self._database.open()
        except DatabaseError as error:
            raise DatabaseUnusable(str(error)) from error
        self._storage = Storage(self._database)
        self._recorder = Recorder(self._database)
        self._runtime: Runtime | None = None
        self._waiting = Waiting()
        self._queued: set[str] = set()
        """The batches that nobody had wanted before we did: letting one go takes the wish back."""
        try:
            self._connection, self._publisher = self._to_rabbitmq()
        except BaseException:
            self._recorder.close()
            self._database.close()
            raise
        # A program that forgets to close us still lets its batches go in order.
        _forgotten.add(self)

    @property
    def database_place(self) -> str:
        """Which database this is, for a person."""
        return self._database.place

    @property
    def broker(self) -> Connection | None:
        """The connection to RabbitMQ, where AMQP_URL is set."""
        return self._connection

    @property
    def closed(self) -> bool:
        """Whether `close` was called, or the process was forked since: its threads are the other process's."""
        return self._closed or self._process != os.getpid()

    @property
    def key_refused(self) -> bool:
        """Whether the server refused the key, and has never accepted it: then nothing is claimed for others."""
        return self._runtime is not None and self._runtime.key_refused

    def now(self) -> float:
        """The time of whatever is recorded: the database's, in seconds since 1970."""
        return self._database.time()

    @property
    def provider(self) -> str:
        """Where this service has videos made.

        Raises:
            SettingsError: no server is named.
        """
        return SIMULATOR if self._simulate else self.settings.provider

    def create_batch(self, request: BatchVideoRequest | dict[str, Any]) -> Batch:
        """Record a batch; nothing is made before `process_batch`.

        Raises:
            InvalidRequest: the request is wrong; `errors` names each field.
            Conflict: its id exists with another request.
        """
        self._check_open()
        parsed = BatchVideoRequest.parse(request, max_size=self.settings.batch_max_size)
        new = new_batch(parsed, self.settings, self.now())
        if self._write(lambda: operations.create(self._storage, new)):
            return Batch.of(new.batch, new.jobs)
        return self.get_batch_status(new.batch.id)

    def process_batch(self, batch_id: str, concurrency: int | None = None) -> RunningBatch:
        """Have a batch made, here or by whoever owns it already.

        Args:
            batch_id: of a batch in storage.
            concurrency: how many videos at once; None: as requested, or BATCH_CONCURRENCY. Not changed while it runs.

        Returns:
            A Future of the final batch, at once.

        Raises:
            NotFound: there is no such batch.
            Conflict: it was started at another server, which may have made something of it.
            SettingsError: no server is named.
        """
        if concurrency is not None and (isinstance(concurrency, bool) or not 1 <= concurrency <= _MOST):
            raise InvalidRequest(f"concurrency: must be a whole number of 1 or more (got {concurrency!r})")
        provider, _ = self.provider, self._started()
        self._write(lambda: self._want(batch_id, provider, concurrency))
        return self._run([batch_id])[0]

    def get_batch_status(self, batch_id: str) -> Batch:
        """A batch with its jobs, as it is recorded now.

        Raises:
            NotFound: there is no such batch.
        """

        def read() -> Batch | None:
            batch = self._storage.batches.get(batch_id)
            return Batch.of(batch, self._storage.jobs.of_batch(batch_id)) if batch else None

        batch = self._read(read)
        if batch is None:
            raise operations.unknown(self._storage, batch_id)
        return batch

    def is_simulated(self, batch_id: str) -> bool:
        """Whether the built-in simulator makes a batch's videos; False as long as it was not started."""
        batch = self._read(lambda: self._storage.batches.get(batch_id))
        return batch is not None and batch.provider == SIMULATOR

    def seconds_worked(self, batch_id: str) -> float:
        """How long a batch was somebody's, since it was created or retried last: not while it waited for `resume`."""
        batch = self._read(lambda: self._storage.batches.get(batch_id))
        return 0.0 if batch is None else batch.spent

    def cancel_batch(self, batch_id: str, reason: str | None = None) -> CancellationSummary:
        """End a batch, whoever runs it. Cancelling it again gives the same summary.

        Raises:
            NotFound: there is no such batch.
            Conflict: it has ended otherwise.
        """
        deletes = self._deletes_on_cancel
        summary = self._write(lambda: operations.cancel(self._storage, batch_id, reason, self.now(), deletes=deletes))
        self._send_deletes(summary)
        self._tidy(batch_id)
        if self._runtime is not None:
            self._runtime.look()
        return summary

    def list_batches(
        self,
        status: BatchStatus | str | None = None,
        metadata: Mapping[str, Any] | None = None,
        limit: int = 50,
        after: str | None = None,
    ) -> list[Batch]:
        """Batches without their jobs, newest first, from the one behind the id `after` on.

        Raises:
            InvalidRequest: the status is none.
            NotFound: there is no batch `after`.
        """
        wanted = batch_status(status)
        if not 1 <= limit <= _MOST:
            raise InvalidRequest(f"limit: must be from 1 to {_MOST} (got {limit!r})")

        def read() -> list[BatchRecord]:
            batches = self._storage.batches
            if after is not None and batches.get(after) is None:
                raise operations.unknown(self._storage, after)
            return batches.find(status=wanted, metadata=metadata, limit=limit, after=after)

        return [Batch.of(record, []) for record in self._read(read)]

    def retry_batch(
        self,
        batch_id: str,
        job_ids: Sequence[str] | None = None,
        changes: Mapping[str, Mapping[str, Any]] | None = None,
        pay_again: bool = False,  # noqa: FBT001, FBT002  (the published signature)
        move_server: bool = False,  # noqa: FBT001, FBT002
    ) -> RunningBatch:
        """Try what failed or was cancelled again, and have it made.

        What the server still has is attached to, not paid anew. A job whose submission is unknown is left alone
        unless it is named (then the listing is asked again) or `pay_again` gives consent. What would fail again
        unchanged (a blocked prompt, an invalid request) is left alone unless it is named or changed; the Future's
        `left_alone` has the ids. A completed job whose file is gone is fetched again where it is named: unpaid, and
        only the bytes that were recorded; else it stays as it is, and the Future raises a SoraError that says why.

        Args:
            batch_id: of a batch that has ended.
            job_ids: only these jobs.
            changes: for a job id, the fields of its request that change: a new payment.
            pay_again: the consent to pay for what may exist: unknown outcomes, lost videos, and what is named.
            move_server: the batch's server is at this service's address now; with `pay_again`: it is another server.

        Raises:
            NotFound: there is no such batch or job.
            Conflict: the batch has not ended, there is nothing to retry, or it was started at another server.
            InvalidRequest: a change is wrong.
        """
        provider, _ = self.provider, self._started()
        columns, references = changed_columns(changes or {}, self.settings)
        gone = self._without_file(batch_id, set(job_ids or ()) - columns.keys())
        if gone:
            job_ids = [job_id for job_id in job_ids or () if job_id not in {job.id for job in gone}]
            if not job_ids and not columns:
                return self._fetch_again(batch_id, gone, None)
            job_ids = job_ids or None
        done: dict[int, operations.Retried] = {}

        def write() -> operations.Retried:
            batch = operations.existing(self._storage, batch_id)
            if batch.epoch in done:
                return done[batch.epoch]  # its COMMIT had been carried out, and the answer was lost
            retried = operations.retry(
                self._storage, batch_id, provider, job_ids=job_ids, changes=columns, changed_references=references,
                pay_again=pay_again, at=self.now(), moves_server=move_server,
            )  # fmt: skip
            done[operations.existing(self._storage, batch_id).epoch] = retried
            return retried

        retried = self._write_after_deletes(write)
        self._queued.add(batch_id)
        (running,) = self._run([batch_id])
        running.left_alone = retried.left_alone
        return self._fetch_again(batch_id, gone, running) if gone else running

    def jobs_without_file(self, batch_id: str) -> list[str]:
        """The ids of a batch's completed jobs whose file is gone: named in a retry, they are fetched again.

        Raises:
            NotFound: there is no such batch.
        """
        jobs = self.get_batch_status(batch_id).jobs
        return [job.id for job in self._without_file(batch_id, {job.id for job in jobs})]

    def resume_batches(self, batch_ids: Sequence[str] | None = None) -> list[RunningBatch]:
        """Go on with batches that were started and have not ended: a Future of each one's end.

        Args:
            batch_ids: only these; None: all of this server.

        Raises:
            NotFound: there is no such batch.
            Conflict: it was started at another server, which may have made something of it.
        """
        provider, _ = self.provider, self._started()

        def write() -> list[str]:
            chosen = list(batch_ids) if batch_ids is not None else self._storage.batches.unfinished(provider)
            for batch_id in chosen:
                self._want(batch_id, provider, None)
            return chosen

        return self._run(self._write(write))

    def update_metadata(self, batch_id: str, metadata: dict[str, Any]) -> Batch:
        """Replace a batch's metadata, in whatever state it is.

        Raises:
            NotFound: there is no such batch.
            InvalidRequest: it is no plain JSON object, or too large.
        """
        checked = check_metadata(metadata)

        def write() -> None:
            operations.existing(self._storage, batch_id)
            self._storage.batches.update(batch_id, metadata=checked, updated_at=self.now())

        self._write(write)
        return self.get_batch_status(batch_id)

    def delete_batch(self, batch_id: str, *, keep_files: bool = False) -> None:
        """Forget an ended batch, and delete its files in VIDEO_DIR: also those of one whose deletion was broken off.

        Raises:
            NotFound: there is no such batch.
            Conflict: it has not ended.
        """
        folder = VideoFolder(self.settings.video_dir)
        try:
            digests = self._read(lambda: self._storage.jobs.digests_of(batch_id))
            self._upkeep().delete(batch_id, self.now())
            if digests:
                self._upkeep().drop_references(digests)
        except NotFound:
            if keep_files or not (folder.batch(batch_id).exists() and self._was_deleted(batch_id)):
                raise
        if not keep_files:
            folder.remove(batch_id)

    def _was_deleted(self, batch_id: str) -> bool:
        """Whether a batch of this database was deleted: another one's may have its files in the same folder."""
        last = self._read(lambda: self._storage.journal.read(batch_id))[-1:]
        return [event.type for event in last] == [EventName.BATCH_DELETED]

    def history(self, batch_id: str, from_sequence: int = 1) -> list[Event]:
        """What happened to a batch, from a number of its sequence on.

        Raises:
            NotFound: there is no such batch.
        """

        def read() -> list[Event] | None:
            if self._storage.batches.get(batch_id) is None:
                return None
            return [Event.parse(record) for record in self._storage.journal.read(batch_id, from_sequence)]

        events = self._read(read)
        if events is None:
            raise operations.unknown(self._storage, batch_id)
        return events

    def pruned(self, batch_id: str) -> int:
        """The number of the last event of a batch that was pruned: `history` begins behind it. 0: none was.

        Raises:
            NotFound: there is no such batch.
        """

        def read() -> int | None:
            batch, first = self._storage.batches.get(batch_id), self._storage.journal.first_sequence(batch_id)
            return None if batch is None else (batch.sequence if first is None else first - 1)

        last = self._read(read)
        if last is None:
            raise operations.unknown(self._storage, batch_id)
        return last

    def submissions(self, batch_id: str) -> list[SubmissionRecord]:
        """Every try at paying for a video of a batch, in order, and what became of it; also of a deleted batch.

        A `note` of one that is `bound` or `deleted` is the server's answer to our DELETE.
        """
        return self._read(lambda: self._storage.submissions.of_batch(batch_id))

    def deletes(self, batch_id: str) -> list[Owed]:
        """The DELETEs of a batch's cancelled videos: what is owed to the server, and what came of it."""
        return self._read(lambda: self._storage.deletes.of_batch(batch_id))

    def finish_deletes(self) -> None:
        """Send for 2 s more what is owed, and wait for the answers. For a program that ends: no other begins here."""
        if self._runtime is not None:
            self._runtime.finish_deletes()

    def grant(self, wish: Wish, receipt: Receipt, answer: Callable[[Granted], str]) -> str:
        """Do what a command wishes and enter it in the inbox with its answer, in one transaction.

        Args:
            wish: what to do.
            receipt: which command wishes it.
            answer: makes the answer from what was done; may be called again, so it has no effects.

        Returns:
            The answer; of a command that was taken before, the one that it had then.

        Raises:
            OtherBody: the command's id was used before, with another body.
            UnknownBatch, NotFound, Conflict, InvalidRequest: it can't be done; nothing was entered.
        """
        provider, at, deletes = self.provider, self.now(), self._deletes_on_cancel

        def write() -> tuple[str, Granted | None]:
            done: list[Granted] = []

            def act() -> str:
                done.append(wishes.grant(self._storage, wish, provider, at, deletes=deletes))
                return answer(done[0])

            return wishes.once(self._storage, receipt, at, act), done[0] if done else None

        text, granted = self._write_after_deletes(write)
        if granted is not None and granted.summary is not None:
            self._send_deletes(granted.summary)
            self._tidy(granted.batch_id)
        if self._runtime is not None:
            self._runtime.look()
        return text

    def refuse(self, receipt: Receipt, answer: str) -> str:
        """Enter that a command was refused. Taken before, it is answered as it was then, as `grant` says."""
        return self._write(lambda: wishes.once(self._storage, receipt, self.now(), lambda: answer))

    def snapshot(self, batch_id: str) -> tuple[Batch, int]:
        """A batch with its jobs, and the number of the last event that they show.

        Raises:
            NotFound: there is no such batch.
        """

        def read() -> tuple[Batch, int]:
            batch = operations.existing(self._storage, batch_id)  # locked: nothing happens between the two reads
            return Batch.of(batch, self._storage.jobs.of_batch(batch_id)), batch.sequence

        return self._write(read)

    def recorded(self, batch_id: str, from_sequence: int = 1, limit: int | None = None) -> list[EventRecord]:
        """A batch's events as they were recorded: the bytes that are published."""
        return self._read(lambda: self._storage.journal.read(batch_id, from_sequence, limit))

    def forget_commands(self, older_than: timedelta) -> int:
        """Remove what the inbox has kept for longer: such a command would be new again. Returns how many went."""
        return self._upkeep().forget_commands(self.now() - older_than.total_seconds())

    def serve(self, *, publish_backlog: bool = False) -> Future[None]:
        """From now on make every batch that is wanted of this provider, whoever asked for it, and publish all events.

        Args:
            publish_backlog: also those from before AMQP_URL was first set.

        Returns:
            Done when that has an end: the service was closed, or something of it died.

        Raises:
            SettingsError: no server is named, or videos can't be written.
        """
        done = self._started().claim_all()
        if self._publisher is not None:
            if publish_backlog:
                self._write(lambda: self._storage.publications.begin(backlog=True))
            self._publisher.start()
        return done

    def waits(self, batch_id: str) -> dict[str, Wait]:
        """Why videos of a batch that runs here are waiting: by job id, or "" for the whole batch."""
        self._check_open()
        return self._runtime.waits(batch_id) if self._runtime is not None else {}

    def prune(
        self,
        older_than: timedelta,
        *,
        delete_batches: bool = False,
        progress: Callable[[PruneReport], object] | None = None,
    ) -> PruneReport:
        """Remove the journals of batches that ended long ago, and with `delete_batches` those batches too.

        In many small transactions: others write in between, and what was broken off is gone on with by the next call.
        `progress` is told how much has gone so far.
        """
        at = self.now()
        before = at - older_than.total_seconds()
        return self._upkeep(progress).prune(before, at, delete_batches=delete_batches)

    def audit(self, *, checksums: bool = False) -> AuditReport:
        """Compare what is recorded with the server's listing and with the files in VIDEO_DIR. Changes nothing.

        `checksums`: read every file whole, too.
        """
        self._check_open()
        from actors.audit import audit

        return audit(self.settings, self._storage, self._read, checksums=checksums)

    def let_go(self, batch_id: str) -> None:
        """Stop starting videos of a batch here, and take back that we want it; nothing is cancelled.

        What others had asked for before stays wanted. Waits for POSTs in flight, so that their videos are found again.
        """
        self._check_open()
        if self._runtime is None:
            return
        (future,) = self._waiting.add([batch_id])
        self._runtime.release(batch_id, wanted=batch_id not in self._queued)
        try:
            future.result(timeout=_ANSWER_SECONDS)
        except BatchReleased:
            return

    def close(self) -> None:
        """Let go of running batches (their Futures raise `BatchReleased`) and end the threads. Twice is once.

        What other threads have asked for ends with its answer, or with `ServiceClosed`; a write that takes longer than
        5 s is broken off and rolled back. Does nothing in a process that was forked since.
        """
        if self._process != os.getpid():
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
        _forgotten.discard(self)
        with ExitStack() as last_first:  # each of them, whatever becomes of the others
            last_first.callback(self._close_database)
            last_first.callback(self._waiting.close, BatchReleased)
            last_first.callback(self._recorder.close)
            if self._connection is not None and self._publisher is not None:
                last_first.callback(self._connection.close)
                last_first.callback(self._publisher.close, _PUBLISH_SECONDS)
            if self._runtime is not None:
                last_first.callback(self._runtime.close)

    def _close_database(self) -> None:
        if not self._database.close():
            logger.warning(
                "closed, but another thread still uses the database; its connection ends when it is done",
                extra={"action": "close", "database": self._database.place},
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- how

    def _to_rabbitmq(self) -> tuple[Connection | None, EventPublisher | None]:
        """What publishes the events, where AMQP_URL is set. It connects with the first event."""
        if self.settings.amqp_url is None:
            return None, None
        # pika: who needs no broker is quick without it.
        from actors.broker.connection import Connection
        from actors.broker.publisher import EventPublisher

        connection = Connection(self.settings.amqp_url.get_secret_value(), self.settings.amqp_queue_type)
        if not self._read(self._storage.publications.begun):
            self._write(lambda: self._storage.publications.begin(backlog=False))
        return connection, EventPublisher(connection, self._storage, self._recorder)

    def _want(self, batch_id: str, provider: str, concurrency: int | None) -> None:
        """In a transaction, perhaps once more after a COMMIT whose answer was lost: the first answer counts."""
        if operations.want(self._storage, batch_id, provider, concurrency):
            self._queued.add(batch_id)

    def _upkeep(self, progress: Callable[[PruneReport], object] | None = None) -> Upkeep:
        return Upkeep(self._storage, self._read, self._write, progress)

    def _run(self, batch_ids: Sequence[str]) -> list[RunningBatch]:
        if not batch_ids:
            return []
        running, runtime = self._waiting.add(batch_ids), self._started()
        try:
            runtime.process(tuple(batch_ids))
        except SoraBatchError:
            self._waiting.drop(running)
            self._check_open()  # its dispatcher may have ended in order
            raise
        return running

    def _started(self) -> Runtime:
        with self._lock:
            self._check_open()
            if self._runtime is None:
                # aiohttp and the actors: a program that only asks for a status is quick without them.
                from actors.runtime import Runtime

                self._runtime = Runtime(
                    self.settings, self._storage, self._recorder, provider=self.provider, simulate=self._simulate,
                    ended=self._ended, released=self._released,
                )  # fmt: skip
            return self._runtime

    def _ended(self, batch_id: str) -> None:
        """On the loop: a batch has ended; read it beside the loop and answer who waits."""
        self._queued.discard(batch_id)
        futures = self._waiting.take(batch_id)

        def read() -> Batch:
            batch = self._storage.batches.get(batch_id)
            if batch is None:
                raise operations.unknown(self._storage, batch_id)
            return Batch.of(batch, self._storage.jobs.of_batch(batch_id))

        if futures:
            self._recorder.read(read).add_done_callback(lambda done: self._answer(futures, done))

    def _answer(self, futures: Sequence[RunningBatch], read: Future[Batch]) -> None:
        error = read.exception()
        outcome = ServiceClosed() if isinstance(error, DatabaseClosed) else error
        self._waiting.answer(futures, outcome or read.result())

    def _released(self, batch_id: str, error: str | None) -> None:
        self._queued.discard(batch_id)
        why = SoraBatchError(f"batch {batch_id}: {error}") if error else BatchReleased(batch_id)
        self._waiting.answer(self._waiting.take(batch_id), why)

    def _tidy(self, batch_id: str) -> None:
        """In the background, remove what a dead owner of a cancelled batch has left; one that lives does it itself."""
        operations.tidy_soon(self._recorder, self._storage, VideoFolder(self.settings.video_dir), batch_id)

    @property
    def _deletes_on_cancel(self) -> bool:
        return self.settings.sora_delete_on_cancel != "never"

    def _send_deletes(self, summary: CancellationSummary) -> None:
        """Have the DELETEs sent that a cancellation owes at this service's server, if it has one."""
        deletable = any(charge.remote_id for charge in summary.may_be_charged)
        if not (deletable and self._deletes_on_cancel and (self._simulate or self.settings.openai_base_url)):
            return
        server, batch_id = server_of(self.provider), summary.batch_id
        if not any(owed.submission.server == server for owed in self.deletes(batch_id)):
            return
        try:
            self._started().send_deletes()
        except SoraBatchError as error:  # the batch is cancelled all the same
            logger.warning(
                "the server could not be asked to stop; the next process that uses it asks",
                extra={"action": "delete_remote", "batch_id": batch_id, "error": str(error)},
            )

    def _check_open(self) -> None:
        if self._process != os.getpid():
            raise ServiceClosed("this service was made before a fork; make one in each process")
        if self._closed:
            raise ServiceClosed

    def _write_after_deletes(self, run: Callable[[], T]) -> T:
        """As `_write`, once no DELETE is on its way under what is retried: some seconds at the most."""
        while True:
            try:
                return self._write(run)
            except DeleteIsOut as out:
                # What is only owed is taken back for good: else one would go out for each that comes to its end.
                withdraw = partial(self._storage.deletes.withdraw, out.submission_ids)
                time.sleep(min(self._write(withdraw), _DELETE_LOOK))

    def _without_file(self, batch_id: str, job_ids: Collection[str]) -> list[JobRecord]:
        """Those of these jobs that are completed and whose file is not where it was recorded."""
        if not job_ids:
            return []
        jobs = self._read(lambda: self._storage.jobs.by_id(job_ids)).values()
        completed = [job for job in jobs if job.batch_id == batch_id and job.video is not None]
        return [job for job in completed if job.video and not Path(job.video["path"]).exists()]

    def _fetch_again(self, batch_id: str, jobs: list[JobRecord], running: RunningBatch | None) -> RunningBatch:
        """Have files put back; the answer comes when they are there, and when what else runs has ended."""
        made = {entry.job_id: entry for entry in self.submissions(batch_id) if entry.state is SubmissionState.BOUND}
        answer, runtime, server = RunningBatch(batch_id), self._started(), server_of(self.provider)
        answer.left_alone = running.left_alone if running else ()
        problems: dict[str, str] = {}
        fetching: dict[str, Future[str | None]] = {}
        for job in jobs:
            entry = made.get(job.id)
            if entry is None or entry.remote_id is None:
                problems[job.id] = "no video of it is recorded at a server"
            elif entry.server != server:
                problems[job.id] = f"its video is at {entry.server}, and this is {server}"
            else:
                fetching[job.id] = runtime.fetch_again(job, entry)

        def finish() -> Batch:
            problems.update({job_id: why for job_id, future in fetching.items() if (why := future.result())})
            batch = running.result() if running else self.get_batch_status(batch_id)
            if problems:
                whys = "; ".join(f"{job_id}: {why}" for job_id, why in sorted(problems.items()))
                text = f"a completed video's file could not be fetched again, and nothing was changed: {whys}"
                raise SoraError(Failure(ErrorCode.DOWNLOAD_FAILED, text))
            return batch

        self._waiting.answer_when(answer, finish)
        return answer

    def _write(self, run: Callable[[], T]) -> T:
        self._check_open()
        answer = self._recorder.write(run, patience=_ANSWER_SECONDS)
        try:
            return answer.result(timeout=_ANSWER_SECONDS + _GRACE_SECONDS)
        except TimeoutError:
            undone, away = answer.cancel(), self._recorder.away
            if undone:
                self._check_open()
            why = away.reason if away else f"the database {self._database.place} does not answer"
            raise StorageError(
                f"{why} (it was tried for {_ANSWER_SECONDS:g} s); "
                + ("nothing was changed" if undone else "look whether it was done before you try again")
            ) from None
        except (DatabaseError, peewee.DatabaseError) as error:
            self._check_open()
            raise StorageError(
                str(error if isinstance(error, DatabaseError) else self._database.explained(error))
            ) from error

    def _read(self, run: Callable[[], T]) -> T:
        self._check_open()
        try:
            return self._database.read(run)
        except DatabaseError as error:
            self._check_open()
            raise StorageError(str(error)) from error


_shared_lock = threading.Lock()
_shared: BatchService | None = None


def get_batch_service() -> BatchService:
    """The one service of this process, with the settings of its environment; a new one if it was closed."""
    global _shared  # noqa: PLW0603  (what is asked for is the one of the process)
    with _shared_lock:
        if _shared is None or _shared.closed:
            _shared = BatchService()
        return _shared


# Weak: a service that nobody holds any more has no batches to let go.
_forgotten: weakref.WeakSet[BatchService] = weakref.WeakSet()
_inherited: list[BatchService] = []
"""Another process's: what they hold must not be ended here, not even by the garbage collector."""


@atexit.register
def _close_forgotten() -> None:
    for service in list(_forgotten):
        service.close()


def _after_fork_in_child() -> None:
    global _shared, _shared_lock
    _inherited.extend(_forgotten)
    _forgotten.clear()
    _shared, _shared_lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
