"""Mending: makes unreadable rows readable, so that their batch can be failed alone.

Broken values are replaced by empty ones and reported: something else wrote them, or the disk did.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from storage.database import Database
from storage.records import BatchRecord, JobRecord, SubmissionRecord
from storage.rows import encode, names_of, reader_of
from storage.states import BatchStatus, JobStatus, SubmissionState

_TABLES: Mapping[str, tuple[type[Any], str]] = {
    "batches": (BatchRecord, "id"),
    "jobs": (JobRecord, "batch_id"),
    "submissions": (SubmissionRecord, "batch_id"),
}
_NOTHING: Mapping[Any, Any] = {
    str: "", int: 0, float: 0.0, bool: False, dict: {},
    BatchStatus: BatchStatus.PROCESSING, JobStatus: JobStatus.PENDING,
    SubmissionState: SubmissionState.UNKNOWN,  # it may have been paid for
}  # fmt: skip
_SHOWN = 100


class Unreadable(ValueError):
    """A row has an invalid value."""


def check(record: Any) -> None:
    """Check the types of a record's fields: SQLite stores anything in any column.

    Raises:
        Unreadable: a field has another type.
    """
    kinds = _KINDS[type(record)]
    for name, value in zip(record._fields, record, strict=True):
        if not isinstance(value, kinds[name]):
            raise Unreadable(f"{name} is {value!r:.{_SHOWN}}")


def mend(database: Database, batch_id: str) -> list[str]:
    """In a transaction: replace the unreadable values in the rows of a batch.

    Returns:
        What was replaced: `jobs.metadata of nature-01: '{"a'`.
    """
    told = []
    for table, (record, key) in _TABLES.items():
        names = names_of(record)
        rows = database.execute(f"SELECT {', '.join(names)} FROM {table} WHERE {key}=?", (batch_id,)).fetchall()
        for row in rows:
            for name, value in zip(names, row, strict=True):
                if _reads(record, name, value):
                    continue
                told.append(f"{table}.{name} of {row[0]}: {value!r:.{_SHOWN}}")
                database.execute(f"UPDATE {table} SET {name}=? WHERE id=?", (_nothing(record, name), row[0]))
    return told


def _reads(record: type[Any], name: str, value: Any) -> bool:
    read = reader_of(record, name)
    try:
        return isinstance(value if read is None or value is None else read(value), _KINDS[record][name])
    except (ValueError, LookupError, RecursionError):
        return False


def _nothing(record: type[Any], name: str) -> Any:
    kinds = _KINDS[record][name]
    nothing = None if NoneType in kinds else _NOTHING[kinds[0]]
    return encode(nothing) if isinstance(nothing, dict) else nothing


def _types(kind: Any) -> tuple[Any, ...]:
    each = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    types = tuple(get_origin(part) or part for part in each)
    # SQLite has only numbers: seconds may be whole, and yes is 1.
    return (*types, int) if {float, bool} & set(types) else types


_KINDS: Mapping[Any, dict[str, tuple[Any, ...]]] = {
    record: {name: _types(kind) for name, kind in get_type_hints(record).items()} for record, _ in _TABLES.values()
}
"""The types that a record's fields may have."""
