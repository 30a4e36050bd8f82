"""Pictures on their way to the provider over a line that stands still, sent by whole services and processes."""

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from pytest_mock import MockerFixture

from actors.service import BatchService
from actors.supervisor import BatchSupervisor
from storage.jobs import JobRepository
from storage.records import ReferenceRecord
from tests.integration.support import PATIENCE, Drivers, rows, until, videos
from tests.provider.client import Provider

pytestmark = pytest.mark.integration

PICTURE = 8 << 20
BLOCK = 65_536
QUIET = 0.3
"""Seconds without a byte after which all has come that was on its way."""


class Line:
    """A line to the provider; of each connection it lets only so many bytes pass."""

    def __init__(self, port: int) -> None:
        self._port, self._socket = port, socket.create_server(("127.0.0.1", 0))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BLOCK)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/v1"
        self._opened = threading.Event()
        self.limit = PICTURE // 4
        self.passed = 0
        self._heard_at = monotonic()
        threading.Thread(target=self._accept, daemon=True).start()

    def open(self) -> None:
        self.limit = PICTURE * 2
        self._opened.set()

    def stands_still(self) -> bool:
        return self.passed >= self.limit

    def is_quiet(self) -> bool:
        return monotonic() - self._heard_at > QUIET

    def close(self) -> None:
        self.open()
        self._socket.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._socket.accept()
                server = socket.create_connection(("127.0.0.1", self._port))
                for pump in (self._up, self._down):
                    threading.Thread(target=pump, args=(client, server), daemon=True).start()

    def _up(self, client: socket.socket, server: socket.socket) -> None:
        passed = 0
        with suppress(OSError), server:
            while piece := client.recv(BLOCK):
                self._heard_at = monotonic()
                passed += len(piece)
                self.passed = max(self.passed, passed)
                server.sendall(piece)
                if passed >= self.limit:
                    self._opened.wait()

    def _down(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError), client:
            while piece := server.recv(BLOCK):
                client.sendall(piece)


@pytest.fixture
def line(provider: Provider) -> Iterator[Line]:
    line = Line(provider.port)
    yield line
    line.close()


@pytest.fixture
def request_with_picture(tmp_path: Path) -> dict[str, Any]:
    picture = tmp_path / "a.png"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(PICTURE))
    return {"videos": [{"prompt": "a boat", "input_reference": str(picture)}], "id": "b"}


def test_an_upload_may_take_longer_than_the_send_window(
    line: Line,
    provider: Provider,
    start_service: Callable[..., BatchService],
    request_with_picture: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("actors.supervisor.SEND_WINDOW", 0.5)
    service = start_service(openai_base_url=line.url, sora_submit_timeout=PATIENCE * 1000)
    service.create_batch(request_with_picture)
    running = service.process_batch("b")
    until(line.stands_still)
    over = monotonic() + 0.6
    until(lambda: monotonic() > over)
    line.open()
    assert running.result(PATIENCE).status == "completed"
    assert [post["complete"] for post in provider.ledger()["posts"]] == [True]


def test_files_are_loaded_before_the_intent_is_recorded(
    start_service: Callable[..., BatchService], request_with_picture: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise large files leave no time to send the POST, again and again; and if loading kills, that counts."""
    seen, load = [], JobRepository.reference

    def watched(jobs: JobRepository, digest: str) -> ReferenceRecord:
        execute = jobs._database.execute
        (intents,) = execute("SELECT count(*) FROM submissions").fetchone()
        (claims,) = execute("SELECT claims FROM batches").fetchone()
        seen.append((intents, claims))
        return load(jobs, digest)

    monkeypatch.setattr(JobRepository, "reference", watched)
    service = start_service()
    service.create_batch(request_with_picture)
    assert service.process_batch("b").result(PATIENCE).status == "completed"
    begun = -1
    assert seen == [(0, begun)]


def test_a_batch_with_files_that_waits_for_a_slot_has_not_begun(
    provider: Provider, start_service: Callable[..., BatchService], request_with_picture: dict[str, Any],
    mocker: MockerFixture, tmp_path: Path,
) -> None:  # fmt: skip
    """Nothing was loaded: it has no part in the death of its process."""
    ticked: list[str] = []
    tick = BatchSupervisor._tick
    mocker.patch.object(BatchSupervisor, "_tick", lambda self: (ticked.append(self._id), tick(self)))
    provider.hold()
    service = start_service(sora_max_in_flight=1)
    service.create_batch(videos("a lake", id="a"))
    service.create_batch(request_with_picture)
    first = service.process_batch("a")
    provider.wait(accepted=1)
    second = service.process_batch("b")
    until(lambda: ticked.count("b") > 1)
    assert rows(tmp_path, "SELECT claims FROM batches WHERE id='b'") == [(0,)]
    provider.release("videos")
    assert [each.result(PATIENCE).status for each in (first, second)] == ["completed"] * 2


def test_a_process_that_was_suspended_during_an_upload_sends_no_further_block(
    line: Line,
    provider: Provider,
    drivers: Drivers,
    options: Callable[..., dict[str, Any]],
    request_with_picture: dict[str, Any],
) -> None:
    seconds = 2.0
    settings = options(openai_base_url=line.url, sora_submit_timeout=seconds * 1000)
    child = drivers.start(options=settings, request=request_with_picture)
    until(line.stands_still)
    os.kill(child, signal.SIGSTOP)
    overdue = monotonic() + seconds
    line.open()
    until(line.is_quiet)
    passed = line.passed
    until(lambda: monotonic() > overdue)
    os.kill(child, signal.SIGCONT)
    drivers.end(child)
    # What it had given to the system's hands, and the rest of the block that was on its way then.
    post, *later = provider.ledger()["posts"]
    assert not post["complete"]
    assert post["video_id"] is None
    if not later:
        assert line.passed <= passed + BLOCK
