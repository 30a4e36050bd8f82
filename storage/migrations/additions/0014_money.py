"""What each submission costs, the budgets that it counts against, and the ceilings of the whole database.

Amounts are millionths: of a unit of a currency, of a second, of a video.
"""

from typing import Any

STATEMENTS = """
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


def up(_migrator: Any, db: Any) -> None:
    """Add the columns and the tables, and fill in what is known of earlier submissions."""
    postgresql = type(db).__name__.startswith("PooledPostgresql")
    of_postgresql = "to_char(to_timestamp(intended_at) AT TIME ZONE 'UTC', 'YYYY-MM-DD')"
    day = of_postgresql if postgresql else "strftime('%Y-%m-%d', intended_at, 'unixepoch')"
    for statement in STATEMENTS.format(json="JSONB" if postgresql else "JSON", day=day).split(";"):
        db.execute_sql(statement)
