"""The programs in docs/rabbitmq.md, as they stand there, against a service."""

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from actors.service import BatchService
from actors.web.listener import Listener
from tests.integration.application import Application
from tests.integration.support import PATIENCE, ROOT
from tests.javascript.node import node
from tests.provider.client import Provider
from tests.servers.port import HOST, Port

pytestmark = pytest.mark.integration


def programs(language: str) -> list[str]:
    text = (ROOT / "docs" / "rabbitmq.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.fixture
def run(application: Application, serving: BatchService) -> Callable[..., list[str]]:
    """Run a program; return the lines that it prints."""

    def run(*words: str) -> list[str]:
        done = subprocess.run(
            words, env=os.environ | {"AMQP_URL": application.url}, cwd=ROOT,
            capture_output=True, text=True, timeout=2 * PATIENCE, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return run


def check_made(lines: list[str], provider: Provider, folder: Path) -> None:
    """What the whole programs print, and that it is so."""
    assert lines[0].startswith("accepted")
    assert sorted(line.partition(" completed")[0] for line in lines[1:3]) == [
        "A sunset over the ocean",
        "City lights at night",
    ]
    assert [line.endswith(".mp4") for line in lines[3:]] == [True, True]
    assert len(provider.ledger()["videos"]) == 2
    assert len(list(folder.glob("videos/*/*.mp4"))) == 2


def test_the_python_program_makes_a_batch_and_sees_its_end(
    run: Callable[..., list[str]], provider: Provider, tmp_path: Path
) -> None:
    check_made(run(sys.executable, "-c", programs("python")[0]), provider, tmp_path)


def test_the_javascript_program_makes_a_batch_and_sees_its_end(
    serving: BatchService, application: Application, provider: Provider, tmp_path: Path
) -> None:
    done = node("-e", programs("js")[0], AMQP_URL=application.url)
    assert done.returncode == 0, done.stderr
    check_made(done.stdout.splitlines(), provider, tmp_path)


def test_the_javascript_program_gets_every_file_with_amqp_and_http_alone(
    application: Application, start_service: Callable[..., BatchService], consume: Callable[..., None], tmp_path: Path
) -> None:
    port = Port()
    address = f"{HOST}:{port.number}"
    service = start_service(amqp_url=application.url, web_public_url=f"http://{address}")
    consume(service)
    service.serve()
    listener = Listener(service, address, "secret")
    (films := tmp_path / "films").mkdir()
    try:
        done = node("-e", programs("js")[0], AMQP_URL=application.url, WEB_TOKEN="secret", FOLDER=str(films))
    finally:
        listener.close()
        port.release()
    assert done.returncode == 0, done.stderr
    (batch,) = service.list_batches()
    videos = {job.id: job.video for job in service.get_batch_status(batch.id).jobs}
    assert sorted(film.stem for film in films.iterdir()) == sorted(videos)
    for film in films.iterdir():
        assert hashlib.sha256(film.read_bytes()).hexdigest() == videos[film.stem].sha256


def test_the_client_makes_a_batch_and_sees_its_end(run: Callable[..., list[str]]) -> None:
    lines = run(sys.executable, "-c", programs("python")[1])
    assert lines[0] == "batch.created 0"
    assert lines[-2] == "batch.completed 100"
    assert lines[-1].endswith("-01 completed")
