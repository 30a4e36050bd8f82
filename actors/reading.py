"""BatchReader: all reads from the database, for `BatchService`."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import peewee

from actors.batch.events import Event
from actors.batch.requests import BatchVideoRequest
from actors.batch.start import existing, unknown_batch
from actors.batch.views import Batch, Job, batch_status, status_named, version_of, with_urls
from actors.errors import DatabaseUnusable, InvalidRequest, ServiceClosed, StorageError
from actors.needs import database_obstacle
from actors.settings import Settings
from actors.settings.server import SIMULATOR
from actors.stores import stores_of, told_by_the_store
from storage.charges import BatchCosts
from storage.database import Database, DatabaseError
from storage.deletes import Owed
from storage.recorder import Recorder
from storage.records import BatchRecord, EventRecord, JobRecord, SubmissionRecord
from storage.states import BatchStatus, JobStatus
from storage.storage import Storage
from storage.stores import Stores, uri_of
from storage.unfinished import Unfinished, count_unfinished

if TYPE_CHECKING:
    from actors.batch.quotes import Quote
    from actors.fetching.fetch import FetchReport

T = TypeVar("T")
MOST = 1_000_000
ANSWER_SECONDS, _GRACE_SECONDS = 10.0, 1.0


class BatchReader:
    """Owns the database and the recorder; reads for any number of threads."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._closed, self._process = False, os.getpid()
        try:
            self._database = Database(settings.database_url)
            self._database.open()
        except DatabaseError as error:
            raise DatabaseUnusable(str(error)) from error
        self._storage = Storage(self._database)
        self._recorder = Recorder(self._database)

    @cached_property
    def stores(self) -> Stores:
        """Where files are put, and whence they are had."""
        return stores_of(self.settings)

    @property
    def database_place(self) -> str:
        """Which database this is, for a person."""
        return self._database.place

    @property
    def closed(self) -> bool:
        """Whether `close` was called, or the process was forked since: the threads are in the other process."""
        return self._closed or self._process != os.getpid()

    @property
    def write_obstacle(self) -> str | None:
        """Why the database takes no writes just now; None: it does, as far as anybody has tried."""
        away = self._recorder.away
        return None if away is None else away.reason

    def ping(self) -> None:
        """Ask the database for nothing.

        Raises:
            StorageError: it can't be asked, or its file is gone or not writable.
        """
        if (obstacle := database_obstacle(self._database)) is not None:
            raise StorageError(obstacle)
        self._read(lambda: self._database.execute("SELECT 1").fetchone())

    def unfinished(self) -> Unfinished:
        """What is recorded and has not ended, counted.

        Raises:
            StorageError: the database can't be asked.
        """
        return self._read(lambda: count_unfinished(self._database))

    def now(self) -> float:
        """The database's time, used for all records, in seconds since 1970."""
        return self._database.time()

    def quote(self, request: BatchVideoRequest | dict[str, Any]) -> Quote:
        """What a request would cost at most, by the prices of SORA_PRICES. Records and sends nothing.

        Raises:
            InvalidRequest: the request is invalid; `errors` names each field.
            SettingsError: the file of prices can't be used.
        """
        self._check_open()
        from actors.batch.quotes import quote

        return quote(request, self.settings)

    def get_batch_status(self, batch_id: str) -> Batch:
        """A batch with its jobs, as it is recorded now.

        Raises:
            NotFound: there is no such batch.
        """
        return self._read(lambda: self._batch(batch_id))

    def _batch(self, batch_id: str) -> Batch:
        batch = self._storage.batches.get(batch_id)
        if batch is None:
            raise unknown_batch(self._storage, batch_id)
        return self._view(batch)

    def _view(self, batch: BatchRecord) -> Batch:
        return Batch.of(batch, self._jobs(batch.id), self._storage.costs.of_batch(batch))

    def _jobs(self, batch_id: str) -> list[JobRecord]:
        return with_urls(self._storage.jobs.of_batch(batch_id), self.settings.web_public_url)

    def versioned(self, batch_id: str) -> tuple[Batch, int]:
        """A batch with its jobs, and the number of the last event that they reflect at least.

        Raises:
            NotFound: there is no such batch.
        """

        def read() -> tuple[Batch, int]:
            sequence = self._sequence(batch_id)
            while True:  # what changes in between is read again: nobody sees half of it under the wrong number
                batch, before = self._batch(batch_id), sequence
                sequence = self._sequence(batch_id)
                if sequence == before:
                    return batch, sequence

        return self._read(read)

    def sequence(self, batch_id: str) -> int:
        """The number of a batch's last event.

        Raises:
            NotFound: there is no such batch.
        """
        return self._read(lambda: self._sequence(batch_id))

    def version(self, batch_id: str) -> str:
        """Which state of a batch is recorded now, in a word (`version_of`).

        Raises:
            NotFound: there is no such batch.
        """
        return self._read(lambda: version_of(self._sequence(batch_id), self._storage.jobs.files_removed(batch_id)))

    def _sequence(self, batch_id: str) -> int:
        sequence = self._storage.batches.sequence(batch_id)
        if sequence is None:
            raise unknown_batch(self._storage, batch_id)
        return sequence

    def list_jobs(
        self, batch_id: str, status: JobStatus | str | None = None, limit: int = 50, after: int = 0
    ) -> list[Job]:
        """Some of a batch's jobs in order, from the one behind the index `after` on.

        Raises:
            InvalidRequest: there is no such status.
            NotFound: there is no such batch.
        """
        wanted = status_named(JobStatus, status)

        def read() -> tuple[list[JobRecord], BatchCosts]:
            self._sequence(batch_id)
            jobs, batch = self._storage.jobs.after(batch_id, after, limit, wanted), self._storage.batches.get(batch_id)
            assert batch is not None
            return jobs, self._storage.costs.of_batch(batch, [job.id for job in jobs])

        jobs, costs = self._read(read)
        return [Job.of(record, costs.of_job(record.id)) for record in with_urls(jobs, self.settings.web_public_url)]

    def is_simulated(self, batch_id: str) -> bool:
        """Whether the built-in simulator makes a batch's videos; False until it is started."""
        batch = self._read(lambda: self._storage.batches.get(batch_id))
        return batch is not None and batch.provider == SIMULATOR

    def seconds_worked(self, batch_id: str) -> float:
        """Seconds for which a batch had an owner since it was created or last retried, without waits for `resume`."""
        batch = self._read(lambda: self._storage.batches.get(batch_id))
        return 0.0 if batch is None else batch.spent

    def list_batches(
        self,
        status: BatchStatus | str | None = None,
        metadata: Mapping[str, Any] | None = None,
        limit: int = 50,
        after: str | None = None,
        *,
        spelled: Mapping[str, str] | None = None,
    ) -> list[Batch]:
        """Batches without their jobs, newest first, from the one behind the id `after` on.

        `metadata` must be equal; `spelled` has texts, which also match a number or a boolean that is written so.

        Raises:
            InvalidRequest: there is no such status.
            NotFound: there is no batch `after`.
        """
        wanted = batch_status(status)
        if not 1 <= limit <= MOST:
            raise InvalidRequest(f"limit: must be from 1 to {MOST} (got {limit!r})")

        def read() -> list[Batch]:
            batches = self._storage.batches
            if after is not None and batches.get(after) is None:
                raise unknown_batch(self._storage, after)
            found = batches.find(status=wanted, metadata=metadata, spelled=spelled, limit=limit, after=after)
            costs = self._storage.costs.of_batches(found)
            return [Batch.of(record, [], costs.get(record.id)) for record in found]

        return self._read(read)

    def jobs_without_file(self, batch_id: str) -> list[str]:
        """The ids of a batch's completed jobs whose file is missing: named in a retry, they are fetched again.

        Raises:
            NotFound: there is no such batch.
        """
        jobs = self.get_batch_status(batch_id).jobs
        return [job.id for job in self._without_file(batch_id, {job.id for job in jobs})]

    def _without_file(self, batch_id: str, job_ids: Collection[str]) -> list[JobRecord]:
        """Those of these jobs that are completed and whose file is not where it was recorded."""
        if not job_ids:
            return []
        jobs = self._read(lambda: self._storage.jobs.by_id(job_ids)).values()
        completed = [job for job in jobs if job.batch_id == batch_id and job.video is not None]
        kept = [job for job in completed if job.video and not job.video.get("removed_at")]
        with told_by_the_store():
            return [job for job in kept if job.video and self.stores.size(uri_of(job.video)) is None]

    def fetch(self, batch_id: str, folder: str | Path, name_of: Callable[[Job], str] | None = None) -> FetchReport:
        """Get the finished files of a batch into a folder, wherever they are; those that are there are checked.

        Args:
            batch_id: of a batch in storage, in any state.
            folder: is created. A file of other bytes is never replaced: the new one gets another name.
            name_of: the names of the files; None: as they are in their store.

        Returns:
            The files, and why any of the others could not be had.

        Raises:
            NotFound: there is no such batch.
            InvalidRequest: the folder is not writable.
        """
        from actors.fetching.fetch import Fetcher
        from actors.fetching.places import stored_name

        batch = self.get_batch_status(batch_id)
        return Fetcher(Path(folder), self.settings, self.stores).fetch(batch, name_of=name_of or stored_name)

    def history(self, batch_id: str, from_sequence: int = 1) -> list[Event]:
        """What happened to a batch, from a sequence number on.

        Raises:
            NotFound: there is no such batch.
        """

        def read() -> list[Event]:
            if self._storage.batches.get(batch_id) is None:
                raise unknown_batch(self._storage, batch_id)
            return [Event.parse(record) for record in self._storage.journal.read(batch_id, from_sequence)]

        return self._read(read)

    def pruned(self, batch_id: str) -> int:
        """The number of the last pruned event of a batch: `history` begins after it. 0: none was pruned.

        Raises:
            NotFound: there is no such batch.
        """

        def read() -> int:
            batch, first = self._storage.batches.get(batch_id), self._storage.journal.first_sequence(batch_id)
            if batch is None:
                raise unknown_batch(self._storage, batch_id)
            return batch.sequence if first is None else first - 1

        return self._read(read)

    def submissions(self, batch_id: str) -> list[SubmissionRecord]:
        """Every submission of a batch, in order, with its outcome; also of a deleted batch.

        A `note` of one that is `bound` or `deleted` is the server's answer to our DELETE.
        """
        return self._read(lambda: self._storage.submissions.of_batch(batch_id))

    def deletes(self, batch_id: str) -> list[Owed]:
        """The DELETEs of a batch's cancelled videos: pending ones, and results."""
        return self._read(lambda: self._storage.deletes.of_batch(batch_id))

    def snapshot(self, batch_id: str) -> tuple[Batch, int]:
        """A batch with its jobs, and the number of the last event that they reflect.

        Raises:
            NotFound: there is no such batch.
        """

        def read() -> tuple[Batch, int]:
            batch = existing(self._storage, batch_id)  # locked: nothing happens between the two reads
            return self._view(batch), batch.sequence

        return self._write(read)

    def recorded(self, batch_id: str, from_sequence: int = 1, limit: int | None = None) -> list[EventRecord]:
        """A batch's events as they were recorded: the bytes that are published."""
        return self._read(lambda: self._storage.journal.read(batch_id, from_sequence, limit))

    def look(self, query: Callable[[Any], T]) -> T:
        """Read by a query over the `Storage`, on one connection: for what shows only parts of a batch. Internal.

        Raises:
            StorageError: the database can't be asked.
        """
        return self._read(lambda: query(self._storage))

    # --- how

    def _check_open(self) -> None:
        if self._process != os.getpid():
            raise ServiceClosed("this service was created before a fork; create one in each process")
        if self._closed:
            raise ServiceClosed

    def _write(self, run: Callable[[], T]) -> T:
        """In one transaction of the recorder; perhaps once more, after a COMMIT whose answer was lost."""
        self._check_open()
        answer = self._recorder.write(run, patience=ANSWER_SECONDS)
        try:
            return answer.result(timeout=ANSWER_SECONDS + _GRACE_SECONDS)
        except TimeoutError:
            undone, away = answer.cancel(), self._recorder.away
            if undone:
                self._check_open()
            why = away.reason if away else f"the database {self._database.place} does not answer"
            raise StorageError(
                f"{why} (tried for {ANSWER_SECONDS:g} s); "
                + ("nothing was changed" if undone else "check whether it was done before you try again")
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
