"""Events over a real broker: all of them, in order within a batch, whatever is killed, closed, full or away."""

import threading
from collections.abc import Callable, Iterator
from functools import partial
from time import monotonic

import pytest

from actors.service import BatchService
from storage.records import EventRecord
from tests.builders import a_batch, an_event, put
from tests.integration.subscriber import Subscriber, check_told, first_appearances
from tests.integration.support import PATIENCE, numbered, until, videos
from tests.servers.postgresql import PostgreSQL
from tests.servers.rabbitmq import RabbitMQ

pytestmark = pytest.mark.integration

Start = Callable[..., BatchService]


@pytest.fixture
def broker_url(rabbitmq: RabbitMQ) -> str:
    """A virtual host of the test's own."""
    return rabbitmq.fresh_url()


@pytest.fixture
def subscriber(broker_url: str) -> Iterator[Subscriber]:
    with Subscriber(broker_url) as subscriber:
        yield subscriber


@pytest.fixture
def publishing(broker_url: str, start_service: Start) -> Start:
    """Start a service that publishes."""
    return partial(start_service, amqp_url=broker_url)


def record(service: BatchService, batch_id: str, first: int, last: int) -> None:
    """Record events of a batch, as its owner does; the first of them makes the batch."""
    events = [an_event(number, batch_id, body="x" * 600) for number in range(first, last + 1)]
    service._recorder.write(lambda: _record(service, batch_id, events)).result(PATIENCE)


def _record(service: BatchService, batch_id: str, events: list[EventRecord]) -> None:
    storage = service._storage
    if events[0].sequence == 1:
        put(storage, a_batch(batch_id, total=0, created_at=service._database.now()))
    storage.batches.update(batch_id, sequence=events[-1].sequence, updated_at=service._database.now())
    storage.journal.append(events)


def published(service: BatchService, batch_id: str) -> int:
    return service._read(lambda: service._storage.publications.next_of({batch_id: -1}, 1))[0].published


def test_connections_that_are_closed_with_unconfirmed_messages_lose_none(
    rabbitmq: RabbitMQ, publishing: Start, subscriber: Subscriber
) -> None:
    service, last = publishing(), {f"batch{number}": 400 for number in range(10)}
    flowing = threading.Event()

    def flow() -> None:
        for batch_id in last:
            record(service, batch_id, 1, 1)
        for first in range(2, 400, 7):
            for batch_id in last:
                record(service, batch_id, first, first + 6)
        flowing.set()

    recording = threading.Thread(target=flow)
    recording.start()
    for _ in range(3):
        heard = len(subscriber.arrivals)
        subscriber.hear_until(lambda: len(subscriber.arrivals) > heard + 300)  # noqa: B023
        rabbitmq.close_all_connections()
    recording.join()
    last = {batch_id: service.recorded(batch_id)[-1].sequence for batch_id in last}
    subscriber.hear_all(last)
    check_told(subscriber, service, *last)


@pytest.mark.parametrize("alarm", ["memory_alarm", "disk_alarm"])
def test_an_alarm_of_the_node_delays_events_and_no_videos(
    alarm: str, rabbitmq: RabbitMQ, publishing: Start, subscriber: Subscriber
) -> None:
    service = publishing()
    service.create_batch(videos("a lake", id="before"))
    subscriber.hear_all({"before": 1})
    with getattr(rabbitmq, alarm)():
        service.create_batch(videos(*numbered(10), id="a"))
        assert service.process_batch("a").result(PATIENCE).status == "completed"
        assert published(service, "a") == 0
    subscriber.hear_ends("a")
    check_told(subscriber, service, "a")


def test_a_program_ends_soon_while_the_node_takes_nothing(
    rabbitmq: RabbitMQ, publishing: Start, subscriber: Subscriber
) -> None:
    service = publishing()
    service.create_batch(videos("a lake", id="before"))
    subscriber.hear_all({"before": 1})
    with rabbitmq.disk_alarm():
        service.create_batch(videos("a lake", id="a"))
        began = monotonic()
        service.close()
        assert monotonic() - began < 4
    service = publishing()
    service.process_batch("before").result(PATIENCE)  # whoever comes next publishes it
    subscriber.hear_ends("before")
    check_told(subscriber, service, "a", "before")


def test_what_a_short_program_records_is_told_before_it_ends(publishing: Start, subscriber: Subscriber) -> None:
    with publishing() as service:
        service.create_batch(videos("a lake", id="a"))
        service.cancel_batch("a")
        recorded = [event.sequence for event in service.recorded("a")]
    subscriber.hear_ends("a")
    assert subscriber.sequences() == {"a": recorded}


def test_a_consumer_that_never_reads_stops_nobody_else(
    publishing: Start, subscriber: Subscriber, broker_url: str
) -> None:
    with Subscriber(broker_url, "idle") as idle:
        idle._channel.basic_consume("idle", lambda *_: None)  # what is sent stays in the socket
        service = publishing()
        record(service, "a", 1, 3000)
        subscriber.hear_all({"a": 3000})
        check_told(subscriber, service, "a")


def test_a_full_subscriber_that_reads_again_gets_the_rest_in_order(
    publishing: Start, subscriber: Subscriber, broker_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("CRITICAL")
    with Subscriber(broker_url, "full", x_max_length=2, x_overflow="reject-publish") as full:
        service = publishing()
        record(service, "a", 1, 40)
        subscriber.hear_until(lambda: len(subscriber.arrivals) >= 10)
        full.hear_all({"a": 40}, patience=60)
        subscriber.hear_all({"a": 40})
        check_told(subscriber, service, "a")
        assert set(full.sequences()["a"]) == set(range(1, 41))


@pytest.fixture
def other(postgresql: PostgreSQL, start_service: Start, publishing: Start, subscriber: Subscriber) -> BatchService:
    """A service without a broker, beside one that publishes from the same database."""
    url = postgresql.url(postgresql.create_database())
    publishing(database_url=url).create_batch(videos("a lake", id="first"))
    subscriber.hear_all({"first": 1})
    return start_service(database_url=url)


def test_what_a_process_without_a_broker_records_is_told_by_another(
    other: BatchService, subscriber: Subscriber
) -> None:
    other.create_batch(videos(*numbered(3), id="a"))
    other.process_batch("a").result(PATIENCE)
    subscriber.hear_ends("a")
    check_told(subscriber, other, "a")


def test_a_batch_that_never_rests_elsewhere_is_told_all_the_same(other: BatchService, subscriber: Subscriber) -> None:
    over = threading.Event()

    def go_on() -> None:
        number = 1
        while not over.wait(0.1):
            record(other, "busy", number, number)
            number += 1

    recording = threading.Thread(target=go_on)
    recording.start()
    try:
        subscriber.hear_all({"busy": 20}, patience=10)
    finally:
        over.set()
        recording.join()


def test_with_nobody_listening_events_are_published_and_gone(publishing: Start) -> None:
    service = publishing()
    record(service, "a", 1, 50)
    until(lambda: published(service, "a") == 50)


def test_an_exchange_that_is_deleted_is_made_again(publishing: Start, subscriber: Subscriber, broker_url: str) -> None:
    service = publishing()
    record(service, "a", 1, 5)
    subscriber.hear_all({"a": 5})
    subscriber._channel.exchange_delete("sora.batch.events")
    record(service, "a", 6, 10)
    until(lambda: published(service, "a") == 10)
    with Subscriber(broker_url, "later") as later:  # its binding was gone with the exchange
        record(service, "a", 11, 12)
        later.hear_all({"a": 12})
        assert first_appearances(later.sequences()["a"])[-2:] == [11, 12]
