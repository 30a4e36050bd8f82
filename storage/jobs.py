"""JobRepository: the videos of the batches, and the bytes of their input references."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from storage.database import Database
from storage.records import JobRecord, ReferenceRecord
from storage.rows import Insert, Rows, names_of
from storage.states import FINAL_JOB, JobStatus

_FIXED = {"id", "batch_id", "position", "metadata", "created_at"}
_CHANGED = ", ".join(f"{name}=excluded.{name}" for name in names_of(JobRecord) if name not in _FIXED)
_OPEN = f"AND status NOT IN ({', '.join(repr(status.value) for status in sorted(FINAL_JOB))})"
_AS_IT_IS = "ON CONFLICT DO NOTHING"
_CHUNK = 500


class FileUse(NamedTuple):
    """A job uses stored bytes for one of its `files`."""

    job_id: str
    digest: str


class JobRepository:
    """Jobs as rows. Reads need a connection, writes a transaction, opened by the caller."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._rows = Rows(database, "jobs", JobRecord)
        self._add = Insert(database, "jobs", JobRecord)
        self._save = Insert(database, "jobs", JobRecord, f"ON CONFLICT (id) DO UPDATE SET {_CHANGED}")
        self._references = Rows(database, "input_references", ReferenceRecord)
        # PostgreSQL: existing rows are locked, so that nobody removes them before the jobs that use them are visible.
        kept = "ON CONFLICT (digest) DO UPDATE SET digest=excluded.digest" if database.postgresql else _AS_IT_IS
        self._keep = Insert(database, "input_references", ReferenceRecord, kept)
        self._use = Insert(database, "job_files", FileUse, _AS_IT_IS)
        digest = "j.reference ->> 'digest'" if database.postgresql else "json_extract(j.reference, '$.digest')"
        self._digests = (
            f"SELECT {digest} FROM jobs j WHERE j.batch_id=? AND j.reference IS NOT NULL "
            "UNION SELECT f.digest FROM job_files f JOIN jobs j ON j.id=f.job_id WHERE j.batch_id=?"
        )
        self._unused = (
            f"NOT EXISTS (SELECT 1 FROM jobs j WHERE j.reference IS NOT NULL AND {digest}=input_references.digest) "
            "AND NOT EXISTS (SELECT 1 FROM job_files f WHERE f.digest=input_references.digest)"
        )

    def add(self, jobs: list[JobRecord]) -> None:
        """Store new jobs."""
        self._add(jobs)
        self.use_files(jobs)

    def of_batch(self, batch_id: str, *, open_only: bool = False) -> list[JobRecord]:
        """A batch's jobs in order."""
        return self._rows.select(f"WHERE batch_id=? {_OPEN if open_only else ''} ORDER BY position", (batch_id,))

    def each_of_batch(self, batch_id: str) -> Iterator[JobRecord]:
        """A batch's jobs in order, read lazily."""
        position, some = 0, "WHERE batch_id=? AND position>? AND position<=? ORDER BY position"
        whole = True
        while whole:
            chunk = self._rows.select(some, (batch_id, position, position + _CHUNK))
            yield from chunk
            position += _CHUNK
            whole = len(chunk) == _CHUNK

    def after(self, batch_id: str, position: int, limit: int, status: JobStatus | None = None) -> list[JobRecord]:
        """Some of a batch's jobs in order, behind a position, of this status only if one is given."""
        one, parameters = ("AND status=?", [status.value]) if status is not None else ("", [])
        some = f"WHERE batch_id=? AND position>? {one} ORDER BY position LIMIT ?"
        return self._rows.select(some, (batch_id, position, *parameters, limit))

    def by_id(self, job_ids: Iterable[str]) -> dict[str, JobRecord]:
        """The existing jobs among these, by id."""
        some = f"WHERE id {self._database.in_list} ORDER BY position"
        return {job.id: job for job in self._rows.select(some, (self._database.list_parameter(job_ids),))}

    def last_failed(self, batch_id: str) -> JobRecord | None:
        """The job of a batch that failed last, or None."""
        failed = f"WHERE batch_id=? AND status='{JobStatus.FAILED}' ORDER BY completed_at DESC, position DESC LIMIT 1"
        return self._rows.first(failed, (batch_id,))

    def at(self, batch_id: str, position: int) -> JobRecord | None:
        """The job at a position of a batch, or None."""
        return self._rows.first("WHERE batch_id=? AND position=?", (batch_id, position))

    def page(
        self, batch_id: str, *, limit: int, skip: int = 0, statuses: Iterable[JobStatus] | None = None
    ) -> list[JobRecord]:
        """Some of a batch's jobs in order, of these statuses only, without the first `skip` of them."""
        if statuses is None:  # positions are gapless, so none before them is read
            some = "WHERE batch_id=? AND position>? AND position<=? ORDER BY position"
            return self._rows.select(some, (batch_id, skip, skip + limit))
        listed = self._database.list_parameter(status.value for status in statuses)
        some = f"WHERE batch_id=? AND status {self._database.in_list} ORDER BY position LIMIT ? OFFSET ?"
        return self._rows.select(some, (batch_id, listed, limit, skip))

    def changed_since(self, batch_id: str, moment: float, limit: int) -> list[JobRecord]:
        """Some of a batch's jobs that changed at or after a time, in order."""
        some = "WHERE batch_id=? AND updated_at>=? ORDER BY position LIMIT ?"
        return self._rows.select(some, (batch_id, moment, limit))

    def with_files(self, after: str) -> list[JobRecord]:
        """Some completed jobs, ordered by id, after this one."""
        completed = f"status='{JobStatus.COMPLETED}' AND video IS NOT NULL"
        return self._rows.select(f"WHERE {completed} AND id > ? ORDER BY id LIMIT {_CHUNK}", (after,))

    def with_files_of(self, batch_id: str, after: int, limit: int) -> list[JobRecord]:
        """Some jobs of a batch that have a file, in order, after this position."""
        some = "WHERE batch_id=? AND position > ? AND video IS NOT NULL ORDER BY position LIMIT ?"
        return self._rows.select(some, (batch_id, after, limit))

    def files_removed(self, batch_id: str) -> int:
        """How many jobs of a batch have a file that was removed on purpose."""
        sql = "SELECT count(*) FROM jobs WHERE batch_id=? AND CAST(video AS TEXT) LIKE ?"
        return int(self._database.execute(sql, (batch_id, '%"removed_at":%')).fetchone()[0])

    def save(self, jobs: Iterable[JobRecord]) -> None:
        """Write all mutable columns of these jobs. The batch's fence has already been passed."""
        self._save(jobs)

    def use_files(self, jobs: Iterable[JobRecord]) -> None:
        """Record which stored files these jobs use besides their input references."""
        uses = {(job.id, file["digest"]) for job in jobs for file in job.files.values() if "digest" in file}
        self._use(FileUse(*use) for use in sorted(uses))

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

    def bytes_of(self, digests: list[str]) -> int:
        """The total bytes of these stored files; one that is listed twice counts twice."""
        if not digests:
            return 0
        sql = f"SELECT digest, length(data) FROM input_references WHERE digest {self._database.in_list}"
        sizes = dict(self._database.execute(sql, (self._database.list_parameter(digests),)).fetchall())
        return sum(sizes.get(digest, 0) for digest in digests)

    def digests_of(self, batch_id: str) -> list[str]:
        """The input references that a batch's jobs use."""
        found = self._database.execute(self._digests, (batch_id, batch_id)).fetchall()
        return sorted(digest for (digest,) in found if digest is not None)

    def unused_references(self, after: str, limit: int, size: int, among: list[str] | None = None) -> list[str]:
        """Some references after `after` (of `among`, if given) that no job uses: up to `size` bytes, at least one."""
        listed, parameters = "", [after]
        if among is not None:
            listed, parameters = f"AND digest {self._database.in_list}", [after, self._database.list_parameter(among)]
        sql = f"SELECT digest, length(data) FROM input_references WHERE digest > ? {listed} AND {self._unused} "
        rows = self._database.execute(f"{sql} ORDER BY digest LIMIT ?", [*parameters, limit]).fetchall()
        chosen: list[str] = []
        for digest, length in rows:
            size -= length
            if chosen and size < 0:
                break
            chosen.append(digest)
        return chosen

    def drop_references(self, digests: list[str]) -> int:
        """Remove those of these references that no job uses. Returns how many were removed."""
        listed = self._database.list_parameter(digests)
        if self._database.postgresql:  # a separate statement: the next one sees the jobs of the previous lock holder
            lock = f"WHERE digest {self._database.in_list} ORDER BY digest FOR UPDATE"
            self._database.execute(f"SELECT digest FROM input_references {lock}", (listed,))
        sql = f"DELETE FROM input_references WHERE digest {self._database.in_list} AND {self._unused}"
        return int(self._database.execute(sql, (listed,)).rowcount)

    def some_of(self, batch_id: str, limit: int) -> list[str]:
        """Ids of some of a batch's jobs."""
        sql = "SELECT id FROM jobs WHERE batch_id=? ORDER BY position LIMIT ?"
        return [job_id for (job_id,) in self._database.execute(sql, (batch_id, limit)).fetchall()]

    def remove(self, job_ids: list[str]) -> None:
        """Remove jobs of a batch that is being deleted."""
        listed = self._database.list_parameter(job_ids)
        self._database.execute(f"DELETE FROM jobs WHERE id {self._database.in_list}", (listed,))
