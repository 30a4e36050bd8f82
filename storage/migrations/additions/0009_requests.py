"""What else a job asks for, what was made of it, what a batch may use; and which jobs use which stored files."""

from typing import Any

STATEMENTS = """
ALTER TABLE batches ADD COLUMN budget {json};
ALTER TABLE jobs ADD COLUMN options {json};
ALTER TABLE jobs ADD COLUMN made {json};
ALTER TABLE submissions ADD COLUMN told {json};
CREATE TABLE job_files (
    job_id VARCHAR(80) NOT NULL REFERENCES jobs (id) ON DELETE CASCADE, digest VARCHAR(64) NOT NULL,
    PRIMARY KEY (job_id, digest)
);
CREATE INDEX job_files_digest ON job_files (digest)
"""


def up(_migrator: Any, db: Any) -> None:
    """Add the columns and the table."""
    kind = "JSONB" if type(db).__name__.startswith("PooledPostgresql") else "JSON"
    for statement in STATEMENTS.format(json=kind).split(";"):
        db.execute_sql(statement)
