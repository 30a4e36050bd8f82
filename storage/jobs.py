"""JobRepository: the videos of the batches, and the bytes of their input references."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from storage.database import Database
from storage.records import JobRecord, ReferenceRecord
from storage.rows import Insert, Rows, names_of
from storage.states import FINAL_JOB, JobStatus

_FIXED = {"id", "batch_id", "position", "metadata", "created_at"}
_CHANGED = ", ".join(f"{name}=excluded.{name}" for name in names_of(JobRecord) if name not in _FIXED)
_OPEN = f"AND status NOT IN ({', '.join(repr(status.value) for status in sorted(FINAL_JOB))})"
_CHUNK = 500


class JobRepository:
    """Jobs as rows. Reads want a connection, writes a transaction; the caller has opened them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._rows = Rows(database, "jobs", JobRecord)
        self._add = Insert(database, "jobs", JobRecord)
        self._save = Insert(database, "jobs", JobRecord, f"ON CONFLICT (id) DO UPDATE SET {_CHANGED}")
        self._references = Rows(database, "input_references", ReferenceRecord)
        self._keep = Insert(database, "input_references", ReferenceRecord, "ON CONFLICT DO NOTHING")

    def add(self, jobs: list[JobRecord]) -> None:
        """Store new jobs."""
        self._add(jobs)

    def of_batch(self, batch_id: str, *, open_only: bool = False) -> list[JobRecord]:
        """A batch's jobs in their order."""
        return self._rows.select(f"WHERE batch_id=? {_OPEN if open_only else ''} ORDER BY position", (batch_id,))

    def each_of_batch(self, batch_id: str) -> Iterator[JobRecord]:
        """A batch's jobs in their order, read when they are asked for."""
        position, some = 0, "WHERE batch_id=? AND position>? AND position<=? ORDER BY position"
        whole = True
        while whole:
            chunk = self._rows.select(some, (batch_id, position, position + _CHUNK))
            yield from chunk
            position += _CHUNK
            whole = len(chunk) == _CHUNK

    def by_id(self, job_ids: Iterable[str]) -> dict[str, JobRecord]:
        """These jobs, as far as they exist."""
        some = f"WHERE id {self._database.among} ORDER BY position"
        return {job.id: job for job in self._rows.select(some, (self._database.listed(job_ids),))}

    def with_files(self, after: str) -> list[JobRecord]:
        """Some completed jobs, by their ids, behind this one."""
        completed = f"status='{JobStatus.COMPLETED}' AND video IS NOT NULL"
        return self._rows.select(f"WHERE {completed} AND id > ? ORDER BY id LIMIT {_CHUNK}", (after,))

    def save(self, jobs: Iterable[JobRecord]) -> None:
        """Write everything of these jobs that may change. The batch's fence has been passed before."""
        self._save(jobs)

    def keep_reference(self, reference: ReferenceRecord) -> None:
        """Store the bytes of an input reference, once."""
        self._keep.one(reference)

    def reference(self, digest: str) -> ReferenceRecord:
        """The bytes of an input reference.

        Raises:
            LookupError: nobody stored them.
        """
        reference = self._references.first("WHERE digest=?", (digest,))
        if reference is None:
            raise LookupError(f"no input reference with the digest {digest} is stored")
        return reference
