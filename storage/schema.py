"""The schema, as the steps that make it, in plain SQL.

A step keeps meaning what it meant, whatever becomes of the records. It only adds, or makes an index anew: the version
before goes on working beside a database that has it.
"""

from __future__ import annotations

INITIAL, ADDITIONS = "schema_migration", "schema_addition"
"""The tables in which is noted what was applied. A version opens a database only if it knows everything in the first
one; what the second one has (tables, columns with a default, indexes) need not be known."""

# What differs between SQLite and PostgreSQL is in braces; `storage/migrations.py` fills it in.
STEPS: dict[str, dict[str, str]] = {INITIAL: {}, ADDITIONS: {}}

# Submissions and the journal have no foreign key: what was paid for, and what is to be told, outlive their batch.
STEPS[INITIAL]["0001_initial"] = """
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

# How far each batch's journal has been published.
STEPS[INITIAL]["0002_publication"] = """
CREATE TABLE publications (
    batch_id VARCHAR(64) PRIMARY KEY, published INTEGER NOT NULL, skipped BOOLEAN NOT NULL, deleted INTEGER
);
CREATE INDEX publications_deleted ON publications (deleted) WHERE deleted IS NOT NULL;
CREATE INDEX batches_completed ON batches (completed_at)
"""

# The applied commands and their answers.
STEPS[INITIAL]["0003_inbox"] = """
CREATE TABLE inbox (
    source TEXT NOT NULL, id TEXT NOT NULL, digest VARCHAR(64) NOT NULL, answer TEXT NOT NULL,
    received_at DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (source, id)
);
CREATE INDEX inbox_received ON inbox (received_at)
"""

# For lists of the batches of one status: the few that run or failed lie among all that were ever made.
STEPS[INITIAL]["0004_status"] = "CREATE INDEX batches_status ON batches (status, created_at, id)"

# Which server made what, apart from the key that it was asked with (`provider` has both in one text, as the version
# before knows it); what a POST met; what is known of a server.
STEPS[ADDITIONS]["0005_servers"] = """
ALTER TABLE batches ADD COLUMN server TEXT;
ALTER TABLE submissions ADD COLUMN server TEXT;
ALTER TABLE submissions ADD COLUMN key_fingerprint VARCHAR(16);
ALTER TABLE submissions ADD COLUMN met TEXT;
ALTER TABLE submissions ADD COLUMN timed_out BOOLEAN;
ALTER TABLE submissions ADD COLUMN former_remote_id TEXT;
CREATE TABLE servers (
    server TEXT PRIMARY KEY, reuses_ids BOOLEAN NOT NULL DEFAULT FALSE,
    deletes_only_records BOOLEAN NOT NULL DEFAULT FALSE
);
CREATE INDEX submissions_server ON submissions (server, remote_id);
CREATE INDEX submissions_open ON submissions (server, digest) WHERE state IN ('intended', 'unknown', 'clashed')
"""

# The DELETEs owed after cancellations, and their outcomes.
STEPS[ADDITIONS]["0006_deletes"] = """
CREATE TABLE deletes (
    submission_id VARCHAR(64) PRIMARY KEY, batch_id VARCHAR(64) NOT NULL, state VARCHAR(16) NOT NULL,
    owed_at DOUBLE PRECISION NOT NULL, due_at DOUBLE PRECISION NOT NULL, tried_at DOUBLE PRECISION,
    tries INTEGER NOT NULL, own_key BOOLEAN NOT NULL, answer TEXT
);
CREATE INDEX deletes_open ON deletes (due_at) WHERE state IN ('owed', 'out');
CREATE INDEX deletes_batch ON deletes (batch_id)
"""

# Since when a large batch is being deleted in pieces; and an index to find the users of an input reference.
STEPS[ADDITIONS]["0008_deletions"] = """
ALTER TABLE batches ADD COLUMN deleted_at DOUBLE PRECISION;
CREATE INDEX batches_deleted ON batches (deleted_at) WHERE deleted_at IS NOT NULL;
CREATE INDEX jobs_reference ON jobs ({reference_digest}) WHERE reference IS NOT NULL
"""

# What else a job asks for, what was made of it, what a batch may use; and which jobs use which stored files.
STEPS[ADDITIONS]["0009_requests"] = """
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

# The trace that a batch belongs to: `traceparent` and `tracestate` of the command that it came with.
STEPS[ADDITIONS]["0010_traces"] = "ALTER TABLE batches ADD COLUMN trace {json}"

# The jobs that have not ended: a scrape counts them among all that were ever made.
STEPS[ADDITIONS]["0011_unended"] = """
CREATE INDEX jobs_unended ON jobs (status, created_at)
WHERE status IN ('pending', 'submitting', 'generating', 'downloading')
"""

# The objects that are to be removed from buckets, this database's identity, and where its processes put files.
STEPS[ADDITIONS]["0012_stores"] = """
CREATE TABLE doomed (uri TEXT PRIMARY KEY, batch_id TEXT NOT NULL, doomed_at DOUBLE PRECISION NOT NULL);
CREATE INDEX doomed_batch ON doomed (batch_id);
CREATE TABLE identity (name TEXT PRIMARY KEY, value TEXT NOT NULL);
INSERT INTO identity (name, value) VALUES ('database', '{new_id}');
CREATE TABLE owner_stores (owner TEXT PRIMARY KEY, store TEXT NOT NULL, place TEXT NOT NULL)
"""

# Which ended batches have no files left in which store: the next run of a retention does not look at them again.
# It goes with its batch, whichever version deletes that.
STEPS[ADDITIONS]["0013_retention"] = """
CREATE TABLE files_removed (
    batch_id TEXT NOT NULL REFERENCES batches (id) ON DELETE CASCADE, store TEXT NOT NULL,
    removed_at DOUBLE PRECISION NOT NULL, PRIMARY KEY (batch_id, store)
)
"""

# What each submission costs, the budgets that it counts against, and the ceilings of the whole database. Amounts are
# millionths: of a unit of a currency, of a second, of a video.
STEPS[ADDITIONS]["0014_money"] = """
ALTER TABLE submissions ADD COLUMN model TEXT;
ALTER TABLE submissions ADD COLUMN seconds INTEGER;
ALTER TABLE submissions ADD COLUMN day VARCHAR(10);
ALTER TABLE submissions ADD COLUMN charge VARCHAR(16);
ALTER TABLE submissions ADD COLUMN currency VARCHAR(3);
ALTER TABLE submissions ADD COLUMN reserved_micros BIGINT;
ALTER TABLE submissions ADD COLUMN charged_micros BIGINT;
ALTER TABLE submissions ADD COLUMN charged_rest BIGINT;
ALTER TABLE submissions ADD COLUMN rate {json};
ALTER TABLE submissions ADD COLUMN doubt TEXT;
ALTER TABLE submissions ADD COLUMN settled_by TEXT;
UPDATE submissions SET day={day},
    charge=CASE WHEN state IN ('not_sent', 'refused', 'absent') THEN 'released'
                WHEN state IN ('bound', 'failed', 'deleted', 'surplus') OR remote_id IS NOT NULL THEN 'assumed'
                ELSE 'reserved' END,
    model=(SELECT j.model FROM jobs j WHERE j.id=submissions.job_id),
    seconds=(SELECT j.duration FROM jobs j WHERE j.id=submissions.job_id);
CREATE INDEX submissions_ledger ON submissions (
    day, model, currency, charge, reserved_micros, charged_micros, charged_rest
);
CREATE TABLE ceilings (
    scope VARCHAR(8) NOT NULL, unit VARCHAR(16) NOT NULL, ceiling_micros BIGINT, version INTEGER NOT NULL,
    set_by TEXT NOT NULL, set_at DOUBLE PRECISION NOT NULL, PRIMARY KEY (scope, unit)
);
CREATE TABLE budgets (
    scope VARCHAR(8) NOT NULL, period VARCHAR(64) NOT NULL, unit VARCHAR(16) NOT NULL,
    ceiling_micros BIGINT NOT NULL, used_micros BIGINT NOT NULL, PRIMARY KEY (scope, period, unit)
)
"""

# Whether a command asked for a batch that was queued already: then its first asker can't un-queue it.
STEPS[ADDITIONS]["0019_asked_again"] = "ALTER TABLE batches ADD COLUMN asked_again BOOLEAN NOT NULL DEFAULT FALSE"

# The few submissions that a report of costs looks for: of no recorded charge, and flagged ones.
STEPS[ADDITIONS]["0020_costs"] = """
CREATE INDEX submissions_uncharged ON submissions (batch_id) WHERE charge IS NULL;
CREATE INDEX submissions_doubted ON submissions (intended_at) WHERE doubt IS NOT NULL
"""

# Which events were recorded of batches that may have ended: who follows all batches finds them here. They are few, and
# nothing is written here while videos are made. On PostgreSQL `place` is the transaction's number, on SQLite, where one
# transaction writes at a time, that of the row: in either case what commits later can be told from what was seen.
STEPS[ADDITIONS]["0022_late_events"] = """
CREATE TABLE late_events (
    place {place}, batch_id VARCHAR(64) NOT NULL, sequence INTEGER NOT NULL, recorded_at DOUBLE PRECISION NOT NULL
);
{place_index};
CREATE INDEX late_events_recorded_at ON late_events (recorded_at)
"""

# The conditions of these indexes again, as comparisons: for a list of more than two values behind IN, SQLite fills a
# temporary table in every statement that writes a row.
STEPS[ADDITIONS]["0025_conditions"] = """
DROP INDEX submissions_live;
CREATE UNIQUE INDEX submissions_live ON submissions (job_id)
WHERE (state='intended' OR state='unknown' OR state='clashed' OR state='bound');
DROP INDEX submissions_open;
CREATE INDEX submissions_open ON submissions (server, digest)
WHERE (state='intended' OR state='unknown' OR state='clashed');
DROP INDEX jobs_unended;
CREATE INDEX jobs_unended ON jobs (status, created_at)
WHERE (status='pending' OR status='submitting' OR status='generating' OR status='downloading')
"""
STEPS[ADDITIONS]["0026_unused"] = "DROP INDEX submissions_unresolved"

OF_SQLITE = frozenset({"0025_conditions"})
"""The steps that do nothing on PostgreSQL: it finds a partial index by what a condition means, not by its words."""
