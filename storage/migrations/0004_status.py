"""An index for lists of the batches of one status: the few that run or failed lie among all that were ever made."""

from typing import Any


def up(_migrator: Any, db: Any) -> None:
    """Create the index."""
    db.execute_sql("CREATE INDEX batches_status ON batches (status, created_at, id)")
