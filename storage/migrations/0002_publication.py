"""How far each batch's journal has been published."""

from typing import Any

STATEMENTS = """
CREATE TABLE publications (
    batch_id VARCHAR(64) PRIMARY KEY, published INTEGER NOT NULL, skipped BOOLEAN NOT NULL, deleted INTEGER
);
CREATE INDEX publications_deleted ON publications (deleted) WHERE deleted IS NOT NULL;
CREATE INDEX batches_completed ON batches (completed_at)
"""


def up(_migrator: Any, db: Any) -> None:
    """Create the table of watermarks, and an index to find recently ended batches."""
    for statement in STATEMENTS.split(";"):
        db.execute_sql(statement)
