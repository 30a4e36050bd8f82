"""S3 servers that others wrote, moto and rclone, and a gate in front of them that fails where a test wants it.

rclone ignores conditions on a PUT and a GET's range, verifies signatures, and refuses short keys. moto believes any
signature, keeps objects in memory, and tells which uploads were left open.
"""

from __future__ import annotations

import http.client
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

from tests.servers.port import HOST, Port

KEY, SECRET = "AKIDFORTHETESTS01", "a-secret-that-is-long-enough"
BUCKET = "films"
_STARTS = 30.0
Kind = Literal["moto", "rclone"]


class S3Server:
    """One server with one bucket."""

    def __init__(self, kind: Kind, folder: Path, *options: str) -> None:
        """`options`: further ones of its command."""
        self.kind, self._folder, self._options = kind, folder, options
        self._port = Port()
        self.port = self._port.number
        self._process: subprocess.Popen[bytes] | None = None
        (folder / BUCKET).mkdir(parents=True, exist_ok=True)
        self.start()

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def start(self) -> None:
        """Start it, again if need be: moto has forgotten everything then."""
        programs = Path(sys.executable).parent
        if self.kind == "moto":
            command = [programs / "moto_server", "-H", HOST, "-p", str(self.port)]
        else:
            keys = f"{KEY},{SECRET}"
            command = [programs / "rclone", "--config", self._folder / "none.conf", "serve", "s3"]
            command += ["--addr", f"{HOST}:{self.port}", "--auth-key", keys, "--vfs-cache-mode", "off", self._folder]
        command += self._options
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._wait()
        if self.kind == "moto":
            self.ask("PUT", f"/{BUCKET}")

    def _wait(self) -> None:
        pause, until = threading.Event(), time.monotonic() + _STARTS
        while True:
            assert self._process is not None
            assert self._process.poll() is None, f"{self.kind} has ended"
            try:
                self.ask("GET", "/")
            except OSError:
                assert time.monotonic() < until, f"{self.kind} does not start"
                pause.wait(0.02)
            else:
                return

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Ask without a signature, as moto allows."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=10)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def open_uploads(self) -> int:
        """How many multipart uploads were neither completed nor aborted."""
        if self.kind == "rclone":
            return len(list(self._folder.rglob(".rclone_temp_*")))
        return self.ask("GET", f"/{BUCKET}?uploads")[1].count(b"<UploadId>")

    def abort_uploads(self) -> None:
        """Abort them, as the lifecycle rule of a bucket does when they are old."""
        if self.kind == "rclone":
            for left in self._folder.rglob(".rclone_temp_*"):
                left.unlink()
            return
        listed = self.ask("GET", f"/{BUCKET}?uploads")[1].decode()
        for upload, key in re.findall(r"<UploadId>(.*?)</UploadId>\s*<Key>(.*?)</Key>", listed):
            self.ask("DELETE", f"/{BUCKET}/{key}?uploadId={upload}")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def end(self) -> None:
        self.kill()
        self._port.release()

    def settings(self, prefix: str, port: int | None = None) -> dict[str, str]:
        """The environment that leads to a folder of the bucket, perhaps through a gate."""
        return {
            "VIDEO_STORE": f"s3://{BUCKET}/{prefix}",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://{HOST}:{port or self.port}",
        }


@dataclass
class Fault:
    """What the gate does instead of passing a request on."""

    method: str
    where: str
    """A pattern that is looked for in the path and the query."""
    status: int | None = None
    """Answer with it; None: cut the connection."""
    code: str = "SlowDown"
    times: int = 1_000_000
    after: bool = False
    """The server is asked all the same: its answer is what is lost."""
    held: threading.Event | None = None
    """Wait for it first."""
    met: threading.Event = field(default_factory=threading.Event)
    """Set when a request has met it."""
    passed: threading.Event = field(default_factory=threading.Event)
    """Set when the server has answered one that has met it."""


class Gate:
    """Passes requests on to a server, but for those that meet a fault; keeps what it was asked."""

    def __init__(self, server: S3Server) -> None:
        self.server = server
        self.asked: list[tuple[str, str]] = []
        """Method, and path with query."""
        self._faults: list[Fault] = []
        gate = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def handle(self) -> None:
                with suppress(OSError):
                    super().handle()

            def __getattr__(self, name: str) -> Any:
                if name.startswith("do_"):
                    return lambda: gate._pass(self)
                raise AttributeError(name)

        self._http = ThreadingHTTPServer((HOST, 0), Handler)
        self._http.daemon_threads = True
        self.port = self._http.server_port
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def fault(self, fault: Fault) -> Fault:
        self._faults.append(fault)
        return fault

    def mend(self) -> None:
        self._faults.clear()

    def close(self) -> None:
        for fault in self._faults:
            if fault.held is not None:
                fault.held.set()
        self._http.shutdown()
        self._http.server_close()

    def settings(self, prefix: str) -> dict[str, str]:
        return self.server.settings(prefix, self.port)

    def _fault_of(self, method: str, path: str) -> Fault | None:
        for fault in list(self._faults):
            if fault.times and fault.method == method and re.search(fault.where, path):
                fault.times -= 1
                return fault
        return None

    def _pass(self, request: BaseHTTPRequestHandler) -> None:
        self.asked.append((request.command, request.path))
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        fault = self._fault_of(request.command, request.path)
        if fault is not None:
            fault.met.set()
            if fault.held is not None:
                fault.held.wait(30)
            if not fault.after and (fault.status is not None or fault.held is None):
                self._answer(request, fault)
                return
        status, headers, answer = self._there(request, body)
        if fault is not None:
            fault.passed.set()
        if fault is not None and fault.after:
            self._answer(request, fault)
            return
        request.send_response_only(status)
        for name, value in headers:
            if name.lower() not in {"transfer-encoding", "connection", "content-length"}:
                request.send_header(name, value)
        length = next((value for name, value in headers if name.lower() == "content-length"), str(len(answer)))
        request.send_header("Content-Length", length if request.command == "HEAD" else str(len(answer)))
        request.end_headers()
        request.wfile.write(answer)

    def _there(self, request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(HOST, self.server.port, timeout=30)
        try:
            connection.putrequest(request.command, request.path, skip_host=True, skip_accept_encoding=True)
            for name, value in request.headers.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        except OSError:
            return 502, [], b""
        finally:
            connection.close()

    def _answer(self, request: BaseHTTPRequestHandler, fault: Fault) -> None:
        if fault.status is None:
            request.close_connection = True
            request.connection.close()
            return
        text = f"<Error><Code>{fault.code}</Code><Message>told by the gate</Message></Error>".encode()
        request.send_response_only(fault.status)
        request.send_header("ETag", '"told"')
        request.send_header("Content-Length", "0" if request.command == "HEAD" else str(len(text)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(text)


@contextmanager
def s3_server(kind: Kind, folder: Path, *options: str) -> Iterator[S3Server]:
    server = S3Server(kind, folder, *options)
    try:
        yield server
    finally:
        server.end()
