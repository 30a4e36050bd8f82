"""JobRepository: the videos of the batches, and the bytes of their input references."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, fields
from operator import attrgetter
from typing import Any

from storage.database import Database
from storage.records import Document, JobRecord, ReferenceRecord
from storage.states import FINAL_JOB, JobStatus

_COLUMNS = tuple(field.name for field in fields(JobRecord))
_FIXED = {"id", "batch_id", "position", "metadata", "created_at"}
_CHANGED = ", ".join(f"{name}=excluded.{name}" for name in _COLUMNS if name not in _FIXED)
_ROW = f"({', '.join('?' * len(_COLUMNS))})"
_NAMES = ", ".join(_COLUMNS)
_DOCUMENTS = ("reference", "metadata", "error", "video")
_OPEN = f" AND status NOT IN ({', '.join(repr(status.value) for status in sorted(FINAL_JOB))})"
_CHUNK = 500
_columns_of = attrgetter(*_COLUMNS)
_encode = json.JSONEncoder(ensure_ascii=False).encode


class JobRepository:
    """Jobs as rows. Reads want a connection, writes a transaction; the caller has opened them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._table = database.tables.job
        self._references = database.tables.reference

    def add(self, jobs: list[JobRecord]) -> None:
        """Store new jobs."""
        self._insert(jobs, "")

    def of_batch(self, batch_id: str, *, open_only: bool = False) -> list[JobRecord]:
        """A batch's jobs in their order."""
        return self._select("batch_id=?" + (_OPEN if open_only else ""), batch_id)

    def each_of_batch(self, batch_id: str) -> Iterator[JobRecord]:
        """A batch's jobs in their order, read when they are asked for."""
        position = 0
        while chunk := self._select("batch_id=? AND position>? AND position<=?", batch_id, position, position + _CHUNK):
            yield from chunk
            position += _CHUNK

    def by_id(self, job_ids: Iterable[str]) -> dict[str, JobRecord]:
        """These jobs, as far as they exist."""
        ids = list(job_ids)
        chunks = (ids[start : start + _CHUNK] for start in range(0, len(ids), _CHUNK))
        return {
            job.id: job for chunk in chunks for job in self._select(f"id IN ({', '.join('?' * len(chunk))})", *chunk)
        }

    def with_files(self, after: str) -> list[JobRecord]:
        """Some completed jobs, by their ids, behind this one."""
        cursor = self._database.execute(
            f"SELECT {_NAMES} FROM jobs WHERE status='{JobStatus.COMPLETED}' AND video IS NOT NULL AND id > ? "
            f"ORDER BY id LIMIT {_CHUNK}",
            (after,),
        )
        return [_record(row) for row in cursor.fetchall()]

    def save(self, jobs: Iterable[JobRecord]) -> None:
        """Write everything of these jobs that may change. The batch's fence has been passed before.

        One statement for many rows: each statement has to take the interpreter's lock back from the I/O loop.
        """
        self._insert(jobs, f"ON CONFLICT (id) DO UPDATE SET {_CHANGED}")

    def _insert(self, jobs: Iterable[JobRecord], on_conflict: str) -> None:
        rows = [_values(job) for job in jobs]
        for start in range(0, len(rows), _CHUNK):
            chunk = rows[start : start + _CHUNK]
            self._database.execute(
                f"INSERT INTO jobs ({_NAMES}) VALUES {', '.join([_ROW] * len(chunk))} {on_conflict}",
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

    def _select(self, where: str, *parameters: Any) -> list[JobRecord]:
        # Not through peewee's models: they take four times as long, and a batch may have 10,000 jobs.
        cursor = self._database.execute(f"SELECT {_NAMES} FROM jobs WHERE {where} ORDER BY position", parameters)
        return [_record(row) for row in cursor.fetchall()]


def _values(job: JobRecord) -> list[Any]:
    return [_encode(value) if isinstance(value, dict) else value for value in _columns_of(job)]


def _record(row: tuple[Any, ...]) -> JobRecord:
    columns: Document = dict(zip(_COLUMNS, row, strict=True))
    for name in _DOCUMENTS:
        if isinstance(columns[name], str):  # SQLite's; psycopg has read it already
            columns[name] = json.loads(columns[name])
    return JobRecord(**{**columns, "status": JobStatus(columns["status"])})
