"""Fixtures of the integration tests: a provider that starts once, services that are closed, processes to kill."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from actors.rabbitmq.connection import Connection
from actors.rabbitmq.consumer import CommandConsumers, own_process
from actors.rabbitmq.handler import CommandHandler
from actors.service import BatchService
from tests.integration.application import Application
from tests.integration.support import Drivers, options_for, settings_from
from tests.provider.client import Provider
from tests.provider.options import Options
from tests.servers.rabbitmq import RabbitMQ

_OPTIONS = asdict(Options()) | {"latency": 0.05}


@pytest.fixture(scope="session")
def provider_process() -> Iterator[Provider]:
    with Provider() as provider:
        yield provider


@pytest.fixture
def provider(provider_process: Provider) -> Provider:
    """The Videos API, as new."""
    provider_process.reset()
    provider_process.options(**_OPTIONS)
    return provider_process


@pytest.fixture
def options(provider: Provider, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Settings for the provider, a database and a folder of the test's own; arguments change them."""

    def make(**changes: Any) -> dict[str, Any]:
        return options_for(provider.base_url, tmp_path, **changes)

    return make


@pytest.fixture
def start_service(options: Callable[..., dict[str, Any]]) -> Iterator[Callable[..., BatchService]]:
    """Start services; they are closed at the end."""
    started: list[BatchService] = []

    def start(**changes: Any) -> BatchService:
        started.append(BatchService(settings_from(options(**changes))))
        return started[-1]

    yield start
    for service in started:
        service.close()


@pytest.fixture
def service(start_service: Callable[..., BatchService]) -> BatchService:
    return start_service()


@pytest.fixture(scope="session")
def drivers_process() -> Iterator[Drivers]:
    drivers = Drivers()
    yield drivers
    drivers.close()


@pytest.fixture
def drivers(drivers_process: Drivers) -> Iterator[Drivers]:
    """Processes to be killed."""
    yield drivers_process
    drivers_process.reset()


@pytest.fixture
def application(rabbitmq: RabbitMQ) -> Iterator[Application]:
    """A program beside the service; the queues are as new."""
    with Application(rabbitmq.url) as application:
        yield application


@pytest.fixture
def consume(rabbitmq: RabbitMQ) -> Iterator[Callable[..., None]]:
    """Consume commands for a service; `around` gets between."""
    own_process()  # as `serve` does
    started: list[tuple[threading.Event, CommandConsumers, Connection]] = []

    def start(service: BatchService, around: Callable[[Any], Any] = lambda handle: handle) -> None:
        stopping, publisher = threading.Event(), Connection(rabbitmq.url)
        handler = CommandHandler(service, publisher.publish, stopping)
        consumers = CommandConsumers(rabbitmq.url, around(handler.handle))
        started.append((stopping, consumers, publisher))
        publisher.start()
        consumers.start()

    yield start
    for stopping, consumers, publisher in started:
        stopping.set()
        consumers.stop()
        publisher.close()


@pytest.fixture
def serving(
    application: Application, start_service: Callable[..., BatchService], consume: Callable[..., None]
) -> BatchService:
    """A service that takes commands and publishes."""
    service = start_service(amqp_url=application.url)
    consume(service)
    service.serve()
    return service
