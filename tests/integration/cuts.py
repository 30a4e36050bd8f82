"""Cuts inside the submission window, at random: between the COMMIT of an intent and the bind of its video's id.

`python -m tests.integration.cuts --cuts 500 --seed 1` prints a report, and ends with 1 if a video was paid for twice,
or is neither its job's nor honestly `submission_unknown`. A cut is a kill -9 of the process at a random point or moment
of the window, or the loss of the request, of the connection or of the answer. The server's listing is one of six: it
tells all, it lags, it tells no prompts, there is none, or each of two or three replicas tells its own videos. Judged by
the ledger of a server that shares no code with us.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from actors.batch.views import Batch
from actors.service import BatchService
from tests.chaos.command import concluded, counted, wanted
from tests.integration.support import PATIENCE, Drivers, check_files, check_journal, options_for, settings_from, videos
from tests.provider.client import Provider
from tests.provider.options import Options

AT_ONCE = 8
SETTLE = 400
"""Milliseconds that a listing may lag."""

LISTINGS: dict[str, dict[str, Any] | None] = {
    "lists well": None,
    "lags": {"do": "answer", "lag": 0.25},
    "no prompts": {"do": "answer", "drop": ["prompt"]},
    "no listing": {"do": "answer", "status": 404},
    "2 replicas": None,
    "3 replicas": None,
}
REPLICAS = {"2 replicas": 2, "3 replicas": 3}
"""Behind them SORA_LISTING is what it is by default; the others have one store, and say so."""
CHOICES = ("random", "round_robin", "sticky")
KILLS = [
    "after intent", "before recorded", "before assign", "before post", "before first byte", "after first byte",
    "after post", "before judge", "after judge", "before bind",
]  # fmt: skip
LOSSES: dict[str, dict[str, Any]] = {
    "the request is lost": {"do": "lose_request"},
    "the connection is reset": {"do": "reset", "accept": False},
    "the answer is lost": {"do": "lose_response"},
    "the connection is reset after the making": {"do": "reset", "accept": True},
    "no answer in time": {"do": "hang", "accept": True, "seconds": 1.0, "then": "close"},
    "half an answer": {"do": "answer", "drop": ["id"]},
}
MOMENT = "kill -9 at a moment while the answer is awaited"


@dataclass
class Report:
    """What became of the cuts."""

    seed: int
    cuts: int = 0
    outcomes: dict[str, Counter[str]] = field(default_factory=lambda: {name: Counter() for name in LISTINGS})
    """By how the server lists."""
    kinds: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def cuts(seed: int, count: int, provider: Provider, drivers: Drivers) -> Report:
    """Cut so often, some at the same time."""
    report, chance = Report(seed), random.Random(seed)  # noqa: S311  (to be repeatable)
    names = list(LISTINGS)
    rounds = 0
    while report.cuts < count:
        listing = names[rounds % len(names)]
        rounds += 1
        with tempfile.TemporaryDirectory() as folder:
            _round(report, chance, listing, min(AT_ONCE, count - report.cuts), provider, drivers, Path(folder))
    return report


def _round(
    report: Report, chance: random.Random, listing: str, count: int, provider: Provider, drivers: Drivers, folder: Path
) -> None:
    provider.reset()
    replicas = REPLICAS.get(listing, 1)
    provider.options(
        **asdict(Options()) | {"latency": 0.05, "replicas": replicas, "replica_choice": chance.choice(CHOICES)}
    )
    options = options_for(
        provider.base_url, folder, sora_settle=SETTLE, sora_submit_timeout=1500,
        sora_listing="whole" if replicas == 1 else "partial",
    )  # fmt: skip
    how = {f"c{report.cuts + number}": chance.choice([*KILLS, *LOSSES, MOMENT]) for number in range(count)}
    _spoil_the_listing(provider, listing)
    with BatchService(settings_from(options)) as service:
        for batch_id in how:
            service.create_batch(videos(f"{batch_id}: a boat", id=batch_id))
        children: dict[str, int] = {}
        for batch_id, kind in how.items():
            order: dict[str, Any] = {"options": options, "id": batch_id}
            if kind in KILLS:
                order["label"] = kind
            elif kind == MOMENT:
                provider.fault(on="create", match=f"{batch_id}:", do="hang", accept=chance.random() < 0.5, seconds=5.0)
            else:
                provider.fault(on="create", match=f"{batch_id}:", **LOSSES[kind])
            children[batch_id] = drivers.start(**order)
        _kill_those_that_wait(chance, {i: children[i] for i, kind in how.items() if kind == MOMENT}, provider)
        for child in children.values():
            drivers.end(child)
        provider.release("requests")
        provider.clear_faults()  # a rule that nobody met is not for those that go on
        _spoil_the_listing(provider, listing)
        running = {i: service.process_batch(i) for i in how}
        for batch_id, kind in how.items():
            report.cuts += 1
            report.kinds[kind] += 1
            try:
                report.outcomes[listing][_judge(running[batch_id].result(PATIENCE), service, provider)] += 1
            except (AssertionError, TimeoutError) as error:
                report.wrong.append(f"{listing}, {kind}: {type(error).__name__}: {error}")


def _spoil_the_listing(provider: Provider, listing: str) -> None:
    if (rule := LISTINGS[listing]) is not None:
        provider.fault(on="list", times=-1, **rule)


def _kill_those_that_wait(chance: random.Random, children: dict[str, int], provider: Provider) -> None:
    """Kill them once the server has their POSTs: it takes a POST soon after its sender is dead, or before."""

    def posted(ledger: dict[str, Any]) -> bool:
        return children.keys() <= {(post["prompt"] or "").partition(":")[0] for post in ledger["posts"]}

    provider.wait_until(posted, timeout=PATIENCE)
    for child in children.values():
        with suppress(TimeoutError):  # what it would wait for never comes: it is how a moment passes
            provider.wait(timeout=chance.uniform(0.0, 0.05), completed=10_000)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    provider.release("requests")


def _judge(batch: Batch, service: BatchService, provider: Provider) -> str:
    """What became of the one job of a batch.

    Raises:
        AssertionError: something was paid for twice, or lost without a word.
    """
    (job,) = batch.jobs
    summary = provider.summary()
    posts = summary["posts_per_prompt"].get(job.prompt, 0)
    paid = summary["paid_per_prompt"].get(job.prompt, 0)
    assert paid <= 1, f"paid {paid} times"
    check_journal(service, batch.id)
    if job.status == "completed":
        check_files(batch, provider)
        assert paid == 1
        adopted = any(each.adopted for each in service.submissions(batch.id))
        if adopted:
            return "adopted"
        return "made by its only POST" if posts == 1 else "proved absent and made anew"
    assert job.error is not None
    assert job.error.code == "submission_unknown", job.error
    assert posts <= 1, f"unknown after {posts} POSTs"
    return "submission_unknown, and made" if paid else "submission_unknown, and not made"


def main() -> int:
    seed, count = wanted(__doc__, "cuts", 500)
    drivers, began = Drivers(), time.monotonic()
    try:
        with Provider() as provider:
            report = cuts(seed, count, provider, drivers)
    finally:
        drivers.close()
    print(f"seed {report.seed}: {report.cuts} cuts, {time.monotonic() - began:.0f} s")
    for listing, outcomes in report.outcomes.items():
        print(f"{listing:<10}  {counted(outcomes)}")
    print(f"kinds: {counted(report.kinds)}")
    return concluded("lost or paid for twice", report.wrong)


if __name__ == "__main__":
    sys.exit(main())
