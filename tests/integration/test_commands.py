"""Commands over a real broker: each is answered, once obeyed, and nothing that arrives ends the consuming."""

import itertools
import json
import random
import struct
import threading
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import pika
import pytest

from actors.rabbitmq import topology
from actors.rabbitmq.codec import Message
from actors.rabbitmq.handler import Unreadable
from actors.service import BatchService
from tests.integration.application import Application
from tests.integration.support import PATIENCE, check_journal, check_paid_once, numbered, until, videos
from tests.provider.client import Provider
from tests.servers.rabbitmq import RabbitMQ

pytestmark = pytest.mark.integration

Handle = Callable[[Message, float | None], None]


def test_a_batch_is_made_by_one_message(
    application: Application, service: BatchService, consume: Callable[..., None], provider: Provider
) -> None:
    consume(service)
    service.serve()
    answer = application.ask("create", videos(*numbered(3), id="nature"))
    assert answer.key == "command.accepted.nature"
    assert answer.data["job_ids"] == ["nature-01", "nature-02", "nature-03"]
    until(lambda: service.get_batch_status("nature").status == "completed")
    check_paid_once(provider)
    report = application.send("report", {"batch_id": "nature"})
    told = [each for each in application.hear(1.0) if each.document["correlationid"] == report]
    assert [each.name for each in told] == ["batch.reported", "command.accepted"]
    assert told[0].data["batch"]["status"] == "completed"


def test_the_past_is_told_again_as_it_was(
    application: Application, service: BatchService, consume: Callable[..., None]
) -> None:
    consume(service)
    application.ask("create", videos("A lake", id="nature", process=False))
    application.ask("cancel", {"batch_id": "nature"})
    application.send("replay", {"batch_id": "nature"})
    told = [each.document for each in application.hear(1.0) if each.name != "command.accepted"]
    assert told == [json.loads(record.body) for record in service.recorded("nature")]


def test_a_command_that_is_delivered_twice_is_done_once(
    application: Application, service: BatchService, consume: Callable[..., None]
) -> None:
    consume(service)
    consume(service)  # and by two, at the same moment
    request = videos("A lake", id="nature", process=False)
    for _ in range(10):
        application.send("create", request, "twice")
    application.send("create", {**request, "batch_name": "another body"}, "twice")
    answers = [each for each in application.hear(2.0) if each.document["correlationid"] == "twice"]
    assert [each.name for each in answers].count("command.accepted") == 10
    assert len({each.document["id"] for each in answers}) == 2
    assert check_journal(service, "nature") == ["batch.created"]


def test_a_refused_command_has_its_answer_and_is_kept_nowhere(
    application: Application, service: BatchService, consume: Callable[..., None]
) -> None:
    consume(service)
    application.channel.queue_declare(topology.DEAD, durable=True)  # as an earlier version left it
    answers = [
        application.ask("create", {"videos": [{"prompt": "A lake", "duration": 0}]}),
        application.ask("cancel", {"batch_id": "no.id"}),
        application.ask("report", {"batch_id": "nowhere"}),
        application.ask("create", {"videos": 7 * ["no object"], "metadata": 1}),
    ]
    assert {answer.name for answer in answers} == {"command.rejected"}
    assert [answer.data["errors"][0]["field"] for answer in answers] == [
        "/data/videos/0/duration", "/data/batch_id", "/data/batch_id", "/data/videos/0",
    ]  # fmt: skip
    queues = (topology.COMMANDS, topology.CANCELS, topology.WAITING, topology.UNREADABLE, topology.DEAD)
    until(lambda: not any(map(application.count, queues)))
    application.channel.queue_delete(topology.DEAD)


def test_what_can_not_be_read_is_answered_and_kept_as_it_came(
    application: Application, service: BatchService, consume: Callable[..., None]
) -> None:
    consume(service)
    body = json.dumps({"specversion": "1.0", "id": "7", "source": "/a", "type": "sora-batch.creat.v1", "data": {}})
    headers = {"traceparent": "00-abc", "count": 3}
    sent = pika.BasicProperties(content_type="application/json", headers=headers, app_id="shop", message_id="m")
    application.publish(body.encode(), "create", sent)
    answer = application.answer("7")
    assert answer.key == "command.rejected._"
    assert {error["field"] for error in answer.data["errors"]} == {"/type"}
    ((properties, kept),) = until(application.aside)
    reason = properties.headers.pop("x-sora-batch-error")
    assert "'sora-batch.creat.v1' is not a known command" in reason
    del properties.headers["x-delivery-count"]  # the broker's
    assert (kept, properties.headers) == (body.encode(), headers)
    assert (properties.content_type, properties.app_id, properties.message_id) == ("application/json", "shop", "m")


def test_a_command_that_ends_every_service_is_put_aside_before_the_broker_gives_it_up(
    application: Application, service: BatchService, consume: Callable[..., None]
) -> None:
    application.send("report", {"batch_id": "nature"})
    for _ in range(topology.DELIVERY_LIMIT):
        until(lambda: application.count(topology.COMMANDS) == 1)
        method, _, _ = application.channel.basic_get(topology.COMMANDS)
        application.channel.basic_nack(method.delivery_tag, requeue=True)
    consume(service)
    ((properties, _),) = until(application.aside)
    assert "returned to its queue 50 times" in properties.headers["x-sora-batch-error"]


def test_what_has_no_queue_to_be_put_aside_in_is_put_there_once_it_is_made_again(
    application: Application, service: BatchService, consume: Callable[..., None], rabbitmq: RabbitMQ
) -> None:
    consume(service)
    assert application.ask("report", {"batch_id": "nowhere"}).name == "command.rejected"
    application.channel.queue_delete(topology.UNREADABLE)
    application.publish(b"no command", "create")
    until(lambda: topology.UNREADABLE in rabbitmq.control("list_queues", "--silent", "name"))
    ((_, kept),) = until(application.aside)
    assert kept == b"no command"


def test_a_misspelt_routing_key_is_answered(
    application: Application, service: BatchService, consume: Callable[..., None]
) -> None:
    consume(service)
    document = {"specversion": "1.0", "id": "7", "source": "/a", "type": "sora-batch.report.v1"}
    application.publish(json.dumps({**document, "data": {"batch_id": "nature"}}).encode(), "reprot")
    assert "'reprot'" in application.answer("7").data["errors"][0]["message"]


class Raw(pika.BasicProperties):
    """Properties with a table of headers that pika would not write."""

    def __init__(self, headers: bytes) -> None:
        super().__init__()
        self._raw = struct.pack(">HI", 0x2000, len(headers)) + headers

    def encode(self) -> list[bytes]:
        return [self._raw]


def header(kind: bytes, value: bytes) -> bytes:
    return b"\x01h" + kind + value


def nested(levels: int) -> bytes:
    """A table in a table in a table ..."""
    table = b""
    for _ in range(levels):
        table = header(b"F", struct.pack(">I", len(table)) + table)
    return table


POISONS = {
    "a timestamp in milliseconds": header(b"T", struct.pack(">Q", 1_790_000_000_000)),
    "a name that is not UTF-8": b"\x02\xff\xfe" + b"I" + struct.pack(">i", 1),
    "a text that is not UTF-8": header(b"S", struct.pack(">I", 2) + b"\xff\xfe"),
    "tables in tables": nested(3000),
    "a number with a fraction": header(b"d", struct.pack(">d", 1.5)),
}


@pytest.mark.parametrize("poison", POISONS)
def test_headers_that_can_not_be_read_end_no_consumer(
    poison: str, application: Application, service: BatchService, consume: Callable[..., None]
) -> None:
    consume(service)
    for key in ("create", "cancel"):
        application.publish(b"poison", key, Raw(POISONS[poison]))
    letters: list[tuple[Any, bytes]] = []
    until(lambda: letters.extend(application.aside()) or len(letters) == 2)
    assert {body for _, body in letters} == {b"poison"}
    assert all(properties.headers["x-sora-batch-error"] for properties, _ in letters)
    application.ask("create", videos("A lake", id="nature", process=False))
    assert application.ask("cancel", {"batch_id": "nature"}).name == "command.accepted"


HOSTILE = [
    b"", b"\xff\xfe\x00", b"null", b"{", b"[" * 100_000, b'{"a":' * 5000, b"9" * 5000, b"\x00" * 100, b"x" * 1_100_000,
    b'{"specversion":"1.0","id":"\\ud800","source":"/a","type":"sora-batch.create.v1","data":{}}',
    json.dumps({"queue_name": "other", "actor_name": "nobody", "args": [], "kwargs": {}, "options": {"eta": 9e15},
                "message_id": "1", "message_timestamp": 1}).encode(),
    json.dumps({"queue_name": {}, "actor_name": [], "args": 1, "kwargs": 1, "options": [], "message_id": 1,
                "message_timestamp": ""}).encode(),
]  # fmt: skip


def test_hostile_messages_are_put_aside_and_the_consuming_goes_on(
    application: Application, service: BatchService, consume: Callable[..., None]
) -> None:
    consume(service)
    for body in HOSTILE:
        for key in ("create", "cancel", "nonsense"):
            application.publish(body, key)
    letters: list[tuple[Any, bytes]] = []
    until(lambda: letters.extend(application.aside()) or len(letters) == 3 * len(HOSTILE))
    assert {body for _, body in letters} == set(HOSTILE)
    assert all(properties.headers["x-sora-batch-error"] for properties, _ in letters)
    assert application.ask("create", videos("A lake", id="nature", process=False)).name == "command.accepted"
    assert application.ask("cancel", {"batch_id": "nature"}).name == "command.accepted"


VALID = {
    "create": {"videos": [{"prompt": "A lake", "size": "1280x720"}], "batch_name": "Lakes", "process": False},
    "cancel": {"batch_id": "nature", "reason": "wrong"},
    "retry": {"batch_id": "nature", "job_ids": ["nature-01"], "pay_again": False},
    "report": {"batch_id": "nature"},
}


def mutation(chance: random.Random, number: int) -> tuple[str, bytes]:
    """A valid command with some bytes changed, cut out or doubled."""
    name = chance.choice(list(VALID))
    document = {"specversion": "1.0", "id": str(number), "source": "/hostile", "type": f"sora-batch.{name}.v1"}
    body = bytearray(json.dumps({**document, "data": VALID[name]}).encode())
    for _ in range(chance.randint(1, 3)):
        start = chance.randrange(len(body))
        end = start + chance.randrange(4)
        body[start:end] = chance.choice([b"", bytes([chance.randrange(256)]), body[start:end] * 2, b'"', b"{", b"[]"])
    return name, bytes(body)


def test_ten_thousand_mutated_commands_are_each_answered_or_put_aside(
    application: Application,
    service: BatchService,
    consume: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    service.create_batch(videos("A lake", id="nature"))
    handled: set[bytes] = set()
    refused: set[bytes] = set()

    def watched(handle: Handle) -> Handle:
        def watch(message: Message, since: float | None) -> None:
            try:
                handle(message, since)
            except Unreadable:
                refused.add(message.body)
                raise
            handled.add(message.body)

        return watch

    consume(service, watched)
    chance = random.Random(20_261_123)  # noqa: S311
    sent = [mutation(chance, number) for number in range(10_000)]
    with pika.BlockingConnection(pika.URLParameters(application.url)) as connection:  # not confirmed: quicker
        channel = connection.channel()
        for name, body in sent:
            channel.basic_publish(topology.COMMANDS, name, body, pika.BasicProperties(content_type="application/json"))
    # Each at least once: what a consumer had in hand when its connection was lost comes again.
    bodies = {body for _, body in sent}
    until(lambda: bodies <= handled | refused, seconds=180)
    until(lambda: application.count(topology.UNREADABLE) >= len(refused))
    until(lambda: application.count(topology.COMMANDS) + application.count(topology.WAITING) == 0)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    application.channel.queue_purge(application.queue)
    assert application.ask("report", {"batch_id": "nature"}).name == "command.accepted"


def test_a_cancellation_waits_behind_no_other_command(
    application: Application, service: BatchService, consume: Callable[..., None]
) -> None:
    """Neither behind commands that take long, nor behind cancellations of batches that nobody knows."""
    application_goes_on = threading.Event()

    def held(handle: Handle) -> Handle:
        def hold(message: Message, since: float | None) -> None:
            if message.routing_key == "process":
                application_goes_on.wait(PATIENCE)
            handle(message, since)

        return hold

    consume(service, held)
    application.ask("create", videos("A lake", id="nature", process=False))
    slow = [application.send("process", {"batch_id": "nature"}) for _ in range(20)]
    for number in range(20):
        application.send("cancel", {"batch_id": f"unknown-{number}"})
    started = monotonic()
    answer = application.ask("cancel", {"batch_id": "nature"})
    took = monotonic() - started
    application_goes_on.set()
    assert answer.data["summary"]["cancelled"] == 1
    assert took < CREATION_WAIT
    assert {application.answer(each).name for each in slow} == {"command.accepted"}


CREATION_WAIT = 4.0
"""Seconds: less than one unknown batch is waited for, so whoever stands behind one is found out."""


@pytest.mark.parametrize("name", ["process", "cancel"])
def test_a_command_may_come_before_the_creation_of_its_batch(
    name: str, application: Application, service: BatchService, consume: Callable[..., None]
) -> None:
    looked = threading.Event()

    def watched(handle: Handle) -> Handle:
        def watch(message: Message, since: float | None) -> None:
            if since is not None:
                looked.set()
            handle(message, since)

        return watch

    consume(service, watched)
    early = application.send(name, {"batch_id": "nature"})
    assert looked.wait(PATIENCE)
    application.ask("create", videos("A lake", id="nature", process=False))
    assert application.answer(early).key == "command.accepted.nature"
    assert not application.aside()


def test_a_restart_of_the_broker_loses_no_command_and_acknowledges_no_other(
    application: Application, service: BatchService, consume: Callable[..., None], rabbitmq: RabbitMQ
) -> None:
    """Those in hand when it dies are settled on a connection that is gone; their numbers are other messages' then."""
    in_hand, go_on = threading.Semaphore(0), threading.Event()

    def held(handle: Handle) -> Handle:
        def hold(message: Message, since: float | None) -> None:
            in_hand.release()
            go_on.wait(PATIENCE)
            handle(message, since)

        return hold

    consume(service, held)
    sent = [application.send("create", videos("A lake", id=f"b-{number}", process=False)) for number in range(30)]
    for _ in range(4):
        assert in_hand.acquire(timeout=PATIENCE)
    rabbitmq.kill()
    go_on.set()
    rabbitmq.start()
    application.reconnect()
    assert {application.answer(each).name for each in sent} == {"command.accepted"}
    for number in range(30):
        assert check_journal(service, f"b-{number}") == ["batch.created"]
    until(lambda: application.count(topology.COMMANDS) == 0)
    assert not application.aside()


def test_commands_that_come_while_the_broker_was_away_at_the_start_are_taken(
    application: Application, service: BatchService, consume: Callable[..., None], rabbitmq: RabbitMQ
) -> None:
    waiting = application.send("create", videos("A lake", id="nature", process=False))
    rabbitmq.kill()
    consume(service)
    rabbitmq.start()
    application.reconnect()
    assert application.answer(waiting).key == "command.accepted.nature"


def test_a_command_that_waits_for_its_batch_outlives_the_node(application: Application, rabbitmq: RabbitMQ) -> None:
    # When it comes back the time of many is up, and the queue that they go to may come later than theirs.
    sent = itertools.count()
    killer = threading.Timer(2 * topology.WAIT_MILLISECONDS / 1000, rabbitmq.kill)
    killer.start()
    with pytest.raises(pika.exceptions.AMQPError):
        _make_wait_without_end(application.channel, sent)
    killer.join()
    rabbitmq.start()
    application.reconnect()
    confirmed = next(sent) - 1
    until(lambda: application.count(topology.COMMANDS) >= confirmed)


def _make_wait_without_end(channel: Any, numbers: Iterator[int]) -> None:
    persistent = pika.BasicProperties(delivery_mode=2)
    for number in numbers:
        channel.basic_publish(topology.WAITING, "process", f"{number}".encode(), persistent, mandatory=True)
