"""A web server for files, which can fail as servers do, and remembers what it was asked."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Serving:
    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.redirects: dict[str, str] = {}
        self.token: str | None = None
        self.broken: list[int] = []
        """Each request that is served ends after the first of these numbers of bytes, which is used up."""
        self.statuses: list[int] = []
        self.ranges = True
        self.held: threading.Event | None = None
        """What is broken stays open until then, and silent."""
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def serving() -> Iterator[Serving]:
    state = Serving()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            state.asked.append((self.path, dict(self.headers)))
            if self.path in state.redirects:
                return self._end(302, b"", Location=state.redirects[self.path])
            if state.token and self.headers.get("Authorization") != f"Bearer {state.token}":
                return self._end(401, b'{"detail": "a token is needed"}')
            if state.statuses:
                return self._end(state.statuses.pop(0), b"{}", **{"Retry-After": "0"})
            body = state.files.get(self.path)
            if body is None:
                return self._end(404, b'{"detail": "no such video"}')
            found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            start = int(found.group(1)) if found and state.ranges else 0
            if start and start >= len(body):
                return self._end(416, b"")
            return self._end(206 if start else 200, body[start:], cut=state.broken.pop(0) if state.broken else None)

        def _end(self, status: int, body: bytes, cut: int | None = None, **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[:cut])
            if cut is not None:
                self.close_connection = True
                if state.held is not None:
                    self.wfile.flush()
                    state.held.wait(30)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        state.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        server.shutdown()
        thread.join()
