"""What a command does when it is interrupted, or can't deliver."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.cli import app as program
from actors.cli.app import Interrupted, Interruption
from actors.cli.outputs import OutputFolder
from actors.errors import StorageError
from actors.service import BatchService
from actors.simulator import Simulator, SimulatorOptions
from tests.servers.simulator import simulator_in_thread

Call = Callable[..., Any]


@pytest.fixture
def slow_server(home: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    """A server that is never done."""
    with simulator_in_thread(SimulatorOptions(latency=(3600, 3600), content_bytes=1000)) as (simulator, base_url):
        monkeypatch.setenv("OPENAI_BASE_URL", base_url)
        yield simulator


@pytest.fixture
def signalled(monkeypatch: pytest.MonkeyPatch, slow_server: Simulator) -> Callable[[int], None]:
    """Have a signal come as soon as the server has the first video."""

    def at_first_video(number: int) -> None:
        real = BatchService.waits
        sent: list[int] = []

        def waits(service: BatchService, batch_id: str) -> Any:
            if slow_server.creates and not sent:
                sent.append(number)
                signal.raise_signal(number)
            return real(service, batch_id)

        monkeypatch.setattr(BatchService, "waits", waits)

    return at_first_video


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_lets_go_without_cancelling(
    call: Call, signalled: Callable[[int], None], slow_server: Simulator, number: int, code: int
) -> None:
    signalled(number)
    result = call("run", "-p", "Sea", "-p", "Sky", "-c", "1", "--id", "nature", "--json")
    assert result.exit_code == code
    assert "stopped, not cancelled: 0 of 2 done" in result.stderr
    assert "Resume: sora-batch resume nature. " in result.stderr
    assert "sora-batch cancel nature" in result.stderr
    assert json.loads(result.stdout)["status"] == "processing"
    with BatchService() as service:
        batch = service.get_batch_status("nature")
        assert [job.status.value for job in batch.jobs] == ["generating", "pending"]
        assert not service._read(lambda: service._storage.batches.get("nature")).wanted  # type: ignore[union-attr]
    assert slow_server.creates == 1


def test_what_goes_on_with_it_keeps_the_options(call: Call, signalled: Callable[[int], None], home: Path) -> None:
    signalled(signal.SIGINT)
    result = call("run", "-p", "Sea", "--id", "nature", "--output", "my films", "--filename", "{id} {take}")
    assert "Resume: sora-batch resume nature --output 'my films' --filename '{id} {take}'. " in result.stderr


def test_a_batch_that_can_not_be_let_go_is_named(
    call: Call, signalled: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise StorageError("the database is away")

    monkeypatch.setattr(BatchService, "let_go", fail)
    signalled(signal.SIGINT)
    result = call("run", "-p", "Sea", "--id", "nature")
    assert result.exit_code == 130
    assert "batch nature could not be released: the database is away" in result.stderr


def test_the_second_signal_leaves_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def leave(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr(program.os, "_exit", leave)
    with Interruption() as interruption:
        interruption.check()
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(Interrupted, match="SIGINT"):
            interruption.check()
        with pytest.raises(SystemExit) as left:
            signal.raise_signal(signal.SIGTERM)
    assert left.value.code == 143


def test_handlers_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Interruption():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.usefixtures("server")
def test_a_file_that_can_not_be_delivered_is_no_success(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(OutputFolder, "_put", full)
    result = call("run", "-p", "Sea", "--id", "nature", "--output", "films")
    assert result.exit_code == 1
    assert " to films: No space left on device" in result.stderr
    assert re.search(r"videos/nature/nature-01-[0-9a-f]{8}\.mp4", result.stdout)


@pytest.mark.usefixtures("server")
def test_a_database_that_is_away_for_a_moment_is_waited_for(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    real, looks = BatchService.history, iter(range(100))

    def history(service: BatchService, batch_id: str, from_sequence: int = 1) -> Any:
        if next(looks) == 1:
            raise StorageError("locked")
        return real(service, batch_id, from_sequence)

    monkeypatch.setattr(BatchService, "history", history)
    assert call("run", "-p", "Sea").exit_code == 0
