"""A server of videos that sends whatever bytes it likes: nothing grows without end, leaks the key or stops the service."""

import gzip
import http.server
import json
import threading
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest

from actors.batch.views import Batch
from actors.service import BatchService
from tests.integration.support import PATIENCE, until, videos

pytestmark = pytest.mark.integration

Start = Callable[..., BatchService]

KEY = "kestrel-key-5170"
FILM = b"\0\0\0\x18ftypmp42" + bytes(1000)
PIECE = b"x" * 65_536


class Hostile:
    """Says what a test has it say, byte for byte, and notes what it was asked and how much of it was taken."""

    def __init__(self) -> None:
        self.create: Iterable[bytes] = [answer({"id": "v-1", "status": "queued"})]
        self.look: Iterable[bytes] = [answer({"id": "v-1", "status": "completed"})]
        self.list: Iterable[bytes] = [answer({"detail": "Not Found"}, "404 Not Found")]
        self.content: Iterable[bytes] = [answer(FILM, headers={"Content-Type": "video/mp4"})]
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.sent = 0
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        self.base_url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        hostile = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                hostile.asked.append((self.command, self.path, dict(self.headers)))
                try:
                    for piece in hostile._said(self.command, self.path):
                        self.wfile.write(piece)
                        hostile.sent += len(piece)
                except ConnectionError:
                    pass
                self.close_connection = True

            do_POST = do_DELETE = do_GET  # noqa: N815

            def log_message(self, *_: Any) -> None:
                """It would go to standard error."""

        return Handler

    def _said(self, command: str, path: str) -> Iterable[bytes]:
        if command == "POST":
            return self.create
        if path.endswith("/content"):
            return self.content
        return self.list if path.partition("?")[0] == "/v1/videos" else self.look

    def paths(self) -> list[str]:
        return [path for _, path, _ in self.asked]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def answer(body: Any, status: str = "200 OK", headers: dict[str, str] | None = None) -> bytes:
    """A whole answer, which is closed at its end."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = {"Content-Type": "application/json", "Content-Length": str(len(raw))} | (headers or {})
    return head(status, given) + raw


def head(status: str = "200 OK", headers: dict[str, str] | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in (headers or {}).items()), "", ""]
    return "\r\n".join(lines).encode("latin-1")


class Endless:
    """An answer that never ends, each time anew."""

    def __init__(self, first: bytes, piece: bytes = PIECE) -> None:
        self._first, self._piece = first, piece

    def __iter__(self) -> Iterator[bytes]:
        yield self._first
        yield from repeat(self._piece)


@pytest.fixture
def hostile() -> Iterator[Hostile]:
    server = Hostile()
    yield server
    server.close()


@pytest.fixture
def service(
    hostile: Hostile, start_service: Start, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> BatchService:
    """Where no look ever tells anything, it is given up soon."""
    monkeypatch.setattr("actors.video.setbacks._LONGEST_BACKOFF", 0.05)
    route = getattr(request.node, "callspec", None) and request.node.callspec.params.get("route")
    return start_service(
        openai_base_url=hostile.base_url,
        openai_api_key=KEY,
        sora_video_timeout=300 if route == "look" else 10_000,
        sora_submit_timeout=400,
        sora_settle=50,
    )


def make(service: BatchService, *prompts: str) -> Batch:
    service.create_batch(videos(*(prompts or ("a cat",)), id="b"))
    return service.process_batch("b").result(PATIENCE)


def code(batch: Batch) -> str:
    (job,) = batch.jobs
    assert job.error is not None
    return job.error.code


# --- how much is taken in


@pytest.mark.parametrize(
    ("route", "expected"),
    [("create", "submission_unknown"), ("look", "timeout"), ("list", "submission_unknown"), ("content", "timeout")],
)
@pytest.mark.parametrize("start", [b'{"id": "', b'{"error": "'], ids=["an id", "an error"])
def test_an_answer_that_never_ends_is_not_taken_in(
    start: bytes, route: str, expected: str, hostile: Hostile, service: BatchService,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("actors.sora.route._LARGEST_ANSWER", 200_000)
    if route == "list":
        hostile.create = [b""]
    said = Endless(head("500 No" if route == "content" else "200 OK", {"Content-Type": "application/json"}) + start)
    setattr(hostile, route, said)
    assert code(make(service)) == expected
    assert hostile.sent < 1_000_000 + len(hostile.asked) * 12_000_000  # what the kernel's buffers hold at most


@pytest.mark.parametrize("route", ["look"])
def test_an_answer_that_grows_when_it_is_unpacked_takes_no_more_memory(
    route: str, hostile: Hostile, service: BatchService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.sora.route._LARGEST_ANSWER", 4_000_000)
    bomb = gzip.compress(b'{"id": "' + bytes(300_000_000), 9)
    setattr(hostile, route, [answer(bomb, headers={"Content-Encoding": "gzip"})])
    service.create_batch(videos("a cat", id="b"))
    tracemalloc.start()
    try:
        batch = service.process_batch("b").result(PATIENCE)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert code(batch) == "timeout"
    assert peak < 60_000_000


def test_a_file_that_never_ends_ends_its_job_and_leaves_nothing(
    hostile: Hostile, service: BatchService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.video.download._LARGEST_FILE", 3_000_000)
    hostile.content = Endless(head(headers={"Content-Type": "video/mp4"}) + FILM)
    batch = make(service)
    assert code(batch) == "download_failed"
    assert "exceeds the 0.00279397 GiB limit" in str(batch.jobs[0].error)
    assert len([path for path in hostile.paths() if path.endswith("/content")]) == 1
    assert list((tmp_path / "videos" / "b").iterdir()) == []


def test_a_file_that_is_said_to_be_too_large_is_not_begun(
    hostile: Hostile, service: BatchService, tmp_path: Path
) -> None:
    hostile.content = Endless(head(headers={"Content-Type": "video/mp4", "Content-Length": str(1 << 50)}) + FILM)
    assert code(make(service)) == "download_failed"
    assert list((tmp_path / "videos").glob("*/*")) == []


@pytest.mark.parametrize("route", ["create", "look", "list"])
@pytest.mark.parametrize(
    "body",
    [b"[" * 900 + b"]" * 900, b'{"error": ' + b"[" * 900 + b"]" * 900 + b"}", b"[" + b"{}," * 2_000_000 + b"{}]"],
    ids=["deep", "deep error", "many"],
)
def test_an_answer_that_is_all_structure_is_no_answer(
    body: bytes, route: str, hostile: Hostile, service: BatchService
) -> None:
    if route == "list":
        hostile.create = [b""]
    setattr(hostile, route, [answer(body)])
    assert code(make(service)) == {"look": "timeout"}.get(route, "submission_unknown")


# --- what is taken for what


@pytest.mark.parametrize(
    "said",
    [
        f"Bearer {KEY}\r\n".encode(),
        f"HTTP/1.1 {KEY} {KEY}\r\n\r\n".encode(),
        f"HTTP/1.1 200 OK\r\n{KEY}\r\n\r\n".encode(),
        f"HTTP/1.1 200 OK\r\nContent-Length: {KEY}\r\n\r\n".encode(),
        f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{KEY}\r\n".encode(),
        f"HTTP/1.1 302 Found\r\nLocation: ftp://{KEY}\r\nContent-Length: 0\r\n\r\n".encode(),
        f"HTTP/1.1 302 Found\r\nLocation: http://{KEY}:{KEY}/\r\nContent-Length: 0\r\n\r\n".encode(),
        b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 100_000 + b"\r\n\r\n",
        b"\0" * 1000,
        b"",
    ],
    ids=repr,
)
@pytest.mark.parametrize("route", ["create", "look", "content"])
def test_an_answer_that_is_not_http_ends_in_an_error_that_quotes_no_key(
    route: str, said: bytes, hostile: Hostile, service: BatchService, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    setattr(hostile, route, [said])
    batch = make(service)
    expected = {"create": {"submission_unknown", "network"}, "look": {"timeout"}, "content": {"download_failed"}}
    if said == b"":  # a lost connection, which is waited out
        expected["content"] = {"timeout"}
    assert code(batch) in expected[route]
    assert len(str(batch.jobs[0].error)) < 2000
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert KEY.encode() not in kept
    assert KEY[:10] not in caplog.text


@pytest.mark.parametrize("remote_id", [".", "..", "...", "x" * 1025, "a\0b", "\ud800"], ids=lambda text: repr(text[:4]))
def test_an_id_that_can_not_be_asked_for_is_none(remote_id: str, hostile: Hostile, service: BatchService) -> None:
    video = {"id": remote_id, "status": "queued", "prompt": "a cat"}
    hostile.create = [answer(video)]
    hostile.list = [answer({"object": "list", "data": [video], "has_more": False})]
    batch = make(service)
    assert code(batch) == "submission_unknown"
    assert [command for command, _, _ in hostile.asked].count("POST") == 1
    assert {path.partition("?")[0] for path in hostile.paths()} == {"/v1/videos"}


@pytest.mark.parametrize(
    "remote_id",
    ["a/../../b", "/etc", "%2e%2e", "..%2f..", "a\\..\\b", "x?y=1#z", "a\r\nX-Evil: 1", "x HTTP/1.1\r\nX-Evil: 1", "//host/x",
     "http://evil.example/", "@evil.example", "\u202e\x1b[31m", "ünï"],
)  # fmt: skip
def test_an_id_is_one_step_of_a_path_whatever_it_holds(remote_id: str, hostile: Hostile, service: BatchService) -> None:
    hostile.create = [answer({"id": remote_id, "status": "queued"})]
    batch = make(service)
    assert batch.status == "completed"
    assert batch.jobs[0].remote_id == remote_id
    for path in hostile.paths()[1:]:
        assert path.startswith("/v1/videos/")
        assert path.removeprefix("/v1/videos/").removesuffix("/content").count("/") == 0
        assert "?" not in path
    assert not [headers for _, _, headers in hostile.asked if "X-Evil" in headers]


def test_nothing_of_a_server_is_sent_back_to_it(hostile: Hostile, service: BatchService) -> None:
    cookie = {"Set-Cookie": "a=b; Path=/", "X-Token": "c"}
    hostile.create = [answer({"id": "v-1", "status": "queued"}, headers=cookie)]
    hostile.look = [answer({"id": "v-1", "status": "completed"}, headers=cookie)]
    assert make(service).status == "completed"
    assert not [headers for _, _, headers in hostile.asked if "Cookie" in headers]


@pytest.mark.parametrize("inline", ["A", "A===", "é", "====", ""], ids=repr)
def test_a_film_whose_base64_is_broken_is_no_film(inline: str, hostile: Hostile, service: BatchService) -> None:
    hostile.look = [answer({"id": "v-1", "status": "completed", "data": [{"b64_json": inline}]})]
    assert code(make(service)) == "download_failed"


@pytest.mark.parametrize(
    "kind", ["video/\xff\xfe", "video/" + "x" * 5000, "video/a b", "video/\x1b[31m"], ids=lambda kind: kind[:9]
)
def test_a_kind_of_file_that_is_none_is_not_kept(kind: str, hostile: Hostile, service: BatchService) -> None:
    hostile.content = [answer(b"#!/bin/sh", headers={"Content-Type": kind})]
    (job,) = make(service).jobs
    if job.video is not None:  # a header with a control character is no HTTP
        assert (job.video.content_type, Path(job.video.path).suffix) == ("application/octet-stream", ".bin")
    else:
        assert job.error is not None
        assert job.error.code == "download_failed"


@pytest.mark.parametrize("value", ["1e14", "9" * 300, "-5", "nan", "Fri, 31 Dec 9999 23:59:59 GMT", "1e400", "\xff"])
@pytest.mark.parametrize("route", ["look"])
def test_no_number_of_a_server_stops_us(route: str, value: str, hostile: Hostile, service: BatchService) -> None:
    names = ("Retry-After", "openai-poll-after-ms", "Date", "Age")
    setattr(hostile, route, [answer({"error": "wait"}, "429 Wait", dict.fromkeys(names, value))])
    hostile.list = [answer({"object": "list", "data": [{"id": "v", "status": "queued", "created_at": value}]})]
    assert code(make(service)) == "timeout"
    assert service.audit().videos_listed == 1


@pytest.mark.parametrize(
    "number", [1e14, -1e14, 253402300800, 1e300, 10**400, True, "1e14", [], {}], ids=lambda number: str(number)[:9]
)
def test_no_time_that_a_server_tells_breaks_the_audit(number: Any, hostile: Hostile, service: BatchService) -> None:
    hostile.look = [answer({"id": "v-1", "status": "completed", "created_at": number, "progress": number})]
    entry = {
        "id": "v-9",
        "created_at": number,
        "status": "\ud800\x1b" * 999,
        "prompt": "\ud800\u202e",
        "seconds": number,
    }
    hostile.list = [answer({"object": "list", "data": [entry], "has_more": False})]
    make(service)
    (unknown,) = service.audit().unknown_videos
    assert unknown.remote_id == "v-9"
    service.audit().model_dump_json()


def test_a_deletion_is_asked_of_nobody_else(hostile: Hostile, service: BatchService) -> None:
    hostile.look = [answer({"id": "v-1", "status": "queued"})]
    service.create_batch(videos("a cat", id="b"))
    running = service.process_batch("b")
    until(lambda: service.get_batch_status("b").jobs[0].remote_id)
    hostile.look = [answer(b"", "307 Over there", {"Location": f"{hostile.base_url}/inside"})]
    service.cancel_batch("b")
    running.result(PATIENCE)
    until(lambda: [path for command, path, _ in hostile.asked if command == "DELETE"])
    service.close()
    assert {path for command, path, _ in hostile.asked if command == "DELETE"} == {"/v1/videos/v-1"}
