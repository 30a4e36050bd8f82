"""The trace that a batch belongs to: `traceparent` and `tracestate` of the command that it came with."""

from typing import Any


def up(_migrator: Any, db: Any) -> None:
    """Add the column."""
    kind = "JSONB" if type(db).__name__.startswith("PooledPostgresql") else "JSON"
    db.execute_sql(f"ALTER TABLE batches ADD COLUMN trace {kind}")
