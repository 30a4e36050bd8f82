"""How long it takes to cancel a batch whose videos are all in flight: `python -m tests.benchmarks.cancel [count ...]`.

On SQLite and on PostgreSQL, each of its own on this machine. The promise: within a second, from any process.
"""

from __future__ import annotations

import statistics
import sys
import time

from actors.service import BatchService
from actors.settings import Settings
from storage.database import Database
from storage.storage import Storage
from tests.benchmarks.crowd import flying
from tests.benchmarks.databases import KINDS, empty_database

COUNTS = (10, 1_000, 10_000)
ROUNDS = 5


def cancelled_in(url: str, count: int, number: int) -> tuple[float, float]:
    """Seconds, and those of them that this process has used the processor for."""
    batch_id = f"flying-{count}-{number}"
    database = Database(url)
    database.open()
    with database.connection():
        flying(Storage(database), batch_id, count)
    database.close()
    with BatchService(Settings(_env_file=None, openai_base_url=None, database_url=url)) as service:  # type: ignore[call-arg]
        began, used = time.perf_counter(), time.process_time()
        summary = service.cancel_batch(batch_id)
        took = time.perf_counter() - began, time.process_time() - used
    assert summary.cancelled == len(summary.may_be_charged) == count
    return took


def main() -> int:
    counts = [int(word) for word in sys.argv[1:]] or COUNTS
    for kind in KINDS:
        with empty_database(kind) as url:
            for count in counts:
                took = [cancelled_in(url, count, number) for number in range(ROUNDS)]
                wall = [1000 * seconds for seconds, _ in took]
                used = statistics.median(1000 * seconds for _, seconds in took)
                told = (
                    f"{statistics.median(wall):7.0f} ms ({min(wall):.0f} to {max(wall):.0f}), processor {used:.0f} ms"
                )
                print(f"{kind:<11} {count:>6} in flight  {told:<46} goal 1,000 ms", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
