"""RabbitMQ for the benchmarks' own tests."""

from collections.abc import Iterator

import pytest

from tests.servers.rabbitmq import RabbitMQ


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitMQ]:
    with RabbitMQ() as node:
        yield node
