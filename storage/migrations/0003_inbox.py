"""The inbox: the applied commands and their answers."""

from typing import Any

STATEMENTS = """
CREATE TABLE inbox (
    source TEXT NOT NULL, id TEXT NOT NULL, digest VARCHAR(64) NOT NULL, answer TEXT NOT NULL,
    received_at DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (source, id)
);
CREATE INDEX inbox_received ON inbox (received_at)
"""


def up(_migrator: Any, db: Any) -> None:
    """Create the table."""
    for statement in STATEMENTS.split(";"):
        db.execute_sql(statement)
