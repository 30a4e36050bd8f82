"""Which ended batches have no files left in which store: the next run of a retention does not look at them again."""

from typing import Any


def up(_migrator: Any, db: Any) -> None:
    """Create the table. It goes with its batch, whichever version deletes that."""
    db.execute_sql(
        "CREATE TABLE files_removed (batch_id TEXT NOT NULL REFERENCES batches (id) ON DELETE CASCADE, "
        "store TEXT NOT NULL, removed_at DOUBLE PRECISION NOT NULL, PRIMARY KEY (batch_id, store))"
    )
