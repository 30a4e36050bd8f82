"""A small batch beside a large one, under SORA_MAX_IN_FLIGHT: `python -m tests.benchmarks.fairness`.

A batch of 3 is started when one of 1,000 has taken all places. Its first video is to start at the next free place,
and the batch to end within 1.5 times what it takes alone.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from actors.batch.views import Batch
from actors.service import BatchService
from tests.benchmarks.databases import KINDS, empty_database
from tests.benchmarks.serving import Serving
from tests.benchmarks.sizes import settings
from tests.benchmarks.studio import Options
from tests.integration.support import until

PLACES, SMALL, LARGE, SECONDS = 20, 3, 1_000, 1.0
ROUNDS = 7
GOAL = 1.5


def request(videos: int) -> dict[str, object]:
    return {"videos": [{"prompt": f"video {number}"} for number in range(videos)], "concurrency": PLACES}


def small(service: BatchService) -> tuple[float, Batch]:
    """Seconds from its start to its end."""
    began = time.perf_counter()
    batch = service.process_batch(service.create_batch(request(SMALL)).id).result()
    return time.perf_counter() - began, batch


def ahead(service: BatchService, large_id: str, batch: Batch) -> int:
    """How many intents of the large one were recorded between the small one's start and its first intent."""
    first = min(entry.intended_at for entry in service.submissions(batch.id))
    assert batch.started_at is not None
    began = batch.started_at.timestamp()
    return sum(began < entry.intended_at < first for entry in service.submissions(large_id))


def completed(service: BatchService, batch_id: str, count: int) -> bool:
    return service.get_batch_status(batch_id).progress.completed >= count


def main() -> int:
    for kind in KINDS:
        with empty_database(kind) as database, Serving() as server, tempfile.TemporaryDirectory() as folder:
            server.reset(Options(latency=SECONDS, spread=0.25))
            given = settings(server.base_url, database, Path(folder), sora_max_in_flight=PLACES, sora_poll_interval=100)
            with BatchService(given) as service:
                small(service)
                alone = statistics.median(small(service)[0] for _ in range(ROUNDS))
                large = service.create_batch(request(LARGE))
                running = service.process_batch(large.id)
                until(partial(completed, service, large.id, 2 * PLACES))
                ended = [small(service) for _ in range(ROUNDS)]
                beside = statistics.median(seconds for seconds, _ in ended)
                passed = max(ahead(service, large.id, batch) for _, batch in ended)
                service.cancel_batch(large.id)
                running.result()
        print(
            f"{kind}: alone {alone:.2f} s, beside {LARGE} {beside:.2f} s: {beside / alone:.2f} x (goal {GOAL}); ",
            end="",
        )
        print(f"{passed} videos of the large one started before its first (at most; goal 0)", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
