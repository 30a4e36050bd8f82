"""Databases of the benchmarks' own, empty and removed afterwards: SQLite's and PostgreSQL's."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from tests.servers.postgresql import PostgreSQL

KINDS = ("sqlite", "postgresql")


@contextmanager
def empty_database(kind: str) -> Iterator[str]:
    """The URL of a new database, for as long as it is needed."""
    with tempfile.TemporaryDirectory() as folder:
        if kind == "sqlite":
            yield f"sqlite:///{folder}/batches.db"
            return
        with PostgreSQL() as server:
            yield server.url(server.create_database())
