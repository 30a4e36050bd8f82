"""Rows: a table's rows as frozen records, by ready SQL; and what can't be read as one, found and mended.

A query builder takes several times as long as the database does, and a batch may have 10,000 videos. A record's
fields are named as its table's columns, and their types say how a column is read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from operator import attrgetter
from types import NoneType, UnionType
from typing import Any, Generic, TypeVar, get_args, get_origin, get_type_hints

from storage.database import Database
from storage.records import BatchRecord, Document, JobRecord, SubmissionRecord
from storage.states import BatchStatus, JobStatus, SubmissionState

R = TypeVar("R")
_CHUNK = 500
"""Rows per statement: SQLite takes 32,766 parameters."""

encode = json.JSONEncoder(ensure_ascii=False).encode
"""A document as stored. Not escaped: SQLite finds a non-ASCII key only unescaped."""


class Rows(Generic[R]):
    """Reads rows as records of one kind."""

    def __init__(self, database: Database, table: str, record: type[R]) -> None:
        self._database, self._record = database, record
        self._names = names_of(record)
        self._select = f"SELECT {', '.join(self._names)} FROM {table} "
        kinds = get_type_hints(record)
        readers = ((index, _reader(kinds[name])) for index, name in enumerate(self._names))
        self._readers = [(index, read) for index, read in readers if read is not None]

    def select(self, rest: str, parameters: Sequence[Any] = ()) -> list[R]:
        """The rows selected by the rest of the statement, after the table's name."""
        return [self.read(row) for row in self._database.execute(self._select + rest, parameters).fetchall()]

    def first(self, rest: str, parameters: Sequence[Any] = ()) -> R | None:
        """The first of these rows, if any."""
        found = self.select(rest, parameters)
        return found[0] if found else None

    def read(self, row: Sequence[Any]) -> R:
        """The record of a row that has all columns in order."""
        values = list(row)
        for index, read in self._readers:
            values[index] = read(values[index])
        return self._record(*values)


class Insert(Generic[R]):
    """A statement that inserts records, as many as there are.

    One for many rows: each statement has to take the interpreter's lock back from the I/O loop.
    """

    def __init__(
        self, database: Database, table: str, record: type[R], rest: str = "", *, given: Mapping[str, str] | None = None
    ) -> None:
        """`rest`: the SQL after the values; `given`: SQL for columns that are not taken from the record."""
        self._database, self._rest = database, rest
        names, sql = names_of(record), given or {}
        taken = [name for name in names if name not in sql]
        self._taken, self._values = taken, attrgetter(*taken)
        kinds = get_type_hints(record)
        self._documents = [index for index, name in enumerate(taken) if _reader(kinds[name]) is _document]
        self._head = f"INSERT INTO {table} ({', '.join(names)}) "
        self._row = f"({', '.join(sql.get(name, '?') for name in names)})"
        columns = ", ".join(sql.get(name, name) for name in names)
        # psycopg parses each placeholder of a statement: for many rows that costs more than all the rest.
        self._from_json = f"{self._head}SELECT {columns} FROM json_populate_recordset(NULL::{table}, ?::json) {rest}"

    def __call__(self, records: Iterable[R]) -> int:
        """Insert them all. Returns the number of rows written."""
        rows = list(records)
        return sum(self._insert(rows[start : start + _CHUNK]) for start in range(0, len(rows), _CHUNK))

    def one(self, record: R) -> list[Any]:
        """Insert one; returns the RETURNING rows, if `rest` has that."""
        cursor = self._one(record)
        return list(cursor.fetchall()) if cursor.description else []

    def _one(self, record: R) -> Any:
        return self._database.execute(f"{self._head}VALUES {self._row} {self._rest}", self._parameters(record))

    def _insert(self, records: list[R]) -> int:
        if len(records) == 1:
            cursor = self._one(records[0])
        elif self._database.postgresql:
            documents = [dict(zip(self._taken, self._values(record), strict=True)) for record in records]
            cursor = self._database.execute(self._from_json, (encode(documents),))
        else:
            marks = ", ".join([self._row] * len(records))
            values = [value for record in records for value in self._parameters(record)]
            cursor = self._database.execute(f"{self._head}VALUES {marks} {self._rest}", values)
        return int(cursor.rowcount)

    def _parameters(self, record: R) -> list[Any]:
        values = list(self._values(record))
        for index in self._documents:
            if (value := values[index]) is not None:
                values[index] = encode(value) if value != {} else "{}"
        return values


def names_of(record: type[Any]) -> tuple[str, ...]:
    """The columns of a kind of record."""
    return tuple(record._fields)


def _reader(kind: Any) -> Callable[[Any], Any] | None:
    """What makes a field of this type of a column's value; None: they are the same."""
    kinds = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    named = next((each for each in kinds if isinstance(each, type) and issubclass(each, StrEnum)), None)
    if named is not None:
        values: dict[Any, Any] = {str(each): each for each in named}
        return (values | {None: None} if NoneType in kinds else values).__getitem__
    if kind is bool:
        return bool  # SQLite has only numbers
    return _document if {Document, list[Document]} & set(kinds) else None


def _document(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value  # psycopg has already parsed it


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
    """In a transaction: replace the unreadable values in the rows of a batch by empty ones, so that it alone fails.

    Something else wrote them, or the disk did.

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
    read = _reader(get_type_hints(record)[name])
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
