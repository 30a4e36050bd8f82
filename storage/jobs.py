"""JobRepository: the videos of the batches, and the bytes of their input references."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, fields
from typing import Any

from storage.database import Database
from storage.records import Document, JobRecord, ReferenceRecord
from storage.states import FINAL_JOB, JobStatus

_COLUMNS = tuple(field.name for field in fields(JobRecord))
_FIXED = {"id", "batch_id", "position", "metadata", "created_at"}
_CHANGED = ", ".join(f"{name}=excluded.{name}" for name in _COLUMNS if name not in _FIXED)
_ROW = f"({', '.join('?' * len(_COLUMNS))})"
_CHUNK = 500


class JobRepository:
    """Jobs as rows. Reads want a connection, writes a transaction; the caller has opened them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._table = database.tables.job
        self._references = database.tables.reference

    def add(self, jobs: list[JobRecord]) -> None:
        """Store new jobs."""
        for start in range(0, len(jobs), _CHUNK):
            self._table.insert_many([asdict(job) for job in jobs[start : start + _CHUNK]]).execute()

    def of_batch(self, batch_id: str, *, open_only: bool = False) -> list[JobRecord]:
        """A batch's jobs in their order."""
        table = self._table
        query = table.select().where(table.batch_id == batch_id).order_by(table.position)
        if open_only:
            query = query.where(table.status.not_in([status.value for status in FINAL_JOB]))
        return [_record(row) for row in query.dicts()]

    def by_id(self, job_ids: Iterable[str]) -> dict[str, JobRecord]:
        """These jobs, as far as they exist."""
        query = self._table.select().where(self._table.id.in_(list(job_ids)))
        return {row["id"]: _record(row) for row in query.dicts()}

    def save(self, jobs: Iterable[JobRecord]) -> None:
        """Write everything of these jobs that may change. The batch's fence has been passed before.

        One statement for many rows: each statement has to take the interpreter's lock back from the I/O loop.
        """
        rows = [_values(job) for job in jobs]
        for start in range(0, len(rows), _CHUNK):
            chunk = rows[start : start + _CHUNK]
            self._database.execute(
                f"INSERT INTO jobs ({', '.join(_COLUMNS)}) VALUES {', '.join([_ROW] * len(chunk))} "
                f"ON CONFLICT (id) DO UPDATE SET {_CHANGED}",
                [value for row in chunk for value in row],
            )

    def keep_reference(self, reference: ReferenceRecord) -> None:
        """Store the bytes of an input reference, once."""
        self._references.insert(**asdict(reference)).on_conflict_ignore().execute()

    def reference(self, digest: str) -> ReferenceRecord:
        """The bytes of an input reference.

        Raises:
            LookupError: nobody stored them.
        """
        rows = list(self._references.select().where(self._references.digest == digest).dicts())
        if not rows:
            raise LookupError(f"no input reference with the digest {digest} is stored")
        return ReferenceRecord(**{**rows[0], "data": bytes(rows[0]["data"])})


def _values(job: JobRecord) -> list[Any]:
    values = (getattr(job, name) for name in _COLUMNS)
    return [json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value for value in values]


def _record(row: Document) -> JobRecord:
    return JobRecord(**{**row, "status": JobStatus(row["status"])})
