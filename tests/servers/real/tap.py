"""A way to a server on which answers to POSTs get lost: the server has taken the request and made its video by then."""

import socket
import struct
import threading
from contextlib import suppress
from typing import Self

HOST = "127.0.0.1"
_RST_ON_CLOSE = struct.pack("ii", 1, 0)
_PIECE = 65_536


class Tap:
    """A port in front of a server's."""

    def __init__(self, url: str) -> None:
        self._target = int(url.rpartition(":")[2])
        self._listener = socket.create_server((HOST, 0))
        self.base_url = f"http://{HOST}:{self._listener.getsockname()[1]}/v1"
        self._left, self._lock = 0, threading.Lock()
        self.lost = 0

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def lose(self, answers: int) -> None:
        """Reset the connections of so many POSTs from now on when their answers begin."""
        with self._lock:
            self._left = answers

    def _accept(self) -> None:
        with suppress(OSError):  # it was closed
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError), socket.create_connection((HOST, self._target)) as server:
            first = client.recv(_PIECE)
            server.sendall(first)
            threading.Thread(target=_pass_on, args=[client, server], daemon=True).start()
            answer = server.recv(_PIECE)
            if first.startswith(b"POST") and self._loses():
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST_ON_CLOSE)
                return
            client.sendall(answer)
            _pass_on(server, client)

    def _loses(self) -> bool:
        with self._lock:
            loses = self._left > 0
            self._left -= loses
            self.lost += loses
        return loses


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(_PIECE):
            sink.sendall(piece)
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
