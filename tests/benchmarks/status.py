"""What reads cost where there are a million videos: `python -m tests.benchmarks.status [sqlite|postgresql] [jobs ...]`.

Fills a database with batches of ten and measures what is read often: a batch's status, what a dispatcher and a
publisher look for, lists. Prints how the database finds the rows: a scan of a whole table would be seen there.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from actors.service import BatchService
from actors.settings import Settings
from storage.database import Database
from storage.states import BatchStatus
from storage.storage import Storage
from tests.benchmarks.crowd import fill
from tests.benchmarks.databases import KINDS, empty_database
from tests.builders import NOON, PROVIDER

FEW, MANY, READS = 10_000, 1_000_000, 1000
GOAL = 5.0


def milliseconds(read: Callable[[], object], times: int) -> list[float]:
    took = []
    for _ in range(times):
        began = time.perf_counter()
        read()
        took.append(1000 * (time.perf_counter() - began))
    return sorted(took)


def looks(storage: Storage, ids: list[str]) -> dict[str, Callable[[], object]]:
    """The reads that happen often, or while everything else waits."""
    batches, submissions, publications = storage.batches, storage.submissions, storage.publications
    some = random.sample(ids, 50)
    page = ids[len(ids) // 2]
    return {
        "standings of 50": lambda: batches.standings(some),
        "wanted": lambda: batches.wanted(PROVIDER, owner="us", limit=10),
        "unfinished": lambda: batches.unfinished(PROVIDER),
        "list": batches.find,
        "list, a page within": lambda: batches.find(after=page),
        "list of the cancelled": lambda: batches.find(status=BatchStatus.CANCELLED),
        "list of those in hand": lambda: batches.find(status=BatchStatus.PROCESSING),
        "live tries of a batch": lambda: submissions.live_of_batch(some[0]),
        "tries of a batch": lambda: submissions.of_batch(some[0]),
        "open tries of a request": lambda: submissions.unresolved(PROVIDER, "digest"),
        "open tries of others": lambda: submissions.unresolved_others(PROVIDER, "digest"),
        "ever made a video": lambda: submissions.made_any(PROVIDER),
        "50 held videos": lambda: submissions.held(PROVIDER, [f"video_{each}-01" for each in some]),
        "journal of a batch": lambda: storage.journal.read(some[0]),
        "neighbours": lambda: storage.owners.neighbours("here", "today"),
        "unpublished, each second": lambda: publications.behind(recorded_before=NOON, ended_after=NOON),
        "unpublished, at the start": lambda: publications.behind(recorded_before=NOON, ended_after=0.0),
    }


def plan(database: Database, read: Callable[[], object]) -> str:
    """How the database finds the rows of the first statement of a read."""
    seen: list[tuple[str, Any]] = []
    execute = database.peewee.execute_sql

    def note(sql: str, parameters: Any = None) -> Any:
        seen.append((sql, parameters))
        return execute(sql, parameters)

    database.peewee.execute_sql = note
    try:
        read()
    finally:
        database.peewee.execute_sql = execute
    sql, parameters = seen[0]
    lines = execute(f"EXPLAIN {'' if database.postgresql else 'QUERY PLAN '}{sql}", parameters).fetchall()
    words = (str(line[0 if database.postgresql else 3]).strip().removeprefix("->  ") for line in lines)
    steps = [step.split("  (")[0] for step in words if "Scan" in step or "SCAN" in step or "SEARCH" in step]
    return "; ".join(steps)


def measure(url: str, jobs: int, *, plans: bool) -> float:
    """Fill up to so many videos, print what reads cost, and give the median of a status."""
    database = Database(url)
    database.open()
    with database.connection():
        storage = Storage(database)
        began = time.perf_counter()
        ids = fill(storage, jobs, storage.database.execute("SELECT COUNT(*) FROM jobs").fetchone()[0])
        # What years leave time for: statistics and checkpoints are not what is measured.
        for words in ("VACUUM ANALYZE", "CHECKPOINT") if database.postgresql else ("PRAGMA wal_checkpoint(TRUNCATE)",):
            database.execute(words).close()
        print(f"  {jobs:,} videos, {time.perf_counter() - began:.0f} s to fill", flush=True)
        with BatchService(Settings(_env_file=None, database_url=url)) as service:  # type: ignore[call-arg]
            service.get_batch_status(ids[0])
            chance = iter(random.choices(ids, k=READS))  # noqa: S311
            took = milliseconds(lambda: service.get_batch_status(next(chance)), READS)
        most = took[int(READS * 0.99) - 1]
        print(f"    {'status':<26} median {statistics.median(took):6.2f} ms, 99 % below {most:6.2f} (goal {GOAL:g})")
        for name, read in looks(storage, ids).items():
            read()
            spent = milliseconds(read, 15)
            told = f"    {name:<26} median {statistics.median(spent):6.2f} ms, at most {spent[-1]:8.2f}"
            print(told + (f"  {plan(database, read)}" if plans else ""), flush=True)
    database.close()
    return statistics.median(took)


def main() -> int:
    kinds = [word for word in sys.argv[1:] if word in KINDS] or KINDS
    few, many = [int(word) for word in sys.argv[1:] if word.isdecimal()] or (FEW, MANY)
    for kind in kinds:
        print(kind)
        with empty_database(kind) as url:
            small = measure(url, few, plans=False)
            large = measure(url, many, plans=True)
            print(f"  a status among {many:,} takes {large / small:.2f} x as long as among {few:,}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
