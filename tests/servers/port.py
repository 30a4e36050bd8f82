"""A port for a server that tests kill and start again."""

import socket
import sys

HOST = "127.0.0.1"


class Port:
    """A free port on loopback, and on Linux ours even while no server listens there.

    A socket that is bound and does not listen refuses connections as a closed port does, lets a server that
    reuses addresses listen there, and keeps the kernel from giving the port to anybody else.
    """

    def __init__(self) -> None:
        self._guard = socket.socket()
        self._guard.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._guard.bind((HOST, 0))
        self.number: int = self._guard.getsockname()[1]
        if sys.platform != "linux":  # a server could not bind there beside it
            self.release()

    def release(self) -> None:
        self._guard.close()
