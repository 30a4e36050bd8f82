"""kill -9 at any moment costs time, not work: each video is made, and none is paid for twice.

At each crash point: test_crash_points.
"""

import os
import random
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from actors.batch.views import Batch
from actors.service import BatchService
from tests.integration.support import PATIENCE, Drivers, check_files, check_journal, check_paid_once, numbered, videos
from tests.provider.client import Provider
from tests.servers.postgresql import PostgreSQL

pytestmark = pytest.mark.integration

LIMIT = 2
REQUEST = videos(*numbered(4), id="batch-a", concurrency=LIMIT)


@pytest.fixture
def finish(provider: Provider, start_service: Callable[..., BatchService]) -> Callable[..., Batch]:
    """Go on with the batch in this process, to its end, and see that nothing was lost or paid twice."""

    def resume(
        request: dict[str, Any] = REQUEST, limit: int = LIMIT, count: int | None = None, **changes: Any
    ) -> Batch:
        service = start_service(**changes)
        batch_id = service.create_batch(request).id
        (running,) = service.resume_batches([batch_id])
        batch = running.result(PATIENCE)
        assert [(job.status, job.error) for job in batch.jobs] == [("completed", None)] * len(batch.jobs)
        assert batch.status == "completed"
        summary = check_paid_once(provider, limit=limit)
        assert summary["accepted"] == (count or len(batch.jobs))
        check_files(batch, provider)
        names = check_journal(service, batch_id)
        assert names.count("job.completed") == len(batch.jobs)
        assert names.count("batch.completed") == 1
        return batch

    return resume


def kill_at(drivers: Drivers, order: dict[str, Any], label: str, hit: int) -> None:
    end = drivers.run(**order, label=label, hit=hit)
    assert end["ended"] == -signal.SIGKILL, f"{label} was not reached: {end}"


def test_a_create_that_hangs_when_its_sender_is_killed_is_adopted(
    provider: Provider, drivers: Drivers, options: Callable[..., Any], finish: Callable[..., Batch]
) -> None:
    provider.fault(on="create", do="hang", accept=True, match="video 2")
    pid = drivers.start(options=options(), request=REQUEST)
    provider.wait(hanging=1)
    os.kill(pid, signal.SIGKILL)
    assert drivers.end()["ended"] == -signal.SIGKILL
    finish()


@pytest.mark.parametrize(
    ("label", "hit"),
    [("before post", 1), ("before judge", 1), ("before recorded", 1), ("after look", 2), ("before rename", 1),
     ("before completion", 2)],
)  # fmt: skip
def test_a_batch_that_was_let_go_in_order_is_finished_by_another(
    label: str, hit: int, provider: Provider, drivers: Drivers, options: Callable[..., Any],
    finish: Callable[..., Batch],
) -> None:  # fmt: skip
    end = drivers.run(options=options(), request=REQUEST, label=label, hit=hit, how="let_go")
    assert end["ended"] == 0
    finish()


@pytest.mark.parametrize("label", ["after claim", "after intent", "before judge", "after bind", "after completion"])
def test_a_kill_is_survived_on_either_database(
    label: str, database_url: str, drivers: Drivers, options: Callable[..., Any], finish: Callable[..., Batch]
) -> None:
    kill_at(
        drivers,
        {"options": options(database_url=database_url), "request": REQUEST},
        label,
        2 if label == "after bind" else 1,
    )
    finish(database_url=database_url)


def test_owners_that_were_suspended_beyond_their_leases_wake_up_without_harm(
    postgresql: PostgreSQL, provider: Provider, drivers: Drivers, options: Callable[..., Any],
    start_service: Callable[..., BatchService],
) -> None:  # fmt: skip
    """Zombies: they send no POST, write nothing over, and tell the end that another one reached.

    Whether a POST of theirs is out nobody can tell but they: until they wake up, its outcome is unknown.

    On PostgreSQL, which ends the transaction that a zombie may have been stopped in. SQLite has nobody to do that:
    there the others wait until it is gone.
    """
    # So long that the other videos of a batch are not all made while the outcome of one is found out.
    provider.options(latency=2.0)
    url = postgresql.url(postgresql.create_database())
    changes = {"batch_lease": 5000, "sora_submit_timeout": 1000, "database_url": url}
    intents = ["before first byte", "before assign"]
    batches = {label: f"z{number}" for number, label in enumerate([*intents, "after look", "before rename"])}
    pids = [
        drivers.start(
            options=options(**changes),
            request=videos(*numbered(4, batch_id), id=batch_id, concurrency=LIMIT),
            label=label, hit=2, how="stop",
        )
        for label, batch_id in batches.items()
    ]  # fmt: skip
    for pid in pids:
        while "stopped" not in drivers.told(pid):
            pass
    service = start_service(**changes)
    for label, running in zip(batches, service.resume_batches(batches.values()), strict=True):
        batch = running.result(PATIENCE)
        errors = {job.error.code for job in batch.jobs if job.error}
        assert errors <= {"submission_unknown"}
        assert errors or label not in intents
        check_files(batch, provider)
        check_journal(service, batch.id)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    for pid, batch_id in zip(pids, batches.values(), strict=True):
        end = drivers.end(pid)
        assert (end["ended"], end["said"]["status"]) == (0, service.get_batch_status(batch_id).status)
    # What they know of their POSTs is told now, and a retry goes by it.
    for batch_id in batches.values():
        if service.get_batch_status(batch_id).status != "completed":
            assert "not_sent" in [each.state for each in service.submissions(batch_id)]
            assert service.retry_batch(batch_id).result(PATIENCE).status == "completed"
    summary = check_paid_once(provider)
    assert summary["accepted"] == 4 * len(batches)
    assert set(summary["max_in_flight_per_group"].values()) == {LIMIT}


def test_two_processes_that_are_told_to_make_the_same_batch_make_it_once(
    provider: Provider, drivers: Drivers, options: Callable[..., Any], finish: Callable[..., Batch]
) -> None:
    for number in range(5):
        request = videos(*numbered(4, f"r{number}"), id=f"round-{number}", concurrency=LIMIT)
        drivers.start(options=options(), request=request)
        finish(request, count=4 * (number + 1))
        end = drivers.end()
        assert (end["ended"], end["said"]["status"]) == (0, "completed")


def test_ten_kills_at_random_moments_pay_nothing_twice(
    provider: Provider, drivers: Drivers, options: Callable[..., Any], finish: Callable[..., Batch]
) -> None:
    provider.options(latency=(0.3, 0.6))
    provider.fault(on="create", do="lose_response", skip=3, times=2)
    provider.fault(on="create", do="hang", accept=True, skip=5, times=2, seconds=0.3, then="close")
    request = videos(*numbered(30), id="batch-a", concurrency=3)
    chance = random.Random(20261123)  # noqa: S311  (to be repeatable)
    for _ in range(10):
        pid = drivers.start(options=options(batch_max_size=30), request=request)
        with suppress(TimeoutError):  # what it would wait for never comes: it is how a moment passes
            provider.wait(timeout=chance.uniform(0.0, 0.6), completed=1000)
        os.kill(pid, signal.SIGKILL)
        assert drivers.end()["ended"] == -signal.SIGKILL
    finish(request, 3, batch_max_size=30)
