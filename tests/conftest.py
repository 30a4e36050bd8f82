"""What all tests share: a database, SQLite's and PostgreSQL's, and the storage on it."""

import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from actors.logs import OURS
from storage.database import Database
from storage.storage import Storage
from tests.servers.postgresql import PostgreSQL
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.s3 import S3Server, s3_server

# How long an example takes is the machine's affair, which may be busy with something else.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `-n`: a file's tests share what they start, and the files with the fewest tests are not the quickest."""
    from xdist.scheduler import LoadFileScheduling

    config.option.loadscopereorder = False
    return LoadFileScheduling(config, log)


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Whatever a command that is called in this process logs, and from which level on, the next test does not."""
    root = logging.getLogger()
    levels = {name: logging.getLogger(name).level for name in ("", *_our_loggers())}
    handlers, of_threads = list(root.handlers), threading.excepthook
    yield
    threading.excepthook = of_threads
    root.handlers[:] = handlers
    for name in ("", *_our_loggers()):  # those that it made among them
        logging.getLogger(name).setLevel(levels.get(name, logging.NOTSET))


def _our_loggers() -> list[str]:
    return [name for name in logging.root.manager.loggerDict if name.partition(".")[0] in {*OURS, "pika"}]


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """One server for all tests that only need a database of it. Whoever kills servers starts another."""
    with PostgreSQL() as server:
        yield server


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitMQ]:
    """One node for all tests; who kills it starts it again."""
    with RabbitMQ() as node:
        yield node


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server("moto", tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture(scope="module")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server("rclone", tmp_path_factory.mktemp("rclone")) as server:
        yield server


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database of the test's own."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/test.db"
        return
    server: PostgreSQL = request.getfixturevalue("postgresql")
    name = server.create_database()
    yield server.url(name)
    server.drop_database(name)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    database.open()
    yield database
    database.close()


@pytest.fixture
def storage(database: Database) -> Iterator[Storage]:
    """All repositories, with a connection for the test's thread."""
    with database.connection():
        yield Storage(database)
