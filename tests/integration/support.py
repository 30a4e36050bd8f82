"""What the integration tests share: settings for a provider, waiting with a deadline, and judging by the ledger."""

import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

from actors.batch.views import Batch
from actors.service import BatchService
from actors.settings import Settings
from tests.provider.client import Provider

ROOT = Path(__file__).parents[2]
DRIVER = Path(__file__).with_name("driver.py")
PATIENCE = 30.0
"""Seconds that anything may take on a slow machine before a test gives it up."""

QUICK: dict[str, Any] = {
    "sora_poll_interval": 20,
    "sora_settle": 200,
    "sora_listing": "whole",
    "sora_submit_timeout": 5000,
    "progress_interval": 0,
}
"""Milliseconds, so that a test takes a moment and not a minute."""


def options_for(provider_url: str, folder: Path, **changes: Any) -> dict[str, Any]:
    """The settings as JSON knows them: what a driver in another process is given too."""
    here = {
        "openai_base_url": provider_url,
        "database_url": f"sqlite:///{folder}/batches.db",
        "video_dir": str(folder / "videos"),
    }
    return {**QUICK, **here, **changes}


def settings_from(options: dict[str, Any]) -> Settings:
    return Settings(_env_file=None, **options)  # type: ignore[call-arg]


def videos(*prompts: str, **more: Any) -> dict[str, Any]:
    """A request for these prompts."""
    return {"videos": [{"prompt": prompt} for prompt in prompts], **more}


def numbered(count: int, group: str = "a") -> list[str]:
    """Prompts of one group: the provider counts what is in flight for each."""
    return [f"{group}: video {number}" for number in range(1, count + 1)]


def until(holds: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """Ask again and again until the answer is true; return it."""
    pause, deadline = threading.Event(), monotonic() + seconds
    while not (answer := holds()):
        if monotonic() > deadline:
            raise TimeoutError(f"it did not become so within {seconds} s")
        pause.wait(0.01)
    return answer


def job_of(batch: Batch, prompt: str) -> Any:
    return next(job for job in batch.jobs if job.prompt == prompt)


def check_files(batch: Batch, provider: Provider) -> None:
    """Every completed job's file is the one that the provider made, byte for byte."""
    made = {video["id"]: video for video in provider.ledger()["videos"]}
    folders = set()
    for job in batch.jobs:
        if job.status != "completed":
            continue
        path = Path(job.video.path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert digest == job.video.sha256 == made[job.remote_id]["sha256"]
        assert job.prompt == made[job.remote_id]["prompt"]
        folders.add(path.parent)
    assert not [part for folder in folders for part in folder.glob("*.part")]


def check_objects(service: BatchService, batch: Batch, provider: Provider) -> None:
    """Every completed job's object is what the provider made; no other is there, and no file here."""
    made = {video["id"]: video for video in provider.ledger()["videos"]}
    recorded = []
    for job in batch.jobs:
        if job.status == "completed":
            video = job.video
            data = b"".join(service.stores.read(video.uri))
            assert hashlib.sha256(data).hexdigest() == video.sha256 == made[job.remote_id]["sha256"]
            assert (video.path, video.url, video.bytes) == (None, None, len(data))
            assert video.uri.startswith(f"{service.settings.video_store}/{batch.id}/{job.id}-{video.sha256[:8]}")
            recorded.append(video.uri)
    assert service.stores.bucket.uris(batch.id) == sorted(recorded)
    here = service.stores.folder
    assert not here.batch(batch.id).exists() or not list(here.batch(batch.id).iterdir())


def check_journal(service: BatchService, batch_id: str) -> list[str]:
    """The sequence has no gap, and nothing that happens once is told twice; return the names of the events."""
    events = service.history(batch_id)
    assert [int(event.sequence) for event in events] == list(range(1, len(events) + 1))
    once = Counter(
        (event.name, event.subject)
        for event in events
        if event.name not in {"batch.progressed", "batch.updated", "job.progressed", "batch.retried", "job.retried"}
    )
    if "batch.retried" not in {event.name for event in events}:
        assert max(once.values()) == 1, once
    return [event.name for event in events]


def check_paid_once(provider: Provider, *, limit: int | None = None) -> dict[str, Any]:
    """No prompt was paid for twice, and never were more than `limit` videos in the making; return the summary."""
    summary = provider.summary()
    assert set(summary["paid_per_prompt"].values()) <= {1}, summary["paid_per_prompt"]
    assert not summary["paid_twice"]
    if limit is not None:
        assert summary["max_in_flight"] <= limit
    return summary


def rows(folder: Path, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """Look into the SQLite database of `options_for`, as another program would."""
    connection = sqlite3.connect(f"file:{folder}/batches.db?mode=ro", uri=True)
    try:
        return connection.execute(sql, parameters).fetchall()
    finally:
        connection.close()


class Drivers:
    """A process that has the product imported and forks a child for each order: real processes, quickly there."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(DRIVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        self._said: dict[int, deque[dict[str, Any]]] = {}
        """Of each child that has not been seen to end: what it said and nobody heard yet."""

    def start(self, **order: Any) -> int:
        """Start a child; return its pid."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        while "started" not in (told := self._hear()):
            pass
        return int(told["started"])

    def told(self, child: int | None = None) -> dict[str, Any]:
        """The next thing that the child (None: the only one), or its parent about it, says."""
        (pid,) = self._said if child is None else (child,)
        while not self._said[pid]:
            self._hear()
        return self._said[pid].popleft()

    def end(self, child: int | None = None) -> dict[str, Any]:
        """Wait for the child's end: `{ended: its exit code, or minus the signal, said: what it said last}`."""
        (pid,) = self._said if child is None else (child,)
        said: dict[str, Any] = {}
        while "ended" not in (told := self.told(pid)):
            said.update(told)
        del self._said[pid]
        return {**told, "said": said}

    def run(self, **order: Any) -> dict[str, Any]:
        return self.end(self.start(**order))

    def reset(self) -> None:
        """End the children that a failed test has left."""
        for pid in tuple(self._said):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            self.end(pid)

    def close(self) -> None:
        assert self._process.stdin is not None
        with self._process:
            self._process.stdin.close()

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the drivers' parent has died: see its stderr"
        told = dict(json.loads(line))
        if "started" in told:
            self._said.setdefault(told["started"], deque())
        else:
            self._said.setdefault(told.pop("pid"), deque()).append(told)
        return told
