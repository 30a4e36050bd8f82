"""A way to a server on which answers to POSTs get lost: the server has taken the request and made its video by then."""

import select
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
            posted = None
            while True:
                for source in select.select([client, server], [], [])[0]:
                    piece = source.recv(_PIECE)
                    posted = piece.startswith(b"POST") if posted is None else posted
                    if source is server and posted and self._loses():
                        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST_ON_CLOSE)
                        return
                    if not piece:
                        return
                    (server if source is client else client).sendall(piece)

    def _loses(self) -> bool:
        with self._lock:
            loses = self._left > 0
            self._left -= loses
            self.lost += loses
        return loses
