"""What has not ended, counted: quickly, among however many batches have."""

from __future__ import annotations

from dataclasses import dataclass, field

from storage.database import Database
from storage.ledger import Ledger
from storage.servers import OPEN_INTENT
from storage.states import FINAL_BATCH, FINAL_JOB, BatchStatus, JobStatus

# Written out: SQLite finds a partial index by the very words that it was made with, in their order.
_OPEN = "b.status IN ('pending', 'processing') AND b.deleted_at IS NULL"
_JOBS = (
    "SELECT status, COUNT(*), MIN(created_at) FROM jobs "
    "WHERE (status='pending' OR status='submitting' OR status='generating' OR status='downloading') GROUP BY status"
)
_BATCHES = f"SELECT b.status, COUNT(*) FROM batches b WHERE {_OPEN} GROUP BY b.status"
# The range of digests says nothing; it makes SQLite take the index of open intents.
_UNKNOWN = f"SELECT COUNT(*) FROM submissions WHERE digest>'' AND {OPEN_INTENT} AND state<>'intended'"
_OWED = "SELECT COUNT(*) FROM deletes WHERE state IN ('owed', 'out')"
_BEGUN = "SELECT 1 FROM publications WHERE batch_id=''"
_UNPUBLISHED = (
    "SELECT COUNT(*), SUM(CASE WHEN first IS NULL THEN 0 ELSE last-published END), MIN(first) FROM ("
    "SELECT r.last, COALESCE(p.published, 0) AS published, CASE WHEN r.last > COALESCE(p.published, 0) THEN "
    "(SELECT j.created_at FROM journal j WHERE j.batch_id=r.id AND j.sequence > COALESCE(p.published, 0) "
    "ORDER BY j.sequence LIMIT 1) END AS first "
    "FROM ({recorded}) AS r LEFT JOIN publications p ON p.batch_id=r.id) AS unpublished"
)
_OF_OPEN = _UNPUBLISHED.format(recorded=f"SELECT b.id, b.sequence AS last FROM batches b WHERE {_OPEN}")
_OF_DELETED = _UNPUBLISHED.format(
    recorded="SELECT batch_id AS id, deleted AS last FROM publications WHERE deleted IS NOT NULL"
)
_OF_ENDED = _UNPUBLISHED.format(
    recorded="SELECT id, sequence AS last FROM batches WHERE completed_at IS NOT NULL "
    "ORDER BY completed_at DESC LIMIT ? OFFSET ?"
)
_PAGE, _PAGES = 100, 100


@dataclass(frozen=True, slots=True)
class Unfinished:
    """How much of what is recorded has not ended."""

    jobs: dict[str, int]
    """By status; one of which there are none is 0."""
    batches: dict[str, int]
    oldest_pending: float
    """Seconds since the oldest job that is pending was created; 0 without any."""
    unknown_submissions: int
    """POSTs that have ended without an answer that tells, and that nothing has resolved."""
    owed_deletes: int
    outbox_events: int
    """Recorded, and not yet confirmed by RabbitMQ; 0 where events were never published from this database."""
    outbox_lag: float
    """Seconds since the oldest of them was recorded; 0 without any."""
    budgets: dict[str, float] = field(default_factory=dict)
    """How much of the database's budgets is used, by scope: of several in one scope the largest part."""


def count_unfinished(database: Database) -> Unfinished:
    """Count it. Wants a connection; the caller has opened it."""
    jobs = {status: (count, oldest) for status, count, oldest in database.execute(_JOBS).fetchall()}
    batches = dict(database.execute(_BATCHES).fetchall())
    now, oldest_pending = database.time(), jobs.get(JobStatus.PENDING.value, (0, None))[1]
    events, oldest_event = _unpublished(database)
    return Unfinished(
        jobs={status.value: jobs.get(status.value, (0, None))[0] for status in JobStatus if status not in FINAL_JOB},
        batches={status.value: batches.get(status.value, 0) for status in BatchStatus if status not in FINAL_BATCH},
        oldest_pending=_since(oldest_pending, now),
        unknown_submissions=int(database.execute(_UNKNOWN).fetchone()[0]),
        owed_deletes=int(database.execute(_OWED).fetchone()[0]),
        outbox_events=events,
        outbox_lag=_since(oldest_event, now),
        budgets=_used(database),
    )


def _used(database: Database) -> dict[str, float]:
    used: dict[str, float] = {}
    for each in Ledger(database).current():
        used[each.scope] = max(used.get(each.scope, 0.0), each.used_micros / each.ceiling_micros)
    return used


def _since(moment: float | None, now: float) -> float:
    return 0.0 if moment is None else max(0.0, now - moment)


def _unpublished(database: Database) -> tuple[int, float | None]:
    """How many events are unpublished, and when the oldest of them was recorded.

    Of the batches that have ended the newest are looked at, until a page of them is published: events go out in the
    order of their recording, or almost.
    """
    if not database.execute(_BEGUN).fetchall():
        return 0, None
    found = [database.execute(sql).fetchone() for sql in (_OF_OPEN, _OF_DELETED)]
    for page in range(_PAGES):
        found.append(database.execute(_OF_ENDED, (_PAGE, page * _PAGE)).fetchone())
        batches, events, _ = found[-1]
        if batches < _PAGE or not events:
            break
    events = sum(int(events or 0) for _, events, _ in found)
    return events, min((first for _, _, first in found if first is not None), default=None)
