"""A database that is away is waited out: nothing is lost, and nothing is paid for twice."""

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from actors.service import BatchService
from tests.integration.support import PATIENCE, check_files, check_journal, check_paid_once, numbered, until, videos
from tests.provider.client import Provider
from tests.servers.postgresql import PostgreSQL

pytestmark = pytest.mark.integration

Start = Callable[..., BatchService]


@pytest.fixture(scope="module")
def mortal() -> Iterator[PostgreSQL]:
    with PostgreSQL() as server:
        yield server


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_batch_goes_on_when_postgresql_comes_back(
    how: str, mortal: PostgreSQL, provider: Provider, start_service: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("CRITICAL")
    service = start_service(database_url=mortal.url(mortal.create_database()))
    provider.hold()
    service.create_batch(videos(*numbered(6), id="b", concurrency=2))
    running = service.process_batch("b")
    until(lambda: sum(job.status == "generating" for job in service.get_batch_status("b").jobs) == 2)
    getattr(mortal, how)()
    provider.finish()
    provider.wait(fetched=2)  # the files are there, and can't be recorded
    mortal.start()
    provider.release("videos")
    final = running.result(PATIENCE)
    assert final.status == "completed"
    assert set(check_paid_once(provider, limit=2)["posts_per_prompt"].values()) == {1}
    check_files(final, provider)
    check_journal(service, "b")


def test_a_post_that_is_answered_while_postgresql_is_away_is_bound(
    mortal: PostgreSQL, provider: Provider, start_service: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("CRITICAL")
    service = start_service(database_url=mortal.url(mortal.create_database()))
    provider.fault(on="create", do="hang", accept=True, times=2)
    service.create_batch(videos(*numbered(4), id="b", concurrency=2))
    running = service.process_batch("b")
    provider.wait(hanging=2)
    mortal.kill()
    provider.release("requests")
    provider.wait(answered=2)
    mortal.start()
    final = running.result(PATIENCE)
    assert final.status == "completed"
    summary = check_paid_once(provider, limit=2)
    assert set(summary["posts_per_prompt"].values()) == {1}
    assert "list" not in summary["requests"]


def test_a_database_that_another_program_holds_is_waited_for(
    provider: Provider, service: BatchService, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("CRITICAL")
    provider.hold()
    service.create_batch(videos(*numbered(4), id="b", concurrency=2))
    running = service.process_batch("b")
    until(lambda: sum(job.status == "generating" for job in service.get_batch_status("b").jobs) == 2)
    holder = sqlite3.connect(tmp_path / "batches.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    provider.finish()
    provider.wait(fetched=2)
    assert service.get_batch_status("b").progress.completed == 0  # it is read all the same
    holder.execute("ROLLBACK")
    holder.close()
    provider.release("videos")
    final = running.result(PATIENCE)
    assert final.status == "completed"
    assert set(check_paid_once(provider, limit=2)["posts_per_prompt"].values()) == {1}
    check_files(final, provider)
    check_journal(service, "b")
