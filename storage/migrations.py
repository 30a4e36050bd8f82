"""Migrations: what of the schema a database has, and how it gets the rest, each step in a transaction of its own."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from storage.failures import DatabaseError
from storage.schema import INITIAL, OF_SQLITE, STEPS
from storage.urls import key_of, server_of

if TYPE_CHECKING:
    from storage.database import Database

_ADVISORY_LOCK = 0x50_4A_BA_7C


class Progress(NamedTuple):
    """The names of steps, in their order."""

    applied: list[str]
    pending: list[tuple[str, str]]
    """Each with the table in which it is to be noted."""
    newer: list[str]
    """Those that this program does not know, as far as it would have to: it works beside later additions."""


def progress_of(database: Database) -> Progress:
    """How far the schema of a database is."""
    found = Progress([], [], [])
    for table, steps in STEPS.items():
        noted: set[str] = set()
        if database.peewee.table_exists(table):
            noted = {name for (name,) in database.execute(f"SELECT name FROM {table}").fetchall()}
        found.applied.extend(name for name in steps if name in noted)
        found.pending.extend((table, name) for name in steps if name not in noted)
        if table == INITIAL:
            found.newer.extend(sorted(noted - steps.keys()))
    return found


def _pending(database: Database) -> list[tuple[str, str]]:
    found = progress_of(database)
    if found.newer:
        raise DatabaseError(
            f"the database {database.place} is newer than this program (it has {', '.join(found.newer)}); "
            "upgrade sora-batch or set DATABASE_URL to another database"
        )
    return found.pending


def check_schema(database: Database) -> None:
    """See that a database has this program's schema, and change nothing.

    Raises:
        DatabaseError: it does not exist or is older; and as `Database.read`.
    """
    way_out = "run sora-batch migrate first, or start without --no-migrate"
    if database.path is not None and not database.path.exists():
        raise DatabaseError(f"the database {database.place} does not exist: {way_out}")
    lacking = database.read(lambda: [name for _, name in _pending(database)])
    if lacking:
        older = f"has an older schema than this program, without {', '.join(lacking)}"
        what = older if database.read(lambda: database.peewee.table_exists(INITIAL)) else "has no schema yet"
        raise DatabaseError(f"the database {database.place} {what}: {way_out}")


def migrate(database: Database) -> list[str]:
    """Apply what is pending, while no other process does. Needs a connection, opened by the caller.

    Returns:
        The names of the steps that were applied.

    Raises:
        DatabaseError: the database is newer than this program.
    """
    pending = _pending(database)
    for table, name in pending:
        apply(database, table, name)
    return [name for _, name in pending]


def apply(database: Database, table: str, name: str) -> None:
    """Apply a step, and note it in the table."""
    _make_table(database, table)  # crash point: schema
    with database.peewee.atomic():
        text = "" if database.postgresql and name in OF_SQLITE else STEPS[table][name].format(**_words(database))
        for statement in text.split(";"):
            if statement.strip():
                database.peewee.execute_sql(statement)
        if name == "0005_servers":
            _fill_in_servers(database)
        noted = (name, str(datetime.now()))  # noqa: DTZ005  (as the version before notes and reads it)
        database.execute(f"INSERT INTO {table} (name, applied) VALUES (?, ?)", noted)


def _make_table(database: Database, table: str) -> None:
    """The columns are those of the library by which the version before migrates."""
    key, moment = ("SERIAL", "TIMESTAMP") if database.postgresql else ("INTEGER", "DATETIME")
    columns = f'"id" {key} NOT NULL PRIMARY KEY, "name" VARCHAR(255) NOT NULL, "applied" {moment} NOT NULL'
    database.execute(f'CREATE TABLE IF NOT EXISTS "{table}" ({columns})')
    database.execute(f'CREATE UNIQUE INDEX IF NOT EXISTS "{table}_name" ON "{table}" ("name")')


def _words(database: Database) -> dict[str, str]:
    """What stands for the words in braces."""
    words = {"new_id": uuid.uuid4().hex}
    if database.postgresql:
        day = "to_char(to_timestamp(intended_at) AT TIME ZONE 'UTC', 'YYYY-MM-DD')"
        return words | {
            "json": "JSONB", "blob": "BYTEA", "reference_digest": "(reference ->> 'digest')", "day": day,
            "place": "BIGINT NOT NULL DEFAULT txid_current()",
            "place_index": "CREATE INDEX late_events_place ON late_events (place)",
        }  # fmt: skip
    return words | {
        "json": "JSON", "blob": "BLOB", "reference_digest": "json_extract(reference, '$.digest')",
        "day": "strftime('%Y-%m-%d', intended_at, 'unixepoch')", "place": "INTEGER PRIMARY KEY AUTOINCREMENT",
        "place_index": "",
    }  # fmt: skip


def _fill_in_servers(database: Database) -> None:
    """Fill in what the providers of earlier batches and submissions say."""
    found = database.execute("SELECT provider FROM submissions UNION SELECT provider FROM batches").fetchall()
    for provider in (provider for (provider,) in found if provider is not None):
        server, key = server_of(provider), key_of(provider)
        database.execute("UPDATE batches SET server=? WHERE provider=?", (server, provider))
        fill_in = "UPDATE submissions SET server=?, key_fingerprint=? WHERE provider=?"
        database.execute(fill_in, (server, key, provider))


@contextlib.contextmanager
def migrating_alone(database: Database) -> Iterator[None]:
    """A connection while no other process migrates: two migrations at once would both create the tables."""
    if database.postgresql:
        with database.connection():
            database.execute("SELECT pg_advisory_lock(?)", (_ADVISORY_LOCK,))
            try:
                yield
            finally:
                database.execute("SELECT pg_advisory_unlock(?)", (_ADVISORY_LOCK,))
    else:
        import fcntl

        assert database.path is not None
        descriptor = os.open(database.path.parent, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            # The first connection switches a new file to WAL, and SQLite does not wait for another that does so.
            with database.connection():
                yield
        finally:
            os.close(descriptor)
