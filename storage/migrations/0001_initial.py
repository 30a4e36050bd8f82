"""The first schema. Plain SQL: a migration must keep meaning what it meant, whatever the models become.

Submissions and the journal have no foreign key: what was paid for, and what is to be told, outlive their batch.
"""

from typing import Any

STATEMENTS = """
CREATE TABLE owners (
    id VARCHAR(64) PRIMARY KEY, host TEXT NOT NULL, boot TEXT NOT NULL, pid INTEGER NOT NULL,
    started TEXT NOT NULL, lease_until DOUBLE PRECISION NOT NULL
);
CREATE TABLE batches (
    id VARCHAR(64) PRIMARY KEY, name TEXT, metadata {json} NOT NULL, status VARCHAR(16) NOT NULL,
    concurrency INTEGER NOT NULL, timeout DOUBLE PRECISION NOT NULL, digest VARCHAR(64) NOT NULL, provider TEXT,
    total INTEGER NOT NULL, completed INTEGER NOT NULL, failed INTEGER NOT NULL, cancelled INTEGER NOT NULL,
    processing INTEGER NOT NULL, error {json}, sequence INTEGER NOT NULL, epoch INTEGER NOT NULL,
    owner VARCHAR(64), wanted BOOLEAN NOT NULL, claims INTEGER NOT NULL, spent DOUBLE PRECISION NOT NULL,
    created_at DOUBLE PRECISION NOT NULL, updated_at DOUBLE PRECISION NOT NULL,
    started_at DOUBLE PRECISION, completed_at DOUBLE PRECISION
);
CREATE INDEX batches_created ON batches (created_at, id);
CREATE INDEX batches_open ON batches (created_at) WHERE status IN ('pending', 'processing');
CREATE TABLE jobs (
    id VARCHAR(80) PRIMARY KEY, batch_id VARCHAR(64) NOT NULL REFERENCES batches (id) ON DELETE CASCADE,
    position INTEGER NOT NULL, status VARCHAR(16) NOT NULL, prompt TEXT NOT NULL, duration INTEGER, model TEXT,
    size VARCHAR(16), reference {json}, metadata {json} NOT NULL, remote_id TEXT, progress INTEGER NOT NULL,
    attempts INTEGER NOT NULL, error {json}, video {json}, created_at DOUBLE PRECISION NOT NULL,
    updated_at DOUBLE PRECISION NOT NULL, started_at DOUBLE PRECISION, completed_at DOUBLE PRECISION
);
CREATE UNIQUE INDEX jobs_position ON jobs (batch_id, position);
CREATE TABLE submissions (
    id VARCHAR(64) PRIMARY KEY, job_id VARCHAR(80) NOT NULL, batch_id VARCHAR(64) NOT NULL,
    attempt INTEGER NOT NULL, digest VARCHAR(64) NOT NULL, provider TEXT NOT NULL, sender VARCHAR(64) NOT NULL,
    intended_at DOUBLE PRECISION NOT NULL, state VARCHAR(16) NOT NULL,
    remote_id TEXT, adopted BOOLEAN NOT NULL, closed_at DOUBLE PRECISION, note TEXT
);
CREATE UNIQUE INDEX submissions_remote ON submissions (provider, remote_id);
CREATE UNIQUE INDEX submissions_live ON submissions (job_id) WHERE state IN ('intended', 'unknown', 'clashed', 'bound');
CREATE INDEX submissions_unresolved ON submissions (provider, digest) WHERE state IN ('intended', 'unknown', 'clashed');
CREATE INDEX submissions_batch ON submissions (batch_id);
CREATE TABLE journal (
    batch_id VARCHAR(64) NOT NULL, sequence INTEGER NOT NULL, type VARCHAR(64) NOT NULL, key TEXT NOT NULL,
    body TEXT NOT NULL, created_at DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (batch_id, sequence)
);
CREATE TABLE input_references (
    digest VARCHAR(64) PRIMARY KEY, name TEXT NOT NULL, content_type VARCHAR(64) NOT NULL, data {blob} NOT NULL
)
"""


def up(_migrator: Any, db: Any) -> None:
    """Create the tables."""
    postgresql = type(db).__name__.startswith("PooledPostgresql")
    kinds = {"json": "JSONB" if postgresql else "JSON", "blob": "BYTEA" if postgresql else "BLOB"}
    for statement in STATEMENTS.format(**kinds).split(";"):
        db.execute_sql(statement)
