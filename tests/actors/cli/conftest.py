"""Batches, jobs and events to show; a home without settings of its own; the command line, called in this process."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from actors.batch.events import Event
from actors.batch.job_views import Job
from actors.batch.views import Batch
from actors.cli.app import app
from actors.settings import Settings
from actors.simulator import Simulator, SimulatorOptions
from tests.servers.simulator import simulator_in_thread

AT = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def _job(number: int = 1, status: str = "pending", **fields: Any) -> Job:
    document = {
        "id": f"nature-{number:02}", "index": number, "status": status, "prompt": f"Prompt {number}", "duration": None,
        "model": None, "size": None, "seed": None, "params": {}, "take": 1, "metadata": {}, "remote_id": None,
        "progress": 0, "attempts": 0, "error": None, "video": None, "warnings": [], "reported": None, "created_at": AT, "updated_at": AT, "started_at": None, "completed_at": None,
    }  # fmt: skip
    if status == "completed":
        document["video"] = {
            "path": f"/videos/nature-{number:02}.mp4", "bytes": 3, "sha256": "0", "content_type": "video/mp4",
        }  # fmt: skip
    if status == "failed":
        document["error"] = {"code": "server_error", "message": "it broke", "retryable": True}
    return Job.model_validate(document | fields)


def _progress(jobs: list[Job]) -> dict[str, int]:
    states = [job.status.value for job in jobs]
    ended = {state: states.count(state) for state in ("completed", "failed", "cancelled")}
    finished = sum(ended.values())
    processing = len(states) - finished - states.count("pending")
    total = len(states)
    return {
        "total": total, **ended, "pending": total - finished, "processing": processing,
        "percentage": finished * 100 // total,
    }  # fmt: skip


def _batch(*jobs: Job, status: str = "processing", **fields: Any) -> Batch:
    document = {
        "id": "nature", "name": "Nature scenes", "job_ids": [job.id for job in jobs], "jobs": list(jobs),
        "status": status, "progress": _progress(list(jobs)), "metadata": {}, "error": None, "concurrency": 3,
        "created_at": AT, "updated_at": AT, "started_at": AT, "completed_at": None,
    }  # fmt: skip
    return Batch.model_validate(document | fields)


def _event(sequence: int, name: str, batch: Batch, job: Job | None = None) -> Event:
    data: dict[str, Any] = {"batch_id": batch.id, "status": batch.status.value, "progress": batch.progress.model_dump()}
    if job is not None:
        data["job"] = job.model_dump(mode="json")
    return Event(
        id=f"{batch.id}:{sequence}", source="/sora-batch/batches/nature", type=f"sora-batch.{name}.v1",
        subject=job.id if job else batch.id, time=AT, dataschema="", sequence=f"{sequence:010}", data=data,
    )  # fmt: skip


@pytest.fixture
def make_job() -> Callable[..., Job]:
    return _job


@pytest.fixture
def make_batch() -> Callable[..., Batch]:
    return _batch


@pytest.fixture
def make_event() -> Callable[..., Event]:
    return _event


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to be in, and no settings."""
    for name in list(os.environ):
        if name.lower() in Settings.model_fields:
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SORA_POLL_INTERVAL", "20")
    return tmp_path


@pytest.fixture
def call(home: Path) -> Callable[..., Any]:
    """Call `sora-batch`: the result has exit_code, stdout and stderr."""

    def called(*arguments: str, stdin: bytes | None = None) -> Any:
        return CliRunner().invoke(app, list(arguments), input=stdin)

    return called


@pytest.fixture
def on_terminal(home: Path) -> Callable[..., list[str]]:
    """Call `sora-batch` on a terminal of its own with so many columns; the lines as they came, without their colours."""

    def called(columns: int, *arguments: str) -> list[str]:
        master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (50, columns))
        root = str(Path(__file__).parents[3])  # the program of this checkout, whichever is installed
        environment = {**os.environ, "TERM": "xterm-256color", "PYTHONPATH": root}
        environment.pop("COLUMNS", None)
        command = [sys.executable, "-m", "actors.cli", *arguments]
        with subprocess.Popen(command, env=environment, stdin=slave, stdout=slave, stderr=slave):
            os.close(slave)
            shown = b""
            with suppress(OSError):  # Linux's way to say that nobody has it open any more
                while piece := os.read(master, 65536):
                    shown += piece
        os.close(master)
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode()).split("\r\n")

    return called


@pytest.fixture
def server(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    """A quick server, and the settings that lead to it. A prompt with `blood` in it is blocked."""
    options = SimulatorOptions(latency=(0, 0), content_bytes=1000, moderation=("blood",), api_key="the-key")
    with simulator_in_thread(options) as (simulator, base_url):
        monkeypatch.setenv("OPENAI_BASE_URL", base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "the-key")
        yield simulator
