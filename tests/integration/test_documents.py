"""The programs in docs/rabbitmq.md, as they stand there, against a service."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actors.commands.consumer import CommandConsumers
from actors.commands.handler import CommandHandler
from actors.service import BatchService
from tests.integration.support import PATIENCE, ROOT
from tests.provider.client import Provider
from tests.servers.rabbitmq import RabbitMQ

pytestmark = pytest.mark.integration


def program(language: str) -> str:
    (text,) = re.findall(
        rf"^```{language}\n(.*?)^```$", (ROOT / "docs" / "rabbitmq.md").read_text(), re.MULTILINE | re.DOTALL
    )
    return str(text)


@pytest.mark.usefixtures("application")
def test_the_python_program_makes_a_batch_and_sees_its_end(
    start_service: Callable[..., BatchService], rabbitmq: RabbitMQ, provider: Provider, tmp_path: Path
) -> None:
    service, stopping = start_service(amqp_url=rabbitmq.url), threading.Event()
    connection: Any = service.broker
    consumers = CommandConsumers(rabbitmq.url, CommandHandler(service, connection.publish, stopping).handle)
    consumers.start()
    try:
        service.serve()
        done = subprocess.run(
            [sys.executable, "-c", program("python")], env=os.environ | {"AMQP_URL": rabbitmq.url},
            capture_output=True, text=True, timeout=2 * PATIENCE, check=False,
        )  # fmt: skip
    finally:
        stopping.set()
        consumers.stop()
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("accepted")
    assert sorted(line.partition(" completed")[0] for line in lines[1:3]) == [
        "A sunset over the ocean",
        "City lights at night",
    ]
    assert [line.endswith(".mp4") for line in lines[3:]] == [True, True]
    assert len(provider.ledger()["videos"]) == 2
    assert list(tmp_path.glob("videos/*/*.mp4"))
