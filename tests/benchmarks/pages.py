"""How long the page takes, how large it is, and what people who watch a running batch cost: `... [WATCHERS]`.

100,000 batches and one of 10,000 videos are looked at; then a batch of 1,000 with 50 in the making is watched, while
another process moves it on. What is counted is the CPU time of the process that answers, nothing else runs in it.
"""

import random
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from actors.service import BatchService
from actors.settings import Settings
from actors.web.listener import Listener
from storage.records import JobRecord
from storage.states import BatchStatus, JobStatus, SubmissionState
from storage.storage import Storage
from tests.builders import NOON, a_batch, a_job, an_event, an_intent, put

_BATCHES, _VIDEOS, _WATCHED, _AT_ONCE = 100_000, 10_000, 1_000, 50
_LOOKS, _SECONDS = 30, 15.0
_PATHS = (
    "/", f"/?after=b{_BATCHES // 2:06}", "/?metadata.team=blue", "/batches/big", "/batches/big?page=166",
    "/batches/big?status=failed&page=50", "/batches/big/jobs/777", "/batches/big/history",
)  # fmt: skip
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_VIDEO = {
    "uri": "file:///films/a.mp4", "path": "/films/a.mp4", "url": None, "bytes": 1_400_000, "sha256": "ab" * 32,
    "content_type": "video/mp4",
}  # fmt: skip
_PROMPT = "A wide valley at dawn, fog, slow push-in, 35 mm, warm light from the left. " * 3


def opened(folder: str) -> BatchService:
    settings = Settings(_env_file=None, database_url=f"sqlite:///{folder}/b.db", video_dir=f"{folder}/videos")
    return BatchService(settings, simulate=True)


def fill(service: BatchService) -> None:
    """Record what is looked at."""

    def write(storage: Storage, first: int) -> None:
        for number in range(first, first + 5000):
            storage.batches.add(
                a_batch(f"b{number:06}", name=f"Batch {number}", metadata={"team": ("blue", "green")[number % 2]},
                        total=5, completed=5, status=BatchStatus.COMPLETED, created_at=NOON + number)
            )  # fmt: skip

    for first in range(0, _BATCHES, 5000):
        service._write(lambda first=first: write(service._storage, first))
    batch = a_batch("big", total=_VIDEOS, completed=5000, failed=4000, status=BatchStatus.PROCESSING, sequence=200)
    events = [
        an_event(each, "big", type="job.completed", key=f"job.completed.big.big-{each}") for each in range(1, 201)
    ]
    service._write(lambda: (put(service._storage, batch, list(jobs())), service._storage.journal.append(events)))
    charge = {"currency": "USD", "charge": "assumed", "reserved_micros": 400_000, "state": SubmissionState.BOUND}
    paid = [an_intent(f"i{job.position}", job, remote_id=f"v{job.position}", **charge) for job in jobs()]
    service._write(lambda: service._storage.submissions.intend(paid))


def jobs() -> Iterator[JobRecord]:
    for number in range(1, _VIDEOS + 1):
        status = JobStatus.COMPLETED if number <= 5000 else JobStatus.FAILED if number <= 9000 else JobStatus.PENDING
        error = {"code": "server_error", "message": "no luck", "retryable": True, "detail": None}
        yield a_job(
            number, "big", prompt=_PROMPT, size="1280x720", model="sora-2-pro", duration=12, status=status,
            video=_VIDEO if status is JobStatus.COMPLETED else None,
            error=error if status is JobStatus.FAILED else None, options={"seed": number, "params": {"fps": 24}},
        )  # fmt: skip


def look(url: str) -> tuple[float, int]:
    """The seconds until an answer is here, and its bytes."""
    request = urllib.request.Request(url, headers={"Accept": "text/html"})
    began = time.perf_counter()
    with _OPENER.open(request) as response:
        body = response.read()
    return time.perf_counter() - began, len(body)


def move(folder: str) -> None:
    """Move the watched batch on, once a second, until this process is ended."""
    with opened(folder) as service:
        while True:
            service._write(lambda: step(service._storage))
            time.sleep(1)


def step(storage: Storage) -> None:
    now, batch = time.time(), storage.batches.get("watched")
    assert batch is not None
    moved = []
    for job in storage.jobs.page("watched", limit=_AT_ONCE, statuses=(JobStatus.GENERATING,)):
        done = len(moved) < 2 and random.random() < 0.5  # noqa: S311
        ended = {"status": JobStatus.COMPLETED, "video": _VIDEO} if done else {}
        moved.append(job._replace(progress=random.randint(0, 99), updated_at=now, **ended))  # noqa: S311
    ended_now = sum(job.status is JobStatus.COMPLETED for job in moved)
    begun = storage.jobs.page("watched", limit=ended_now, statuses=(JobStatus.PENDING,))
    moved += [job._replace(status=JobStatus.GENERATING, updated_at=now) for job in begun]
    storage.jobs.save(moved)
    first = batch.sequence + 1
    storage.journal.append(
        an_event(
            first + number, "watched", type="job.progressed", key=f"job.progressed.watched.{job.id}", body="x" * 900
        )
        for number, job in enumerate(moved)
    )
    after = batch._replace(sequence=batch.sequence + len(moved), completed=batch.completed + ended_now, updated_at=now)
    assert storage.batches.advance(after, epoch=batch.epoch, sequence=batch.sequence)


def watch(port: int, watchers: int) -> None:
    """Read the live stream of the watched batch, many times at once, until this process is ended."""
    selector = selectors.DefaultSelector()
    for _ in range(watchers):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.sendall(b"GET /batches/watched/live?since=%f HTTP/1.1\r\nHost: localhost\r\n\r\n" % time.time())
        selector.register(connection, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            key.fileobj.recv(1 << 20)  # type: ignore[union-attr]


def cpu(seconds: float) -> float:
    """The share of a core that this process uses."""
    used, began = time.process_time(), time.monotonic()
    time.sleep(seconds)
    return (time.process_time() - used) / (time.monotonic() - began)


def main(watchers: int) -> None:
    with tempfile.TemporaryDirectory() as folder, opened(folder) as service:
        fill(service)
        listener = Listener(service, "127.0.0.1:0", None)
        for path in _PATHS:
            looks = [look(listener.url + path) for _ in range(_LOOKS)]
            seconds = [each for each, _ in looks]
            print(
                f"{path:38} {statistics.median(seconds) * 1000:6.1f} ms (at least {min(seconds) * 1000:.1f}), "
                f"{looks[0][1] / 1000:.1f} kB"
            )
        videos = [
            a_job(each, "watched", prompt=_PROMPT, updated_at=time.time(),
                  status=JobStatus.GENERATING if each <= _AT_ONCE else JobStatus.PENDING)
            for each in range(1, _WATCHED + 1)
        ]  # fmt: skip
        batch = a_batch("watched", total=_WATCHED, processing=_AT_ONCE, status=BatchStatus.PROCESSING)
        service._write(lambda: put(service._storage, batch, videos))
        again = [sys.executable, "-m", "tests.benchmarks.pages"]
        others = [
            subprocess.Popen([*again, "move", folder]),
            subprocess.Popen([*again, "watch", str(listener.port), str(watchers)]),
        ]
        try:
            time.sleep(3)
            print(f"{watchers} watchers: {cpu(_SECONDS) * 100:.2f} % of a core")
        finally:
            for other in others:
                other.kill()
                other.wait()
            listener.close()
    static = Path("actors/web/page/static")
    print(f"script and style sheet: {sum(each.stat().st_size for each in static.iterdir()) / 1000:.1f} kB")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["move", where]:
            move(where)
        case ["watch", port, number]:
            watch(int(port), int(number))
        case [number]:
            main(int(number))
        case _:
            main(100)
