"""Events over a real broker: each at least once, first appearances in order, whatever dies in between."""

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.service import BatchService
from tests.integration.application import Application
from tests.integration.support import PATIENCE, Drivers, check_journal, check_paid_once, numbered, rows, until, videos
from tests.provider.client import Provider
from tests.servers.postgresql import PostgreSQL
from tests.servers.rabbitmq import RabbitMQ

pytestmark = pytest.mark.integration

Start = Callable[..., BatchService]


@pytest.fixture
def service(start_service: Start, rabbitmq: RabbitMQ) -> BatchService:
    return start_service(amqp_url=rabbitmq.url)


def make(service: BatchService, batch_id: str = "b", count: int = 4) -> None:
    service.create_batch(videos(*numbered(count, batch_id), id=batch_id, concurrency=2))
    assert service.process_batch(batch_id).result(PATIENCE).status == "completed"


def heard(application: Application, *last_ids: str) -> dict[str, list[dict[str, Any]]]:
    """What is told of each batch, in the order of first appearances, until the last events were."""
    told: dict[str, dict[str, Any]] = {}
    for event in application.hear():
        told.setdefault(event.document["id"], event.document)
        if set(last_ids) <= set(told):
            break
    else:
        raise TimeoutError(f"of {last_ids} only {list(told)} came")
    batches: dict[str, list[dict[str, Any]]] = {}
    for document in told.values():
        batches.setdefault(document["data"]["batch_id"], []).append(document)
    return batches


def check(application: Application, service: BatchService, *batch_ids: str) -> None:
    """All events of these batches come, in order, as they are recorded."""
    recorded = {each: [json.loads(event.body) for event in service.recorded(each)] for each in batch_ids}
    batches = heard(application, *(events[-1]["id"] for events in recorded.values()))
    assert {each: batches[each] for each in batch_ids} == recorded


def test_everything_that_is_recorded_is_told_and_the_last_event_has_the_result(
    application: Application, service: BatchService
) -> None:
    make(service)
    make(service, "c", 1)
    last = json.loads(service.recorded("b")[-1].body)
    assert len(last["data"]["batch"]["jobs"]) == 4
    check(application, service, "b", "c")
    until(
        lambda: service._read(lambda: service._storage.publications.behind(recorded_before=1e12, ended_after=0)) == {}
    )


def test_the_properties_are_those_of_the_contract(application: Application, service: BatchService) -> None:
    make(service, count=1)
    for method, properties, body in application.channel.consume(application.queue, auto_ack=True):
        document = json.loads(body)
        entity, event, *ids = method.routing_key.split(".")
        assert document["type"] == properties.type == f"sora-batch.{entity}.{event}.v1"
        assert ids == (["b"] if entity == "batch" else ["b", "b-01"])
        assert properties.message_id == document["id"] == f"b:{document['sequence']}"
        assert (properties.content_type, properties.delivery_mode) == ("application/cloudevents+json", 2)
        assert (properties.app_id, properties.correlation_id) == ("sora-batch", "b")
        assert properties.timestamp > 1_700_000_000
        if event == "completed" and entity == "batch":
            break
    application.channel.cancel()


def test_a_broker_that_dies_in_the_middle_delays_events_and_stops_no_video(
    application: Application, service: BatchService, rabbitmq: RabbitMQ, provider: Provider
) -> None:
    provider.hold()
    service.create_batch(videos(*numbered(4, "b"), id="b", concurrency=2))
    running = service.process_batch("b")
    provider.wait(accepted=2)
    rabbitmq.kill()
    provider.release("videos")
    assert running.result(PATIENCE).status == "completed"
    rabbitmq.start()
    application.reconnect()
    check(application, service, "b")
    check_paid_once(provider, limit=2)


def test_a_broker_that_is_away_at_the_end_does_not_hold_up_a_program(
    application: Application, service: BatchService, start_service: Start, rabbitmq: RabbitMQ
) -> None:
    make(service, count=1)
    rabbitmq.kill()
    service.update_metadata("b", {"k": 1})
    service.cancel_batch(service.create_batch(videos("a boat", id="c")).id)
    service.close()
    rabbitmq.start()
    application.reconnect()
    other = start_service(amqp_url=rabbitmq.url)
    make(other, "d", 1)
    check(application, other, "b", "c", "d")


@pytest.mark.parametrize(
    ("label", "hit"),
    [
        *((label, hit) for label in ("before publish", "after publish", "before confirm") for hit in (1, 3)),
        *((label, hit) for label in ("before mark", "after mark") for hit in (1, 2)),  # there are not many
    ],
)
def test_a_process_that_is_killed_while_it_publishes_loses_no_event(
    label: str, hit: int, application: Application, drivers: Drivers, options: Callable[..., dict[str, Any]],
    start_service: Start, rabbitmq: RabbitMQ, provider: Provider,
) -> None:  # fmt: skip
    provider.options(latency=0.3)
    given = options(amqp_url=rabbitmq.url)
    request = videos(*numbered(3, "b"), id="b", concurrency=2)
    assert drivers.run(options=given, request=request, label=label, hit=hit)["ended"] == -signal.SIGKILL
    service = start_service(amqp_url=rabbitmq.url)
    for running in service.resume_batches():
        assert running.result(PATIENCE).status == "completed"
    make(service, "c", 1)  # whoever has something to tell looks for what others left lying
    check(application, service, "b", "c")
    check_journal(service, "b")


def test_a_subscriber_whose_queue_is_full_stops_nobody_else(application: Application, service: BatchService) -> None:
    full = {"x-max-length": 1, "x-overflow": "reject-publish"}
    application.channel.queue_declare("full", arguments=full, exclusive=True)
    application.channel.queue_bind("full", "sora.batch.events", "#")
    make(service, "b", 3)
    make(service, "c", 1)
    check(application, service, "b", "c")
    application.channel.queue_delete("full")


def test_what_was_recorded_before_is_history(
    application: Application, start_service: Start, rabbitmq: RabbitMQ, tmp_path: Path
) -> None:
    with_no_broker = start_service()
    make(with_no_broker, "old", 1)
    service = start_service(amqp_url=rabbitmq.url)
    make(service, "new", 1)
    last = json.loads(service.recorded("new")[-1].body)["id"]
    assert list(heard(application, last)) == ["new"]
    asked = start_service(amqp_url=rabbitmq.url)
    asked.serve(publish_backlog=True)
    check(application, asked, "old")
    assert rows(tmp_path, "SELECT count(*) FROM publications WHERE skipped") == [(0,)]


@pytest.fixture
def shared(postgresql: PostgreSQL) -> Iterator[str]:
    name = postgresql.create_database()
    yield postgresql.url(name)
    postgresql.drop_database(name)


def test_two_processes_on_one_database_tell_each_event_in_order(
    application: Application, shared: str, start_service: Start, rabbitmq: RabbitMQ, provider: Provider
) -> None:
    one, other = (start_service(amqp_url=rabbitmq.url, database_url=shared) for _ in range(2))
    provider.hold()
    for number, service in enumerate((one, other, one, other)):
        service.create_batch(videos(*numbered(3, f"b{number}"), id=f"b{number}", concurrency=2))
        service.process_batch(f"b{number}")
    provider.wait(accepted=8)
    other.cancel_batch("b0")  # of the other one
    one.cancel_batch("b1")
    provider.release("videos")
    until(lambda: all(one.get_batch_status(f"b{number}").finished for number in range(4)))
    check(application, one, "b0", "b1", "b2", "b3")


def test_a_deleted_batch_is_told_to_its_end(application: Application, service: BatchService) -> None:
    make(service, count=1)
    service.delete_batch("b")
    check(application, service, "b")
    assert service.recorded("b")[-1].type == "batch.deleted"
