"""Whether a command asked for a batch that was queued already: then its first asker can't un-queue it."""

from typing import Any


def up(_migrator: Any, db: Any) -> None:
    """Add the column."""
    db.execute_sql("ALTER TABLE batches ADD COLUMN asked_again BOOLEAN NOT NULL DEFAULT FALSE")
