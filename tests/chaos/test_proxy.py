"""The tests' own network: what it passes on, and how it fails."""

import socket
import threading
from collections.abc import Iterator
from time import monotonic

import pytest

from tests.chaos.proxy import HOST, Network, Proxy

PATIENCE = 10.0


class Echo:
    """A server that says what it hears, and counts whom it has taken."""

    def __init__(self) -> None:
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self.taken: list[socket.socket] = []
        self.came = threading.Semaphore(0)
        self._threads = [threading.Thread(target=self._take, daemon=True)]
        self._threads[0].start()

    def _take(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.taken.append(connection)
            self.came.release()
            self._threads.append(threading.Thread(target=self._answer, args=(connection,), daemon=True))
            self._threads[-1].start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            try:
                while heard := connection.recv(1024):
                    connection.sendall(heard)
            except OSError:
                pass

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(PATIENCE)


@pytest.fixture
def echo() -> Iterator[Echo]:
    echo = Echo()
    yield echo
    echo.close()


@pytest.fixture
def network() -> Iterator[Network]:
    with Network() as network:
        yield network


@pytest.fixture
def proxy(echo: Echo, network: Network) -> Proxy:
    return network.proxy(echo.port)


def connect(proxy: Proxy, timeout: float = PATIENCE) -> socket.socket:
    return socket.create_connection((HOST, proxy.port), timeout=timeout)


def say(client: socket.socket, words: bytes = b"hello") -> bytes:
    client.sendall(words)
    return client.recv(1024)


def test_what_is_said_is_passed_on_both_ways(proxy: Proxy) -> None:
    with connect(proxy) as one, connect(proxy) as other:
        assert say(one) == b"hello"
        assert say(other, b"you") == b"you"


def test_an_end_is_passed_on_after_what_was_said(proxy: Proxy) -> None:
    with connect(proxy) as client:
        assert say(client) == b"hello"
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1024) == b""


def test_a_cut_resets_all_connections_and_new_ones_pass(proxy: Proxy) -> None:
    with connect(proxy) as one, connect(proxy) as other, connect(proxy) as later:
        assert say(one) == say(other) == b"hello"
        assert proxy.cut() >= 2
        for client in (one, other):
            with pytest.raises(ConnectionResetError):
                client.recv(1024)
        later.close()
    with connect(proxy) as client:
        assert say(client) == b"hello"


def test_a_delay_holds_for_what_passes_until_it_is_mended(proxy: Proxy) -> None:
    with connect(proxy) as client:
        assert say(client) == b"hello"
        proxy.delay(0.1)
        started = monotonic()
        assert say(client) == b"hello"
        assert monotonic() - started >= 0.2  # there and back
        proxy.mend()
        assert say(client) == b"hello"  # it was only late, and goes on


def test_a_half_open_connection_hears_nothing_and_is_reset_when_it_is_mended(proxy: Proxy) -> None:
    with connect(proxy, timeout=0.2) as client:
        assert say(client) == b"hello"
        proxy.half_open()
        with pytest.raises(TimeoutError):
            say(client)
        client.settimeout(PATIENCE)
        proxy.mend()
        with pytest.raises(ConnectionResetError):
            client.recv(1024)


def test_a_connection_that_is_made_meanwhile_is_half_open_too(proxy: Proxy) -> None:
    proxy.half_open()
    with connect(proxy, timeout=0.2) as client, pytest.raises(TimeoutError):
        say(client)
    proxy.mend()
    with connect(proxy) as client:
        assert say(client) == b"hello"


def test_the_server_does_not_hear_that_a_half_open_client_left(proxy: Proxy, echo: Echo) -> None:
    with connect(proxy) as client:
        assert say(client) == b"hello"
        assert echo.came.acquire(timeout=PATIENCE)
        proxy.half_open()
    (server,) = echo.taken
    poll = threading.Event()
    assert not poll.wait(0.1)  # an end that was passed on would be here by now
    assert server.fileno() != -1
    proxy.mend()


def test_a_connection_to_a_server_that_is_away_is_reset(network: Network) -> None:
    with socket.create_server((HOST, 0)) as listener:
        free = listener.getsockname()[1]
    away = network.proxy(free)
    with pytest.raises(ConnectionError), connect(away) as client:
        client.recv(1024) or pytest.fail("it was closed in order")
