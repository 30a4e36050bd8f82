"""The DELETEs owed after cancellations, and their outcomes."""

from typing import Any

STATEMENTS = """
CREATE TABLE deletes (
    submission_id VARCHAR(64) PRIMARY KEY, batch_id VARCHAR(64) NOT NULL, state VARCHAR(16) NOT NULL,
    owed_at DOUBLE PRECISION NOT NULL, due_at DOUBLE PRECISION NOT NULL, tried_at DOUBLE PRECISION,
    tries INTEGER NOT NULL, own_key BOOLEAN NOT NULL, answer TEXT
);
CREATE INDEX deletes_open ON deletes (due_at) WHERE state IN ('owed', 'out');
CREATE INDEX deletes_batch ON deletes (batch_id)
"""


def up(_migrator: Any, db: Any) -> None:
    """Create the table."""
    for statement in STATEMENTS.split(";"):
        db.execute_sql(statement)
