"""The client for applications against a real broker and a service."""

import asyncio
import contextlib
import logging
import re
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import dramatiq.worker
import pika
import pytest

from actors import AsyncBatchClient, BatchClient, Conflict, InvalidRequest, NotFound, SettingsError, Unanswered
from actors.batch.events import Event
from actors.rabbitmq import topology
from actors.rabbitmq.client.rpc import OutgoingCommand, RpcConnection
from actors.service import BatchService
from tests.integration.application import Application
from tests.integration.support import PATIENCE, check_paid_once, numbered, until, videos
from tests.provider.client import Provider
from tests.servers.port import HOST, Port
from tests.servers.rabbitmq import RabbitMQ

pytestmark = pytest.mark.integration


@pytest.fixture
def client(rabbitmq: RabbitMQ) -> Iterator[BatchClient]:
    with BatchClient(rabbitmq.url, source="/shop") as client:
        yield client


def sequences(events: list[Event]) -> list[int]:
    return [int(event.sequence) for event in events]


def test_a_batch_is_made_and_every_event_of_it_is_seen_once(
    serving: BatchService, client: BatchClient, provider: Provider
) -> None:
    batch_id = client.create(videos(*numbered(3)))
    with client.events(batch_id) as stream:
        events = list(stream)
    assert sequences(events) == list(range(1, len(events) + 1))
    assert [event.name for event in (events[0], events[-1])] == ["batch.created", "batch.completed"]
    assert events == serving.history(batch_id)
    assert client.report(batch_id) == serving.get_batch_status(batch_id)
    check_paid_once(provider)


def test_who_joins_late_is_told_the_past(serving: BatchService, client: BatchClient) -> None:
    batch_id = client.create(videos(*numbered(2)))
    until(lambda: serving.get_batch_status(batch_id).finished)
    past = serving.history(batch_id)
    assert list(client.events(batch_id)) == past
    assert list(client.events(batch_id, from_sequence=3)) == past[2:]
    with client.events(batch_id, from_sequence=None) as stream:
        assert (list(stream), stream.batch.status, stream.sequence) == ([], "completed", len(past))


def test_what_was_pruned_is_not_waited_for(serving: BatchService, client: BatchClient) -> None:
    batch_id = client.create(videos("A lake"))
    until(lambda: serving.get_batch_status(batch_id).finished)
    until(lambda: serving.prune(timedelta(0)).events)
    assert list(client.events(batch_id)) == []


def test_a_batch_is_updated_while_it_is_made_and_deleted_when_it_has_ended(
    serving: BatchService, client: BatchClient, provider: Provider
) -> None:
    provider.options(latency=60.0)
    batch_id = client.create(videos("A lake"))
    with client.events(batch_id) as stream:
        until(lambda: serving.get_batch_status(batch_id).progress.processing)
        client.update(batch_id, {"order": 17}, {"amount": "2.5", "unit": "USD"})
        client.update(batch_id, metadata={"order": 17})
        assert client.report(batch_id).metadata == {"order": 17}
        with pytest.raises(Conflict, match="cancel it first"):
            client.delete(batch_id)
        client.cancel(batch_id)
        told = [(event.name, event.data) for event in stream]
    (updated,) = [data for name, data in told if name == "batch.updated"]
    assert updated["metadata"] == {"order": 17}
    assert updated["budget"] == [{"amount": "2.5", "unit": "USD"}]
    assert told[-1][1]["batch"]["metadata"] == {"order": 17}
    with pytest.raises(InvalidRequest, match="changes nothing"):
        client.update(batch_id)
    with client.subscribe(f"batch.deleted.{batch_id}.#") as feed:
        client.delete(batch_id)
        assert until(lambda: feed.next(0.1))["data"]["batch_id"] == batch_id
    for gone in (client.report, client.delete):
        with pytest.raises(NotFound):
            gone(batch_id)


def test_a_batch_that_goes_on_is_followed_over_its_first_end(
    serving: BatchService, client: BatchClient, provider: Provider
) -> None:
    provider.fault(on="create", do="answer", status=400)
    batch_id = client.create(videos("A lake"))
    until(lambda: serving.get_batch_status(batch_id).status == "failed")
    client.retry(batch_id, [f"{batch_id}-01"])
    until(lambda: serving.get_batch_status(batch_id).status == "completed")
    names = [event.name for event in client.events(batch_id)]
    assert names.count("batch.failed") == 1
    assert names[-1] == "batch.completed"


def test_a_pending_batch_is_processed_and_cancelled_by_commands(
    serving: BatchService, client: BatchClient, provider: Provider
) -> None:
    provider.options(latency=60.0)
    batch_id = client.create(videos(*numbered(3), id="nature"), process=False)
    assert serving.get_batch_status(batch_id).status == "pending"
    client.process(batch_id, 2)
    until(lambda: serving.get_batch_status(batch_id).progress.processing == 2)
    summary = client.cancel(batch_id, "wrong prompts")
    assert (summary.cancelled, summary.total) == (3, 3)
    assert len(summary.may_be_charged) == 2
    assert [event.name for event in client.events(batch_id)][-1] == "batch.cancelled"


@pytest.mark.usefixtures("serving")
def test_refusals_are_errors_that_say_what_is_wrong(client: BatchClient) -> None:
    with pytest.raises(InvalidRequest, match=r"videos\[0\]\.duration") as refused:
        client.create({"videos": [{"prompt": "A lake", "duration": "long"}]})
    assert refused.value.errors[0].field == "/videos/0/duration"
    with pytest.raises(InvalidRequest, match="1 to 64 letters"):
        client.create(videos("A lake", id="not # an id"))
    with pytest.raises(InvalidRequest, match="JSON"):
        client.create(videos("A lake", metadata={"when": object()}))
    for ask in (client.report, client.events):
        with pytest.raises(NotFound, match="nowhere"):
            ask("nowhere")  # type: ignore[operator]
    for ask in (client.report, client.cancel, client.events):
        with pytest.raises(NotFound, match="an id is"):
            ask("no.id")  # type: ignore[operator]
    batch_id = client.create(videos("A lake"), process=False)
    with pytest.raises(Conflict):
        client.create(videos("A sea", id=batch_id))


def test_the_same_command_is_sent_again_when_the_connection_was_lost(
    serving: BatchService, client: BatchClient, mocker: Any
) -> None:
    """It was taken, and its answer was lost with the connection."""
    original, sent = RpcConnection.send, list[str]()

    def send(line: RpcConnection, order: OutgoingCommand) -> None:
        original(line, order)
        sent.append(order.id)
        if len(sent) == 1:
            line.close()
            raise pika.exceptions.StreamLostError("cut")

    mocker.patch("actors.rabbitmq.client.rpc.RpcConnection.send", send)
    batch_id = client.create(videos("A lake"))
    assert sent == [sent[0]] * 2
    assert [batch.id for batch in serving.list_batches()] == [batch_id]


def test_a_stream_goes_on_where_it_was_when_the_node_was_killed(
    rabbitmq: RabbitMQ, application: Application, serving: BatchService, client: BatchClient, provider: Provider
) -> None:
    provider.options(latency=0.5)
    batch_id = client.create(videos(*numbered(4), concurrency=1))
    events: list[Event] = []
    with client.events(batch_id) as stream:
        until(lambda: (event := stream.next(0.1)) is not None and (events.append(event) or len(events) == 4))
        rabbitmq.kill()
        until(lambda: serving.get_batch_status(batch_id).finished)
        rabbitmq.start()
        application.reconnect()
        events += list(stream)
    assert sequences(events) == list(range(1, len(events) + 1))
    assert events[-1].name == "batch.completed"


def test_nobody_answers(application: Application) -> None:
    with BatchClient(application.url, timeout=0.2) as client:
        with pytest.raises(Unanswered, match="sora-batch serve"):
            client.report("nature")
        with pytest.raises(Unanswered, match="sora-batch serve"):
            client.events("nature")


def test_a_create_that_nobody_answered_is_not_paid_for_twice_when_it_is_sent_again(
    application: Application,
    client: BatchClient,
    provider: Provider,
    start_service: Callable[..., BatchService],
    consume: Callable[..., None],
) -> None:
    with (
        BatchClient(application.url, timeout=0.2) as hasty,
        pytest.raises(Unanswered, match="A new batch would be paid for again") as told,
    ):
        hasty.create(videos("A lake"))
    assert told.value.sent
    (batch_id,) = re.findall(r"with the id (\S+) is the same", str(told.value))
    service = start_service(amqp_url=application.url)
    consume(service)
    service.serve()
    assert client.create(videos("A lake", id=batch_id)) == batch_id
    assert list(client.events(batch_id))[-1].name == "batch.completed"
    assert check_paid_once(provider)["accepted"] == 1


def test_no_broker_is_there() -> None:
    port = Port()
    with BatchClient(f"amqp://guest:secret@{HOST}:{port.number}/") as client:
        with pytest.raises(Unanswered, match="refused") as unreachable:
            client.create(videos("A lake"))
        assert "secret" not in str(unreachable.value)
        assert not unreachable.value.sent
        with pytest.raises(Unanswered, match="refused"):
            client.subscribe()
    port.release()


def test_no_broker_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AMQP_URL", raising=False)
    with pytest.raises(SettingsError, match="AMQP_URL is not set"):
        BatchClient()


def test_asyncio(rabbitmq: RabbitMQ, serving: BatchService) -> None:
    async def program() -> list[Event]:
        async with AsyncBatchClient(rabbitmq.url) as client:
            batch_id = await client.create(videos("A lake"), process=False)
            await client.process(batch_id)
            events = [event async for event in client.events(batch_id)]
            assert (await client.report(batch_id)).finished
            with pytest.raises(Conflict):
                await client.retry(batch_id)
            with pytest.raises(Conflict):
                await client.cancel(batch_id)
        return events

    events = asyncio.run(program())
    assert events == serving.history(str(events[0].data["batch_id"]))


def test_a_feed_brings_all_that_matches(serving: BatchService, client: BatchClient) -> None:
    with client.subscribe("batch.completed.#", "command.*.nature.#") as feed:
        client.create(videos("A lake", id="nature"))
        documents = [next(feed), next(feed)]
    assert [document["type"] for document in documents] == [
        "sora-batch.command.accepted.v1",
        "sora-batch.batch.completed.v1",
    ]
    assert list(feed) == []
    assert serving.get_batch_status("nature").finished


@pytest.mark.usefixtures("serving")
def test_an_asyncio_feed(rabbitmq: RabbitMQ) -> None:
    async def program() -> dict[str, Any]:
        async with AsyncBatchClient(rabbitmq.url) as client:
            feed = client.subscribe()
            first = asyncio.ensure_future(anext(feed))
            while not first.done():
                await client.create(videos("A lake"), process=False)
            await feed.aclose()  # type: ignore[attr-defined]
            return await first

    assert asyncio.run(program())["specversion"] == "1.0"


class Nobody(ThreadPoolExecutor):
    """The executor of a program whose threads are all busy."""

    def submit(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("a thread of the program's was taken")


def test_streams_take_no_thread_of_the_program(serving: BatchService, rabbitmq: RabbitMQ, provider: Provider) -> None:
    """And their own ends with each of them, also of one whose task is cancelled."""
    provider.options(latency=1.0)

    async def names(client: AsyncBatchClient, batch_id: str) -> list[str]:
        return [event.name async for event in client.events(batch_id)]

    async def first(client: AsyncBatchClient) -> dict[str, Any]:
        async for document in client.subscribe():
            return document
        raise AssertionError

    async def program() -> list[list[str]]:
        asyncio.get_running_loop().set_default_executor(Nobody())
        async with AsyncBatchClient(rabbitmq.url) as client:
            async with asyncio.timeout(PATIENCE):
                while not await client.listening():  # its consumers may just be registering
                    continue
            told = asyncio.ensure_future(first(client))
            waiting = asyncio.ensure_future(names(client, await client.create(videos("A sea"), process=False)))
            batch_id = await client.create(videos("A lake"))
            streams = [asyncio.ensure_future(names(client, batch_id)) for _ in range(10)]
            seen = await asyncio.gather(*streams)
            assert (await client.report(batch_id)).status == "completed"
            await told
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            asyncio.get_running_loop()._default_executor = None  # type: ignore[attr-defined]
            return seen

    seen = asyncio.run(program())
    assert {each[-1] for each in seen} == {"batch.completed"}
    until(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("sora-client")])


def test_nobody_listens_is_told_and_the_command_waits(client: BatchClient, application: Application) -> None:
    client.timeout = 0.5
    assert not client.listening()
    with pytest.raises(Unanswered, match="no service is listening") as unanswered:
        client.create(videos("A lake", id="nature"))
    assert (unanswered.value.sent, unanswered.value.queued) == (True, True)
    assert "the same request with the id nature is the same batch" in str(unanswered.value)
    assert application.count(topology.COMMANDS) == 1
    queued: list[str] = []

    def enough(batch_id: str) -> None:
        queued.append(batch_id)
        raise InterruptedError

    client.timeout = 30.0
    with pytest.raises(InterruptedError):
        client.create(videos("A lake", id="nature"), queued=enough)
    assert queued == ["nature"]
    assert application.count(topology.COMMANDS) == 2


def _global_state() -> list[Any]:
    names = ["", "pika", "dramatiq", "actors", *(name for name in logging.Logger.manager.loggerDict if "pika" in name)]
    loggers = [logging.getLogger(name) for name in sorted(names)]
    handlers = [signal.getsignal(number) for number in signal.valid_signals()]
    levels = [(each.name, each.level, each.propagate, list(each.handlers)) for each in loggers]
    return [
        levels,
        handlers,
        list(warnings.filters),
        dramatiq.worker.CONSUMER_RESTART_DELAY_SECS,
        dict(pika.spec.props),
    ]


def test_the_library_leaves_the_state_of_its_program_alone_and_is_silent(
    rabbitmq: RabbitMQ, start_service: Callable[..., BatchService], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    before = _global_state()
    port = Port()
    with contextlib.ExitStack() as stack:
        stack.callback(port.release)
        away = f"amqp://guest:guest@{HOST}:{port.number}/"
        service = start_service(amqp_url=away)
        service.create_batch(videos("A lake"))
        until(lambda: "RabbitMQ is unreachable; retrying" in caplog.messages)
        with pytest.raises(Unanswered):
            BatchClient(away).create(videos("A lake"))
        with BatchClient(rabbitmq.url, timeout=0.5) as client, pytest.raises(Unanswered):
            client.report("nature")
        assert not [record for record in caplog.records if record.name.startswith("pika")]
        with pytest.raises(pika.exceptions.AMQPConnectionError):
            pika.BlockingConnection(pika.URLParameters(away))
    assert [record for record in caplog.records if record.name.startswith("pika")]  # of its own connections it is told
    assert _global_state() == before
