"""Health and metrics of services that work: what they tell is what happened, and they tell at once what is lost."""

import json
import os
import shutil
import signal
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from actors.service import BatchService
from actors.web.listener import Listener
from storage.database import Database
from tests.integration.application import Application
from tests.integration.support import PATIENCE, check_paid_once, numbered, until, videos
from tests.integration.test_serve import Serving
from tests.provider.client import Provider
from tests.servers.postgresql import PostgreSQL
from tests.servers.rabbitmq import RabbitMQ

pytestmark = pytest.mark.integration

NOTICED = 5.0
"""Seconds within which readiness tells of a loss."""
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Told:
    """What is scraped."""

    def __init__(self, url: str) -> None:
        with OPENER.open(f"{url}/metrics", timeout=PATIENCE) as response:
            families = text_string_to_metric_families(response.read().decode())
        self.samples = [sample for family in families for sample in family.samples]

    def total(self, name: str, **labels: str) -> float:
        """The sum over all series with these labels."""
        named = [each for each in self.samples if each.name == f"sora_batch_{name}"]
        return sum(each.value for each in named if labels.items() <= each.labels.items())


def failed_checks(url: str) -> list[str]:
    try:
        with OPENER.open(f"{url}/readyz", timeout=PATIENCE):
            return []
    except urllib.error.HTTPError as error:
        with error:
            if error.code != 503:
                raise
            return [each["field"] for each in json.load(error)["errors"]]


@contextmanager
def listening(service: BatchService) -> Iterator[str]:
    listener = Listener(service, "0", None)
    try:
        yield listener.url
    finally:
        listener.close()


def test_under_load_the_counters_are_what_the_servers_ledger_says(
    start_service: Callable[..., BatchService], provider: Provider
) -> None:
    service = start_service(sora_model="sora-2")
    provider.fault(on="create", do="lose_response", times=2)  # made, and found in the listing
    provider.fault(on="create", do="lose_request", times=2)  # not made, and proved absent
    provider.fault(on="create", do="answer", status=400, times=3)
    provider.fault(on="retrieve", do="answer", status=500, times=2)
    with listening(service) as url:
        batches = [service.create_batch(videos(*numbered(10, name), id=name, concurrency=5)) for name in "abcdef"]
        assert Told(url).total("jobs", status="pending") == 60
        assert Told(url).total("batches", status="pending") == 6
        running = [service.process_batch(batch.id) for batch in batches]
        in_flight = [0.0]
        while not all(each.done() for each in running):
            during = Told(url)
            in_flight.append(during.total("jobs") - during.total("jobs", status="pending"))
        ended = [job.status for each in running for job in each.result().jobs]
        told, summary = Told(url), check_paid_once(provider)
    assert 0 < max(in_flight) <= 30
    requests = summary["requests"]
    for operation in ("create", "retrieve", "list", "content"):
        assert told.total("requests_total", operation=operation) == requests.get(operation, 0), operation
    assert told.total("requests_total", operation="create", status="400") == 3
    assert told.total("requests_total", operation="create", status="none") == 4
    outcomes = {name: told.total("submissions_total", outcome=name) for name in ("bound", "adopted", "refused")}
    assert (
        outcomes["bound"] + outcomes["adopted"] == sum(summary["paid_per_prompt"].values()) == ended.count("completed")
    )
    assert outcomes["refused"] == 3 == ended.count("failed")
    assert told.total("submissions_total", outcome="unknown") == 4
    assert told.total("submissions_total", outcome="adopted") == 2
    assert told.total("submissions_total", outcome="absent") == 2
    assert told.total("jobs_finished_total", status="completed") == ended.count("completed")
    assert told.total("jobs_finished_total", status="failed") == ended.count("failed")
    assert told.total("generation_duration_seconds_count", model="sora-2") == ended.count("completed")
    assert told.total("commit_duration_seconds_count") > 6
    assert told.total("jobs") == told.total("batches") == told.total("unknown_submissions") == 0


def test_what_is_cancelled_is_counted_and_its_deletes_are_owed_until_they_are_done(
    service: BatchService, provider: Provider
) -> None:
    provider.hold()
    with listening(service) as url:
        service.create_batch(videos(*numbered(3), id="b", concurrency=2))
        running = service.process_batch("b")
        until(lambda: Told(url).total("jobs", status="generating") == 2)
        assert Told(url).total("jobs", status="pending") == 1
        assert Told(url).total("oldest_pending_age_seconds") > 0
        service.cancel_batch("b")
        assert running.result(PATIENCE).status == "cancelled"
        until(lambda: Told(url).total("owed_deletes") == 0)
        assert Told(url).total("jobs_finished_total", status="cancelled") == 3
        until(lambda: Told(url).total("requests_total", operation="delete") == 2)


def test_an_answer_that_comes_after_a_retry_has_asked_for_it_is_counted_once(
    service: BatchService, provider: Provider
) -> None:
    """The retry resolves the POST of before, and its own answer tells: it is bound, and nothing was adopted."""
    provider.fault(on="create", do="hang", accept=True)
    provider.fault(on="list", do="answer", set={"prompt": "hidden"}, times=-1)
    with listening(service) as url:
        service.create_batch(videos("a lake", id="b"))
        service.process_batch("b")
        provider.wait(accepted=1)
        service.cancel_batch("b")
        retried = service.retry_batch("b")
        until(lambda: provider.summary()["requests"].get("list"))
        provider.release()
        assert retried.result(PATIENCE).status == "completed"
        told = Told(url)
    assert told.total("submissions_total", outcome="bound") == 1 == provider.summary()["accepted"]
    assert told.total("submissions_total", outcome="adopted") == 0


def test_commands_are_counted_by_their_answers_and_events_until_they_are_confirmed(
    application: Application, start_service: Callable[..., BatchService], consume: Callable[..., None]
) -> None:
    service = start_service(amqp_url=application.url)
    with listening(service) as url:
        consume(service)
        service.serve()
        application.ask("create", videos(*numbered(2), id="b"))
        application.ask("cancel", {"batch_id": "nobody"})
        application.publish(b"no command", "create")
        until(lambda: service.get_batch_status("b").finished)
        until(lambda: Told(url).total("commands_total") == 3)
        told = Told(url)
        assert told.total("commands_total", command="create", answer="accepted") == 1
        assert told.total("commands_total", command="cancel", answer="rejected") == 1
        assert told.total("commands_total", command="unknown", answer="unreadable") == 1
        until(lambda: Told(url).total("outbox_events") == 0)
        assert Told(url).total("outbox_lag_seconds") == 0


@pytest.fixture
def start_serving(options: Callable[..., dict[str, Any]], tmp_path: Path) -> Iterator[Callable[..., Serving]]:
    started: list[Serving] = []

    def start(**changes: Any) -> Serving:
        started.append(Serving(options(web_listen="0", **changes), tmp_path))
        return started[-1]

    yield start
    for serving in started:
        serving.close()


def url_of(serving: Serving) -> str:
    return serving.said.partition("metrics at ")[2].partition("/livez")[0]


def test_a_takeover_is_counted_by_who_takes_over(
    start_serving: Callable[..., Serving], start_service: Callable[..., BatchService], provider: Provider
) -> None:
    provider.hold()
    other = start_service(openai_base_url=None)
    other.create_batch(videos(*numbered(2), id="b"))
    other._write(lambda: other._storage.batches.update("b", wanted=True))
    first = start_serving()
    provider.wait(accepted=2, timeout=PATIENCE)
    assert Told(url_of(first)).total("takeovers_total") == 0
    first.end(signal.SIGKILL)
    second = start_serving()
    until(lambda: Told(url_of(second)).total("takeovers_total") == 1)
    provider.release("videos")
    until(lambda: other.get_batch_status("b").finished)
    assert Told(url_of(second)).total("jobs_finished_total", status="completed") == 2
    assert second.end() == 0


@contextmanager
def noticed(url: str, *names: str) -> Iterator[None]:
    """What is done inside is told within 5 s."""
    began = monotonic()
    yield
    until(lambda: set(names) <= set(failed_checks(url)))
    assert monotonic() - began < NOTICED + 1  # what is done takes a moment, too


def test_readiness_tells_at_once_what_is_lost_and_that_it_is_back(
    start_serving: Callable[..., Serving], rabbitmq: RabbitMQ, tmp_path: Path
) -> None:
    with PostgreSQL() as mortal:
        where = mortal.url(mortal.create_database())
        serving = start_serving(database_url=where, amqp_url=rabbitmq.url)
        url = url_of(serving)
        until(lambda: failed_checks(url) == [])
        mortal.stop()
        with noticed(url, "database"):
            pass
        with OPENER.open(f"{url}/livez", timeout=PATIENCE) as live:
            assert live.status == 200
        assert Told(url).total("commit_duration_seconds_count") > 0  # only the gauges are left out
        mortal.start()
        until(lambda: failed_checks(url) == [])

        folder = tmp_path / "videos"
        with noticed(url, "store"):
            shutil.rmtree(folder)
        folder.mkdir()
        until(lambda: failed_checks(url) == [])

        database = Database(where)
        with noticed(url, "lease"), database.connection():
            database.execute("UPDATE owners SET lease_until=0")
        database.close()
        until(lambda: failed_checks(url) == [])

        rabbitmq.kill()
        with noticed(url, "rabbitmq"):
            pass
        rabbitmq.start()
        until(lambda: failed_checks(url) == [])
        said = serving.said
        assert "not_ready" in said
        assert serving.end() == 0


def test_a_database_that_hangs_is_noticed_too(start_serving: Callable[..., Serving]) -> None:
    with PostgreSQL() as mortal:
        serving = start_serving(database_url=mortal.url(mortal.create_database()))
        url = url_of(serving)
        until(lambda: failed_checks(url) == [])
        children = Path(f"/proc/{mortal.pid}/task/{mortal.pid}/children").read_text().split()
        server = [mortal.pid, *map(int, children)]
        with noticed(url, "database"):
            for pid in server:
                os.kill(pid, signal.SIGSTOP)
        with OPENER.open(f"{url}/livez", timeout=PATIENCE) as live:
            assert live.status == 200
        for pid in server:
            os.kill(pid, signal.SIGCONT)
        until(lambda: failed_checks(url) == [])


def test_a_refused_key_is_not_ready(
    start_serving: Callable[..., Serving], start_service: Any, provider: Provider
) -> None:
    provider.options(api_key="right")
    other = start_service(openai_api_key="right")
    other.create_batch(videos(*numbered(1), id="b"))
    other._write(lambda: other._storage.batches.update("b", wanted=True))
    serving = start_serving(openai_api_key="wrong")
    until(lambda: failed_checks(url_of(serving)) == ["key"])
