"""How long a report of costs takes over 1,000,000 submissions of 10,000 batches, on both databases.

`python -m tests.benchmarks.costs [SUBMISSIONS]` prints the fastest of three (of seven, for the current day).
"""

import sys
import time

from actors.batch.costs import CostReport
from storage.database import Database
from storage.storage import Storage
from tests.benchmarks.databases import KINDS, empty_database
from tests.builders import a_batch, a_job, an_intent, put

_GROUPS = (None, "day", "model", "batch", "metadata.team")
_EACH = 30.0
"""Seconds between two submissions: 347 days in all."""
Columns = dict[str, str]


def fill(database: Database, count: int) -> None:
    """Copy one batch, one job and one submission many times, in SQL."""
    storage = Storage(database)
    with database.begin():
        put(storage, a_batch("model"), [a_job(1, "model")])
        storage.submissions.intend([an_intent("model", a_job(1, "model"))])
    pg, now = database.postgresql, database.now()
    at = f"({now}-({count}-n)*{_EACH})"
    day = f"to_char(to_timestamp({at}) AT TIME ZONE 'UTC', 'YYYY-MM-DD')" if pg else f"date({at}, 'unixepoch')"
    document = "({})::jsonb" if pg else "{}"
    owned = {"id": "'batch-' || (n/100) || '-' || (n%100)", "batch_id": "'batch-' || (n/100)"}
    copies: dict[str, Columns] = {
        "batches": {"id": "'batch-' || n", "metadata": document.format("""'{"team": "t' || (n%7) || '"}'""")},
        "jobs": owned
        | {
            "metadata": document.format("""CASE WHEN n%3=0 THEN '{"team": "lake"}' ELSE '{}' END"""),
            "position": "n%100",
        },
        "submissions": {
            "id": "md5(n::text)" if pg else "lower(hex(randomblob(16)))", "job_id": owned["id"],
            "batch_id": owned["batch_id"], "intended_at": at, "day": day, "remote_id": "'video_' || n",
            "state": "'bound'", "model": "CASE WHEN n%3=0 THEN 'sora-2' ELSE 'sora-2-pro' END", "seconds": "8",
            "charge": "CASE WHEN n%10=0 THEN 'released' WHEN n%2=0 THEN 'charged' ELSE 'assumed' END",
            "currency": "'USD'", "reserved_micros": "400000",
            "charged_micros": "CASE WHEN n%2=0 AND n%10<>0 THEN 399999 END",
            "charged_rest": "CASE WHEN n%2=0 AND n%10<>0 THEN 123 END",
        },
    }  # fmt: skip
    for table, columns in copies.items():
        _copy(database, table, columns, count // 100 if table == "batches" else count)


def _copy(database: Database, table: str, columns: Columns, count: int) -> None:
    numbers = f"generate_series(0, {count - 1}) AS g(n)"
    if not database.postgresql:
        numbers = f"(WITH RECURSIVE c(n) AS (SELECT 0 UNION ALL SELECT n+1 FROM c WHERE n<{count - 1}) SELECT n FROM c)"  # noqa: S608
    names = [column.name for column in database.peewee.get_columns(table)]
    chosen = ", ".join(columns.get(name, f"t.{name}") for name in names)
    sql = f"INSERT INTO {table} ({', '.join(names)}) SELECT {chosen} FROM {table} t, {numbers} WHERE "  # noqa: S608
    with database.begin():
        database.execute((sql + "t.id LIKE 'model%'").replace("%", "%%" if database.postgresql else "%"))
    database.execute(f"ANALYZE {table}")


def measure(database: Database) -> None:
    """Print how long each report takes: its query and its sums."""
    storage = Storage(database)
    now = database.now()
    for since, times in ((None, 3), (now - now % 86_400, 7)):
        for by in _GROUPS:
            spans = []
            for _ in range(times):
                began = time.perf_counter()
                report = CostReport.of(storage.costs.by(by, since), by, since, [], storage.costs.flagged(since))
                spans.append(time.perf_counter() - began)
            which = "all" if since is None else "the current day"
            print(f"{which}, by {by}: {min(spans) * 1000:.1f} ms; {report.submissions} submissions", flush=True)


def _run(url: str, count: int) -> None:
    database = Database(url)
    database.open()
    with database.connection():
        fill(database, count)
        measure(database)
    database.close()


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    for kind in KINDS:
        with empty_database(kind) as url:
            print(kind, flush=True)
            _run(url, count)


if __name__ == "__main__":
    main()
