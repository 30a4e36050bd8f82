"""Indexes of the few submissions that a report of costs looks for: of no recorded charge, and flagged ones."""

from typing import Any


def up(_migrator: Any, db: Any) -> None:
    """Add the indexes."""
    db.execute_sql("CREATE INDEX submissions_uncharged ON submissions (batch_id) WHERE charge IS NULL")
    db.execute_sql("CREATE INDEX submissions_doubted ON submissions (intended_at) WHERE doubt IS NOT NULL")
