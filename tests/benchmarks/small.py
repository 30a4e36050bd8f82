"""What a batch costs beyond its videos: `python -m tests.benchmarks.small [sqlite|postgresql] [batches]`.

Many batches of three in one process, beside one batch of as many videos: processor time, statements and commits.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from actors.service import BatchService
from storage.database import Database
from tests.benchmarks.databases import KINDS, empty_database
from tests.benchmarks.serving import Serving
from tests.benchmarks.sizes import settings
from tests.benchmarks.studio import Options

SIZE, BATCHES, PARALLEL = 3, 1_000, 50


class Counted:
    """Counts what a database is asked for. One at a time."""

    def __init__(self) -> None:
        self.statements: Counter[str] = Counter()
        self.transactions = 0
        execute, begin = Database.execute, Database.begin

        def counted(database: Database, sql: str, parameters: Any = ()) -> Any:
            self.statements[" ".join(sql.split()[:4])] += 1
            return execute(database, sql, parameters)

        def begun(database: Database, **how: bool) -> Any:
            self.transactions += 1
            return begin(database, **how)

        Database.execute, Database.begin = counted, begun  # type: ignore[method-assign]

    def reset(self) -> None:
        self.statements.clear()
        self.transactions = 0


def requests(batches: int, videos: int) -> list[dict[str, Any]]:
    return [{"videos": [{"prompt": f"video {number}"} for number in range(videos)], "concurrency": 150}] * batches


def made(service: BatchService, wanted: list[dict[str, Any]]) -> float:
    """Milliseconds of processor time for all of them."""
    used = time.process_time()
    running = [service.process_batch(service.create_batch(request).id) for request in wanted]
    assert all(each.result().status == "completed" for each in running)
    return 1000 * (time.process_time() - used)


def main() -> int:
    kinds = [word for word in sys.argv[1:] if word in KINDS] or KINDS
    batches = next((int(word) for word in sys.argv[1:] if word.isdecimal()), BATCHES)
    counted = Counted()
    for kind in kinds:
        with (
            empty_database(kind) as database,
            Serving() as server,
            tempfile.TemporaryDirectory() as folder,
            BatchService(settings(server.base_url, database, Path(folder), batch_parallel=PARALLEL)) as service,
        ):
            server.reset(Options(latency=0.0))
            made(service, requests(1, SIZE))
            one = made(service, requests(1, batches * SIZE)) / batches
            counted.reset()
            many = made(service, requests(batches, SIZE)) / batches
        number = sum(counted.statements.values()) / batches
        print(f"{kind}: a batch of {SIZE} takes {many:.1f} ms, {SIZE} videos of a large one {one:.1f} ms; ", end="")
        print(f"{number:.1f} statements and {counted.transactions / batches:.2f} transactions a batch")
        for statement, times in counted.statements.most_common(10):
            print(f"  {times / batches:6.2f} {statement}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
