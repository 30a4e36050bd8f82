"""What a video costs in batches of different sizes: `python -m tests.benchmarks.sizes [sqlite|postgresql]`.

A fast server that has each video ready at once; the processor time of this process, its start excluded.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

from actors.service import BatchService
from actors.settings import Settings
from tests.benchmarks.databases import empty_database
from tests.benchmarks.serving import Serving
from tests.benchmarks.studio import Options

SMALL, LARGE, CONCURRENCY = 100, 10_000, 50
LIMIT = 1.2


def settings(url: str, database: str, folder: Path, **more: int) -> Settings:
    given = {"sora_poll_interval": 10, "batch_max_size": 10_000, **more}
    return Settings(_env_file=None, openai_base_url=url, database_url=database, video_dir=str(folder), **given)  # type: ignore[arg-type, call-arg]


def cost(service: BatchService, videos: int) -> float:
    """Milliseconds of processor time a video."""
    request = {"videos": [{"prompt": f"video {number}"} for number in range(videos)], "concurrency": CONCURRENCY}
    used = time.process_time()
    batch = service.process_batch(service.create_batch(request).id).result()
    assert batch.progress.completed == videos
    return 1000 * (time.process_time() - used) / videos


def main() -> int:
    kind = sys.argv[1] if len(sys.argv) > 1 else "sqlite"
    with empty_database(kind) as database, Serving() as server, tempfile.TemporaryDirectory() as folder:
        server.reset(Options(latency=0.0))
        with BatchService(settings(server.base_url, database, Path(folder))) as service:
            cost(service, SMALL)
            small = statistics.median(cost(service, SMALL) for _ in range(15))
            large = cost(service, LARGE)
            again = statistics.median(cost(service, SMALL) for _ in range(15))
        base = (small + again) / 2
        print(f"{kind}: a video in a batch of {SMALL} {small:.2f} ms before and {again:.2f} ms after, ", end="")
        print(f"in one of {LARGE} {large:.2f} ms: {large / base:.2f} x (goal {LIMIT})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
