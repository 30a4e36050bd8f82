"""Since when a large batch is being deleted in pieces; and indexes to find the users of an input reference."""

from typing import Any

STATEMENTS = """
ALTER TABLE batches ADD COLUMN deleted_at DOUBLE PRECISION;
CREATE INDEX batches_deleted ON batches (deleted_at) WHERE deleted_at IS NOT NULL;
CREATE INDEX jobs_reference ON jobs ({digest}) WHERE reference IS NOT NULL
"""


def up(_migrator: Any, db: Any) -> None:
    """Add the column and the indexes."""
    postgresql = type(db).__name__.startswith("PooledPostgresql")
    digest = "(reference ->> 'digest')" if postgresql else "json_extract(reference, '$.digest')"
    for statement in STATEMENTS.format(digest=digest).split(";"):
        db.execute_sql(statement)
