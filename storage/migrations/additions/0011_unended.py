"""An index of the jobs that have not ended, by status: a scrape counts them among all that were ever made."""

from typing import Any


def up(_migrator: Any, db: Any) -> None:
    """Create the index."""
    db.execute_sql(
        "CREATE INDEX jobs_unended ON jobs (status, created_at) "
        "WHERE status IN ('pending', 'submitting', 'generating', 'downloading')"
    )
