"""BatchReader: all reads of batches, their jobs, events and files; for `BatchService`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from actors.batch.events import Event
from actors.batch.job_views import Job, with_urls
from actors.batch.loading import existing, unknown_batch
from actors.batch.views import Batch, status_named, version_of
from actors.errors import InvalidRequest
from actors.service.opening import OpenService
from actors.settings.server import SIMULATOR
from storage.charges import BatchCosts
from storage.deletes import Owed
from storage.records import BatchRecord, EventRecord, JobRecord, SubmissionRecord
from storage.states import BatchStatus, JobStatus
from storage.unfinished import Unfinished, count_unfinished

if TYPE_CHECKING:
    from actors.fetching.fetch import FetchReport

T = TypeVar("T")
MOST = 1_000_000


class BatchReader(OpenService):
    """Answers from what is recorded."""

    def unfinished(self) -> Unfinished:
        """What is recorded and has not ended, counted.

        Raises:
            StorageError: the database can't be asked.
        """
        return self._read(lambda: count_unfinished(self._database))

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
        wanted = status_named(BatchStatus, status)
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
