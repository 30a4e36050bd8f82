"""The objects that are to be removed from buckets, this database's identity, and where its processes put files."""

import uuid
from typing import Any


def up(_migrator: Any, db: Any) -> None:
    """Create the tables."""
    db.execute_sql(
        "CREATE TABLE doomed (uri TEXT PRIMARY KEY, batch_id TEXT NOT NULL, doomed_at DOUBLE PRECISION NOT NULL)"
    )
    db.execute_sql("CREATE INDEX doomed_batch ON doomed (batch_id)")
    db.execute_sql("CREATE TABLE identity (name TEXT PRIMARY KEY, value TEXT NOT NULL)")
    db.execute_sql(f"INSERT INTO identity (name, value) VALUES ('database', '{uuid.uuid4().hex}')")
    db.execute_sql("CREATE TABLE owner_stores (owner TEXT PRIMARY KEY, store TEXT NOT NULL, place TEXT NOT NULL)")
