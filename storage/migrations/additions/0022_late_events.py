"""Which events were recorded of batches that may have ended: who follows all batches finds them here.

They are few, and nothing is written here while videos are made. On PostgreSQL `place` is the transaction's number, on
SQLite, where one transaction writes at a time, that of the row: in either case what commits later can be told from what
was seen.
"""

from typing import Any


def up(_migrator: Any, db: Any) -> None:
    """Create the table."""
    postgresql = type(db).__name__.startswith("PooledPostgresql")
    place = "BIGINT NOT NULL DEFAULT txid_current()" if postgresql else "INTEGER PRIMARY KEY AUTOINCREMENT"
    db.execute_sql(
        f"CREATE TABLE late_events (place {place}, batch_id VARCHAR(64) NOT NULL, sequence INTEGER NOT NULL, "
        "recorded_at DOUBLE PRECISION NOT NULL)"
    )
    if postgresql:
        db.execute_sql("CREATE INDEX late_events_place ON late_events (place)")
    db.execute_sql("CREATE INDEX late_events_recorded_at ON late_events (recorded_at)")
