"""A broker that an operator gave docs/rabbitmq-definitions.json suits the program, and every command has its queue."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pika
import pytest

from actors import BatchClient, BatchService
from actors.cli.checks import rabbitmq as look
from actors.rabbitmq import topology
from actors.rabbitmq.consumer import CommandConsumers
from actors.rabbitmq.handler import CommandHandler
from actors.settings import Settings
from tests.docs.definitions_document import document
from tests.integration.support import until, videos
from tests.servers.rabbitmq import RabbitMQ

pytestmark = pytest.mark.integration


def test_a_broker_that_was_given_the_definitions_suits_the_program(rabbitmq: RabbitMQ) -> None:
    url = rabbitmq.fresh_url()
    given = Path(rabbitmq._folder, "definitions.json")  # where the node's user can read it
    given.write_text(document(url.rpartition("/")[2]))
    rabbitmq.control("import_definitions", str(given))
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        for key in (*topology.OTHER_COMMANDS, "cancel", "cancle"):
            channel.basic_publish(topology.COMMANDS, key, key.encode(), mandatory=True)
        topology.declare(channel)  # it closes the channel where something differs
        counts = {
            name: channel.queue_declare(name, passive=True).method.message_count
            for name in (topology.COMMANDS, topology.CANCELS, topology.UNREADABLE, topology.WAITING)
        }
        cancellation = channel.basic_get(topology.CANCELS, auto_ack=True)[2]
    assert list(counts.values()) == [len(topology.OTHER_COMMANDS) + 1, 1, 0, 0]
    assert cancellation == b"cancel"


def test_the_doctor_declares_and_counts(rabbitmq: RabbitMQ) -> None:
    settings = Settings(_env_file=None, amqp_url=rabbitmq.fresh_url())  # type: ignore[call-arg]
    assert "doctor --declare" in look(settings).message
    found = look(settings, declare=True)
    assert found == look(settings)
    assert not found.ok
    assert "no consumer on sora.batch.commands and sora.batch.cancels" in found.message
    assert "sora.batch.commands: consumers: 0, messages: 0" in found.message
    assert f"messages in {topology.UNREADABLE}: 0" in found.message
    assert topology.DEAD not in found.message


def test_the_doctor_says_when_the_old_queue_may_go(rabbitmq: RabbitMQ) -> None:
    url = rabbitmq.fresh_url()
    settings = Settings(_env_file=None, amqp_url=url)  # type: ignore[call-arg]
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare(topology.DEAD, durable=True)
        channel.basic_publish("", topology.DEAD, b"as it came", mandatory=True)
        assert f"{topology.DEAD} holds 1 messages" in look(settings, declare=True).message
        channel.queue_purge(topology.DEAD)
        assert f"{topology.DEAD} is empty and no longer used; delete it" in look(settings).message
        channel.queue_delete(topology.DEAD)
        assert topology.DEAD not in look(settings, declare=True).message  # nobody makes it again


def test_commands_go_through_classic_queues_too(rabbitmq: RabbitMQ, start_service: Callable[..., BatchService]) -> None:
    url = rabbitmq.fresh_url()
    service, stopping = start_service(amqp_url=url, amqp_queue_type="classic"), threading.Event()
    connection: Any = service.broker
    consumers = CommandConsumers(url, CommandHandler(service, connection.publish, stopping).handle, "classic")
    consumers.start()
    try:
        service.serve()
        virtual_host = url.rpartition("/")[2]
        until(lambda: topology.CANCELS in rabbitmq.control("list_queues", "-p", virtual_host, "name"))
        with BatchClient(url) as client:  # it finds other queues than it would make, and uses them
            batch_id = client.create(videos("A lake"))
            assert list(client.events(batch_id))[-1].name == "batch.completed"
    finally:
        stopping.set()
        consumers.stop()
    assert "classic" in rabbitmq.control("list_queues", "-p", virtual_host, "type")
