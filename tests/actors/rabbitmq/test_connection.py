"""What becomes of a connection, and of what is handed to it, when it is closed. (All else is tested on a real broker.)"""

import errno
import socket
import threading
from unittest.mock import Mock

import pika
import pytest

from actors.errors import SettingsError
from actors.rabbitmq.connection import Connection, State
from actors.rabbitmq.refusals import ConnectionGone
from actors.service import BatchService
from actors.settings import Settings
from tests.integration.support import until

PATIENCE = 10


def publish(connection):
    return connection.publish("exchange", "key", b"{}", pika.BasicProperties())


def test_one_that_nobody_used_is_closed_at_once():
    connection = Connection("amqp://127.0.0.1:1/")
    connection.close()
    assert not connection.started


def test_what_is_handed_to_a_closed_one_fails():
    connection = Connection("amqp://127.0.0.1:1/")
    connection.close()
    with pytest.raises(ConnectionGone):
        publish(connection).result(PATIENCE)


def test_what_was_never_published_fails_when_it_is_closed(caplog):
    caplog.set_level("CRITICAL")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        connection = Connection(f"amqp://127.0.0.1:{nobody.getsockname()[1]}/")
        left = publish(connection)
        connection.close()
    assert isinstance(left.exception(PATIENCE), ConnectionGone)
    assert connection.state is State.CLOSED


def test_one_that_is_closed_while_it_is_being_opened_is_broken_off():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        connection = Connection(f"amqp://127.0.0.1:{silent.getsockname()[1]}/")
        left = publish(connection)
        peer, _ = silent.accept()
        with peer:
            peer.settimeout(PATIENCE)
            assert peer.recv(8).startswith(b"AMQP")
            connection.close()
            assert peer.recv(8) == b""
    assert isinstance(left.exception(PATIENCE), ConnectionGone)


def test_one_that_is_reset_while_it_is_being_opened_is_away_as_any_other(caplog, monkeypatch):
    monkeypatch.setattr(socket.socket, "getpeername", Mock(side_effect=OSError(errno.ENOTCONN, "not connected")))
    with socket.create_server(("127.0.0.1", 0)) as server:
        connection = Connection(f"amqp://127.0.0.1:{server.getsockname()[1]}/")
        connection.start()
        until(lambda: connection.state is State.AWAY)
        connection.close()
    assert [record.levelname for record in caplog.records if record.name.startswith("actors")] == ["WARNING"]


def test_a_url_that_is_none_leaves_no_thread_behind(tmp_path):
    before = set(threading.enumerate())
    settings = Settings(_env_file=None, amqp_url="http://localhost", database_url=f"sqlite:///{tmp_path}/batches.db")
    with pytest.raises(SettingsError, match="AMQP_URL can't be used"):
        BatchService(settings)
    assert set(threading.enumerate()) <= before
