"""kill -9 at any moment costs time, not work: each video is made, and none is paid for twice."""

import os
import random
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from actors.model import Batch
from actors.service import BatchService
from tests.integration.support import PATIENCE, Drivers, check_files, check_journal, check_paid_once, numbered, videos
from tests.provider.client import Provider
from tests.servers.postgresql import PostgreSQL

pytestmark = pytest.mark.integration

LIMIT = 2
REQUEST = videos(*numbered(4), id="batch-a", concurrency=LIMIT)

ONCE = ["before create", "after create", "before want", "after want", "before renew", "after claim", "before begin",
        "after begin", "before closing", "after closing", "before told"]  # fmt: skip
OFTEN = [
    "before intent", "after intent", "before assign", "before run", "before post", "before first byte",
    "after first byte", "before judge", "after post", "before bind", "after bind", "after bound",
    "before acceptance", "after acceptance", "before look", "after look", "before fetching", "after fetching",
    "before open", "after open", "before write", "after write", "before flush", "after flush", "before publish",
    "after publish", "before completion", "after completion",
]  # fmt: skip
MOMENTS = [(label, 1) for label in ONCE] + [(label, hit) for label in OFTEN for hit in (1, 3)]
STEPS = [("before recorded", hit) for hit in range(1, 7)]


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


@pytest.mark.parametrize(("label", "hit"), MOMENTS + STEPS)
def test_a_batch_whose_process_was_killed_is_finished_by_another(
    label: str, hit: int, provider: Provider, drivers: Drivers, options: Callable[..., Any],
    finish: Callable[..., Batch],
) -> None:  # fmt: skip
    provider.options(latency=0.15)  # what the dead one started is still being made when the next one comes
    kill_at(drivers, {"options": options(), "request": REQUEST}, label, hit)
    finish()


@pytest.mark.parametrize("label", ["before judge", "after look", "before publish", "before completion"])
def test_a_lost_answer_and_a_kill_together_pay_nothing_twice(
    label: str, provider: Provider, drivers: Drivers, options: Callable[..., Any], finish: Callable[..., Batch]
) -> None:
    provider.fault(on="create", do="lose_response", match="video 1")
    provider.fault(on="create", do="lose_request", match="video 3")
    kill_at(drivers, {"options": options(), "request": REQUEST}, label, 1)
    finish()


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
    ("first", "second"),
    [
        (("after first byte", 1), ("before post", 1)),
        (("after first byte", 2), ("after begin", 1)),
        (("before judge", 1), ("before bind", 1)),
        (("before judge", 2), ("after bind", 1)),
        (("after bound", 1), ("before acceptance", 1)),
        (("before publish", 1), ("before publish", 1)),
        (("after publish", 2), ("after flush", 1)),
        (("before completion", 1), ("after intent", 1)),
        (("before recorded", 1), ("before recorded", 1)),
    ],
)
def test_two_kills_in_a_row_pay_nothing_twice(
    first: tuple[str, int],
    second: tuple[str, int],
    drivers: Drivers,
    options: Callable[..., Any],
    finish: Callable[..., Batch],
) -> None:
    kill_at(drivers, {"options": options(), "request": REQUEST}, *first)
    kill_at(drivers, {"options": options(), "request": REQUEST, "do": "resume"}, *second)
    finish()


@pytest.mark.parametrize(
    ("label", "hit"),
    [("before post", 1), ("before judge", 1), ("before recorded", 1), ("after look", 2), ("before publish", 1),
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


@pytest.mark.parametrize("label", ["before first byte", "before assign", "after look", "before publish"])
def test_an_owner_that_was_suspended_beyond_its_lease_wakes_up_without_harm(
    label: str, postgresql: PostgreSQL, provider: Provider, drivers: Drivers, options: Callable[..., Any],
    finish: Callable[..., Batch],
) -> None:  # fmt: skip
    """A zombie: it sends no POST, writes nothing over, and tells the end that another one reached.

    On PostgreSQL, which ends the transaction that the zombie may have been stopped in. SQLite has nobody to do that:
    there the others wait until it is gone.
    """
    url = postgresql.url(postgresql.create_database())
    changes = {"batch_lease": 5000, "sora_submit_timeout": 1000, "database_url": url}
    pid = drivers.start(options=options(**changes), request=REQUEST, label=label, hit=2, how="stop")
    while "stopped" not in drivers.told():
        pass
    finish(**changes)
    os.kill(pid, signal.SIGCONT)
    end = drivers.end()
    assert (end["ended"], end["said"]["status"]) == (0, "completed")
    assert check_paid_once(provider, limit=LIMIT)["accepted"] == 4


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
