"""Kills the process that makes batches, at random, as often as asked, while the server misbehaves at random.

`python -m tests.chaos.kills --kills 1000 --seed 1` prints a report, and ends with 1 if anything was lost or paid
twice. Each round makes a batch of ten with a database of its own; its process is killed (SIGKILL) at random moments and
started again, and in the end another one finishes it. Judged by the ledger of a server that shares no code with us.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from actors.batch.views import Batch
from actors.service import BatchService
from tests.chaos.command import concluded, counted, wanted
from tests.integration.support import (
    PATIENCE,
    Drivers,
    check_files,
    check_journal,
    check_paid_once,
    numbered,
    options_for,
    settings_from,
    videos,
)
from tests.provider.client import Provider
from tests.provider.options import Options

VIDEOS, CONCURRENCY, MOST_KILLS = 10, 3, 12
LATENCY = (0.1, 0.4)
FAULTS: list[dict[str, Any]] = [
    {"on": "create", "do": "lose_response"},
    {"on": "create", "do": "lose_request"},
    {"on": "create", "do": "reset", "accept": True},
    {"on": "create", "do": "hang", "accept": True, "seconds": 0.3, "then": "close"},
    {"on": "create", "do": "answer", "status": 429, "headers": {"Retry-After": "1"}},
    {"on": "create", "do": "answer", "status": 503},
    {"on": "retrieve", "do": "answer", "status": 500},
    {"on": "retrieve", "do": "reset"},
    {"on": "content", "do": "short"},
    {"on": "content", "do": "reset"},
    {"on": "list", "do": "answer", "status": 503},
    {"on": "list", "do": "answer", "lag": 0.1},
]


@dataclass
class Report:
    """What happened."""

    seed: int
    rounds: int = 0
    kills: int = 0
    videos: int = 0
    states: Counter[str] = field(default_factory=Counter)
    """Of the videos at the end: a state, or the code of the error."""
    wrong: list[str] = field(default_factory=list)
    """Rounds in which something was lost or paid twice, and what."""


def kill_at_random(seed: int, kills: int, provider: Provider, drivers: Drivers) -> Report:
    """Go on until so many processes were killed."""
    report, chance = Report(seed), random.Random(seed)  # noqa: S311  (to be repeatable)
    while report.kills < kills:
        with tempfile.TemporaryDirectory() as folder:
            try:
                _round(
                    report, chance, min(kills - report.kills, chance.randint(1, MOST_KILLS)), provider, drivers, folder
                )
            except (AssertionError, TimeoutError) as error:
                report.wrong.append(f"round {report.rounds}: {type(error).__name__}: {error}")
                drivers.reset()
    return report


def _round(report: Report, chance: random.Random, kills: int, provider: Provider, drivers: Drivers, folder: str) -> None:  # fmt: skip
    report.rounds += 1
    provider.reset()
    provider.options(**asdict(Options()) | {"latency": LATENCY})
    for fault in chance.sample(FAULTS, k=3):
        provider.fault(**fault, skip=chance.randint(0, 8), times=chance.randint(1, 3))
    options = options_for(provider.base_url, Path(folder), sora_submit_timeout=1500)
    request = videos(*numbered(VIDEOS), id="batch-a", concurrency=CONCURRENCY)
    for _ in range(kills):
        pid = drivers.start(options=options, request=request)
        with suppress(TimeoutError):  # what it would wait for never comes: it is how a moment passes
            provider.wait(timeout=chance.uniform(0.0, 0.6), completed=1000)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        report.kills += drivers.end()["ended"] == -signal.SIGKILL
    with BatchService(settings_from(options)) as service:
        batch = service.create_batch(request)
        (running,) = service.resume_batches([batch.id]) or [service.process_batch(batch.id)]
        _judge(report, running.result(2 * PATIENCE), service, provider)


def _judge(report: Report, batch: Batch, service: BatchService, provider: Provider) -> None:
    assert batch.finished, batch.status
    report.videos += len(batch.jobs)
    report.states.update(job.error.code if job.error else job.status.value for job in batch.jobs)
    check_paid_once(provider, limit=CONCURRENCY)
    check_files(batch, provider)
    check_journal(service, batch.id)
    made = {video["id"] for video in provider.ledger()["videos"]}
    lost = made - {job.remote_id for job in batch.jobs}
    unknown = [job for job in batch.jobs if job.error and job.error.code == "submission_unknown"]
    assert len(lost) <= len(unknown), f"videos were paid for, and no job knows of them: {lost}"


def main() -> int:
    seed, kills = wanted(__doc__, "kills", 1000)
    began = time.monotonic()
    with closing(Drivers()) as drivers, Provider() as provider:
        report = kill_at_random(seed, kills, provider, drivers)
    print(f"seed {report.seed}: {report.kills} kills in {report.rounds} rounds, {time.monotonic() - began:.0f} s")
    print(f"{report.videos} videos: {counted(report.states)}")
    return concluded("rounds with something lost or paid twice", report.wrong)


if __name__ == "__main__":
    sys.exit(main())
