"""A broker that refuses: its reason is logged once, the pauses grow, the doctor names it; and what is there suffices."""

import secrets
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pika
import pytest

from actors import BatchClient, BatchService, Unanswered
from actors.cli.checks import Check
from actors.cli.checks import rabbitmq as look
from actors.rabbitmq import topology
from actors.rabbitmq.client.rpc import OutgoingCommand
from actors.rabbitmq.connection import Connection
from actors.rabbitmq.consumer import CommandConsumers, own_process
from actors.rabbitmq.handler import CommandHandler
from actors.rabbitmq.refusals import Attempts, Standing
from actors.settings import Settings
from tests.integration.support import check_paid_once, until, videos
from tests.provider.client import Provider
from tests.servers.rabbitmq import RabbitMQ

pytestmark = pytest.mark.integration

READ_ALL, NOTHING = ".*", "^$"
OWN_QUEUES = r"^amq\.gen.*$"


@dataclass
class House:
    """A virtual host of the test's own, and users that may do something there."""

    node: RabbitMQ
    url: str
    opened: list[Any] = field(default_factory=list)

    def user(self, configure: str = NOTHING, write: str = ".*", read: str = READ_ALL) -> str:
        """Make a user; return the URL with his name."""
        name = f"user-{secrets.token_hex(4)}"
        self.node.control("add_user", name, "secret")
        self.node.control("set_permissions", "-p", self.url.rpartition("/")[2], name, configure, write, read)
        return self.url.replace("guest:guest", f"{name}:secret")

    def channel(self) -> Any:
        self.opened.append(pika.BlockingConnection(pika.URLParameters(self.url)))
        return self.opened[-1].channel()

    def close(self) -> None:
        for connection in self.opened:
            if connection.is_open:
                connection.close()

    def declare(self) -> None:
        topology.declare(self.channel())

    def look(self, url: str | None = None, *, declare: bool = False, queue_type: str = "quorum") -> Check:
        given: dict[str, Any] = {"amqp_url": url or self.url, "amqp_queue_type": queue_type}
        return look(Settings(_env_file=None, **given), declare=declare)


@pytest.fixture
def house(rabbitmq: RabbitMQ) -> Iterator[House]:
    house = House(rabbitmq, rabbitmq.fresh_url())
    yield house
    house.close()


@pytest.fixture
def serve(start_service: Callable[..., BatchService]) -> Iterator[Callable[..., BatchService]]:
    """What `sora-batch serve` starts, with the broker at this address."""
    own_process()
    started: list[tuple[threading.Event, CommandConsumers]] = []

    def start(url: str) -> BatchService:
        service, stopping = start_service(amqp_url=url), threading.Event()
        connection: Any = service.broker
        handle = CommandHandler(service, connection.publish, stopping).handle
        consumers = CommandConsumers(url, handle, standing=connection.standing)
        started.append((stopping, consumers))
        consumers.start()
        service.serve()
        return service

    yield start
    for stopping, consumers in started:
        stopping.set()
        consumers.stop()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[float]]:
    """Of each connection, how long it waits after each failure. (In the test it waits a tenth of that.)"""
    noted: dict[str, list[float]] = {}
    original = Attempts.lost

    def lost(self: Attempts, error: Any) -> float:
        pause = original(self, error)
        noted.setdefault(self._who, []).append(pause)
        return pause / 10

    monkeypatch.setattr(Attempts, "lost", lost)
    return noted


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.name.startswith(("actors", "pika", "dramatiq"))]


@pytest.mark.parametrize("thing", ["queue", "exchange", "password"])
def test_what_the_broker_refuses_is_logged_once_and_tried_ever_more_rarely(
    thing: str, house: House, serve: Callable[..., BatchService], pauses: dict[str, list[float]],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    url, reason = house.url, "PRECONDITION_FAILED - inequivalent arg"
    if thing == "queue":
        house.channel().queue_declare(topology.COMMANDS, durable=True, arguments={"x-queue-type": "classic"})
    elif thing == "exchange":
        house.channel().exchange_declare(topology.EVENTS, "fanout", durable=True)
    else:
        url, reason = (
            url.replace("guest:guest", "guest:wrong"),
            "RabbitMQ refused the login of user guest: check AMQP_URL",
        )
    caplog.set_level("INFO")
    service = serve(url)
    service.create_batch(videos("A lake"))  # an event: the publisher connects
    until(lambda: len(pauses) == 3 and all(len(each) >= 5 for each in pauses.values()))
    for each in pauses.values():
        assert [round(pause / 0.9 / 2**number) for number, pause in enumerate(each[:5])] == [1] * 5, each
    assert [line.count(reason) for line in told(caplog) if "serving" not in line] == [1]
    found = house.look(url)
    assert (found.ok, reason in found.message) == (False, True)


def test_the_pause_grows_to_half_a_minute() -> None:
    error = pika.exceptions.ChannelClosedByBroker(406, "PRECONDITION_FAILED")
    attempts = Attempts("publisher", "guest", Standing())
    pauses = [attempts.lost(error) for _ in range(20)]
    assert 0.8 <= pauses[0] <= 1
    assert all(24 <= pause <= 30 for pause in pauses[5:])
    assert len(set(pauses[5:])) > 1
    attempts.opened()
    assert attempts.lost(ConnectionRefusedError()) <= 0.2


def test_who_may_not_declare_serves_where_all_is_declared(
    house: House, serve: Callable[..., BatchService], provider: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    house.declare()
    serve(house.user(NOTHING, r"^(sora\.batch\..*|amq\.default)$", r"^sora\.batch\..*$"))  # as in rabbitmq.conf
    with BatchClient(house.user(configure=OWN_QUEUES)) as shop:
        assert list(shop.events(shop.create(videos("A lake"))))[-1].name == "batch.completed"
        rubbish = OutgoingCommand("create", {})
        rubbish.body = b"no command"
        shop._line.send(rubbish)  # type: ignore[union-attr]
    channel = house.channel()
    until(lambda: channel.queue_declare(topology.UNREADABLE, passive=True).method.message_count == 1)
    check_paid_once(provider)
    assert not [line for line in told(caplog) if "refused access" in line]
    for declare in (False, True):
        found = house.look(house.user(), declare=declare)
        assert (found.ok, "sora.batch.commands: consumers: 1" in found.message) == (True, True), found


def test_what_is_missing_and_may_not_be_declared_is_named(
    house: House, serve: Callable[..., BatchService], caplog: pytest.LogCaptureFixture
) -> None:
    poor = house.user()
    for declare in (False, True):
        found = house.look(poor, declare=declare)
        assert not found.ok
        assert "ACCESS_REFUSED - access to exchange 'sora.batch.events'" in found.message
        assert "`sora-batch doctor --declare` as a user who may" in found.message
    assert house.look().ok  # whoever may declare does so when it is needed; looking has declared nothing
    assert "the first process that needs them declares them" in house.look().message
    service = serve(poor)
    service.create_batch(videos("A lake"))
    until(lambda: any("NOT_FOUND - no exchange 'sora.batch." in line for line in told(caplog)))
    house.declare()
    caplog.set_level("INFO")
    until(lambda: "RabbitMQ is back" in told(caplog), seconds=60)


def test_what_is_refused_only_when_it_is_published_is_logged_once_too(
    house: House, start_service: Callable[..., BatchService], pauses: dict[str, list[float]],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    house.declare()
    caplog.set_level("INFO")
    service = start_service(amqp_url=house.user(write=r"^sora\.batch\.commands$"))
    service.create_batch(videos("A lake"))
    until(lambda: len(pauses.get("publisher", [])) >= 4)
    assert pauses["publisher"][3] > 6
    lines = told(caplog)
    assert [line.count("ACCESS_REFUSED - access to exchange 'sora.batch.events'") for line in lines] == [1]


def test_a_queue_of_the_other_type_is_named(house: House) -> None:
    channel = house.channel()
    topology.declare(channel, "classic")
    found = house.look()
    assert not found.ok
    assert "x-queue-type" in found.message
    assert "AMQP_QUEUE_TYPE" in found.message
    assert "no consumer on" in house.look(queue_type="classic").message
    nowhere = house.look(house.url + "nowhere")
    assert not nowhere.ok
    assert "nowhere" in nowhere.message


def test_a_client_is_told_at_once_what_the_broker_refuses(house: House) -> None:
    house.declare()
    wrong = BatchClient(house.url.replace("guest:guest", "guest:wrong"))
    with pytest.raises(Unanswered, match="refused the login of user guest: check AMQP_URL"):
        wrong.create(videos("A lake"))
    with BatchClient(house.user(configure=OWN_QUEUES, write=OWN_QUEUES)) as client:
        with pytest.raises(Unanswered, match=r"ACCESS_REFUSED - .*'sora.batch.commands'") as refused:
            client.create(videos("A lake"))
        assert not refused.value.sent
    channel = house.channel()
    with BatchClient(house.url) as client:
        assert not client.listening()
        channel.queue_delete(topology.COMMANDS)
        with pytest.raises(Unanswered, match="no queue for a message") as unroutable:
            client.create(videos("A lake"))
        assert not unroutable.value.sent
        channel.queue_declare(topology.COMMANDS, durable=True)  # in another way, and bound to nothing
    with BatchClient(house.url) as client, pytest.raises(Unanswered, match="PRECONDITION_FAILED") as undeclared:
        client.create(videos("A lake"))
    assert not undeclared.value.sent


def test_a_stream_whose_user_is_shut_out_goes_on_when_he_is_let_in(
    house: House, serve: Callable[..., BatchService], pauses: dict[str, list[float]], provider: Provider,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    provider.options(latency=60.0)
    house.declare()
    serve(house.url)
    url = house.user(configure=OWN_QUEUES)
    name = url.partition("://")[2].partition(":")[0]
    with BatchClient(url) as client, client.events(client.create(videos("A lake", id="nature"))) as stream:
        until(lambda: stream.next(0.1))
        house.node.control("change_password", name, "another")
        house.node.control("close_all_user_connections", name, "a test closes them")
        until(lambda: (stream.next(0.1), len(pauses.get("stream", [])) >= 4)[1])
        assert told(caplog).count(f"RabbitMQ refused the login of user {name}: check AMQP_URL") == 1
        house.node.control("change_password", name, "secret")
        client.cancel("nature")
        assert [event.name for event in stream][-1] == "batch.cancelled"


def test_a_connection_that_nobody_refuses_says_nothing(house: House, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    connection = Connection(house.url)
    connection.publish(topology.EVENTS, "batch.created.a", b"{}", pika.BasicProperties()).result(30)
    connection.close()
    assert told(caplog) == []
