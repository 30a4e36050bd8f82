"""`sora-batch serve` as real processes: they share batches, and one goes on where another one ends."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from actors.batch.run import POISON_DEATHS
from actors.service import BatchService
from storage.database import Database
from storage.storage import Storage
from tests.integration.application import Application
from tests.integration.support import (
    PATIENCE,
    ROOT,
    check_files,
    check_journal,
    check_paid_once,
    numbered,
    rows,
    until,
    videos,
)
from tests.provider.client import Provider
from tests.servers.postgresql import PostgreSQL
from tests.servers.rabbitmq import RabbitMQ

pytestmark = pytest.mark.integration

END_SECONDS = 10.0


class Serving:
    """A `serve` process, and what it says."""

    def __init__(self, options: dict[str, Any], folder: Path, program: Sequence[str] = ("-m", "actors.cli")) -> None:
        environment = {name: value for name, value in os.environ.items() if name == "PATH"}
        environment |= {name.upper(): str(value) for name, value in options.items()}
        self._said = folder / f"serve-{os.urandom(4).hex()}"
        with self._said.open("wb") as said:
            self._process = subprocess.Popen(
                [sys.executable, *program, "serve"],
                env=environment | {"PYTHONPATH": str(ROOT)},
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stderr=said,
            )
        until(lambda: "serving:" in self.said or self._process.poll() is not None)

    @property
    def said(self) -> str:
        return self._said.read_text()

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    @property
    def pid(self) -> int:
        return self._process.pid

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, and return the exit code."""
        self._process.send_signal(number)
        return self._process.wait(2 * END_SECONDS)

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()


Start = Callable[..., Serving]


@pytest.fixture
def start_serving(options: Callable[..., dict[str, Any]], tmp_path: Path) -> Iterator[Start]:
    started: list[Serving] = []

    def start(*program: str, **changes: Any) -> Serving:
        started.append(Serving(options(**changes), tmp_path, *([program] if program else [])))
        return started[-1]

    yield start
    for serving in started:
        serving.close()


@pytest.fixture
def shared(postgresql: PostgreSQL) -> Iterator[str]:
    """A database of several machines."""
    name = postgresql.create_database()
    yield postgresql.url(name)
    postgresql.drop_database(name)


def owner_of(url: str, batch_id: str) -> int | None:
    """The pid of a batch's owner."""
    database = Database(url)
    try:
        with database.connection():
            batch = Storage(database).batches.get(batch_id)
            rows = database.execute("SELECT pid FROM owners WHERE id=?", (batch.owner if batch else None,)).fetchall()
            return rows[0][0] if rows else None
    finally:
        database.close()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_another_process_goes_on_where_one_ends(
    how: signal.Signals, shared: str, start_serving: Start, start_service: Callable[..., BatchService],
    provider: Provider, application: Application, rabbitmq: RabbitMQ,
) -> None:  # fmt: skip
    here = {"database_url": shared, "amqp_url": rabbitmq.url}
    both = [start_serving(**here), start_serving(**here)]
    provider.hold()
    application.ask("create", videos(*numbered(4), id="nature", concurrency=2))
    provider.wait(accepted=2, timeout=PATIENCE)
    watching = start_service(**here)
    until(lambda: sum(job.remote_id is not None for job in watching.get_batch_status("nature").jobs) == 2)
    (owner,) = [each for each in both if each.pid == owner_of(shared, "nature")]
    started = monotonic()
    assert owner.end(how) == (0 if how is signal.SIGTERM else -signal.SIGKILL)
    assert monotonic() - started < END_SECONDS
    until(lambda: owner_of(shared, "nature") not in {None, owner.pid})
    provider.release("videos")
    until(lambda: watching.get_batch_status("nature").finished)
    batch = watching.get_batch_status("nature")
    assert batch.status == "completed"
    check_paid_once(provider, limit=2)
    check_files(batch, provider)
    check_journal(watching, "nature")
    assert application.ask("report", {"batch_id": "nature"}).name == "command.accepted"  # by the one that is left


def test_without_a_broker_it_makes_what_others_ask_for(
    start_serving: Start, start_service: Callable[..., BatchService], provider: Provider
) -> None:
    serving = start_serving()
    assert "AMQP_URL is not set" in serving.said
    other = start_service(openai_base_url=None)
    other.create_batch(videos(*numbered(2), id="nature"))
    other._write(lambda: other._storage.batches.update("nature", wanted=True))
    until(lambda: other.get_batch_status("nature").finished)
    assert other.get_batch_status("nature").status == "completed"
    check_paid_once(provider)
    assert serving.end() == 0


def test_a_batch_that_nobody_wants_is_left_alone(
    start_serving: Start, start_service: Callable[..., BatchService], provider: Provider
) -> None:
    other = start_service()
    other.create_batch(videos("not wanted", id="first"))
    other.create_batch(videos("wanted", id="second"))
    other._write(lambda: other._storage.batches.update("second", wanted=True))
    start_serving()
    until(lambda: other.get_batch_status("second").finished)
    assert other.get_batch_status("first").status == "pending"
    assert list(check_paid_once(provider)["paid_per_prompt"]) == ["wanted"]


def test_the_commands_settings_are_checked_before_anything_is_taken(start_serving: Start) -> None:
    serving = start_serving(amqp_url="http://user:secret@host/")
    assert serving.end() == 2
    assert "AMQP_URL" in serving.said
    assert "secret" not in serving.said


def want(service: BatchService, *batch_ids: str) -> None:
    """As a `process` from RabbitMQ does."""
    for batch_id in batch_ids:
        service._write(lambda each=batch_id: service._storage.batches.update(each, wanted=True))


def test_a_batch_that_waited_for_a_place_in_processes_that_died_is_made(
    start_serving: Start, start_service: Callable[..., BatchService], provider: Provider, tmp_path: Path
) -> None:
    """Five crashes (out of memory, deploys), none of which it had a part in."""
    provider.hold()
    other, names = start_service(), ["first", *(f"waiting-{number}" for number in range(6))]
    for name in names:
        other.create_batch(videos(*numbered(2, name), id=name))
    want(other, *names)
    for _ in range(5):
        serving = start_serving(sora_max_in_flight=1)
        until(lambda pid=serving.pid: {owner_of(other.settings.database_url, name) for name in names} == {pid})
        until(lambda: other.get_batch_status("first").jobs[0].remote_id)
        until(lambda: rows(tmp_path, "SELECT claims FROM batches WHERE id='first'") == [(0,)])
        serving.end(signal.SIGKILL)
    provider.release("videos")
    start_serving(sora_max_in_flight=1)
    for name in names:
        until(lambda each=name: other.get_batch_status(each).finished)
        assert (other.get_batch_status(name).status, other.get_batch_status(name).error) == ("completed", None)
    check_paid_once(provider, limit=1)


DEADLY = """
import os, signal
from actors.cli.app import main
from actors.video.task import VideoTask
run = VideoTask.run

def dying(self):
    if self._job.batch_id == "deadly":
        os.kill(os.getpid(), signal.SIGKILL)
    return run(self)

VideoTask.run = dying
main()
"""


def test_a_batch_that_kills_whoever_begins_it_is_failed_alone(
    start_serving: Start, start_service: Callable[..., BatchService], provider: Provider
) -> None:
    other, names = start_service(), ["one", "two", "deadly", "three", "four"]
    for name in names:
        other.create_batch(videos(*numbered(2, name), id=name, concurrency=1))
    want(other, *names)
    deaths = 0
    while (serving := start_serving("-c", DEADLY)) and until(
        lambda serving=serving: serving.has_ended or other.get_batch_status("deadly").finished
    ):
        if not serving.has_ended:
            break
        deaths += 1
        assert serving.end() == -signal.SIGKILL
    assert deaths == POISON_DEATHS
    deadly = other.get_batch_status("deadly")
    assert (deadly.status, deadly.error.code if deadly.error else None) == ("failed", "internal")
    assert "3 processes in a row died while starting this batch" in deadly.jobs[0].error.message  # type: ignore[union-attr]
    for name in names:
        until(lambda each=name: other.get_batch_status(each).finished)
    assert [other.get_batch_status(name).status for name in names if name != "deadly"] == ["completed"] * 4
    check_paid_once(provider)


def test_the_log_alone_tells_the_life_of_a_batch(
    start_serving: Start, service: BatchService, rabbitmq: RabbitMQ, application: Application, provider: Provider
) -> None:
    serving = start_serving(log_format="json", log_lewel="info", amqp_url=rabbitmq.url)
    provider.fault(on="create", do="answer", status=429, headers={"Retry-After": "1"})
    trace = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "tracestate": "shop=1"}
    batch_id = application.ask("create", videos("A lake", "[moderation] A sea"), **trace).data["batch_id"]
    until(lambda: "batch.partial" in serving.said)
    assert serving.end() == 0
    lines = [json.loads(line) for line in serving.said.splitlines()]  # each of them, the first included
    assert "unknown setting LOG_LEWEL" in lines[0]["message"]
    assert [line["event"] for line in lines if line.get("event") in ("serving", "stopping")] == ["serving", "stopping"]
    about = [line for line in lines if line.get("batch_id") == batch_id]
    told = [(line["event"], line.get("job_id"), line["status"]) for line in about if "sequence" in line]
    recorded = [
        (event.name, (event.data.get("job") or {}).get("id"), (event.data.get("job") or event.data)["status"])
        for event in service.history(batch_id)
        if not event.name.endswith("progressed")
    ]
    assert told == recorded
    assert [line["error_code"] for line in about if line["event"] == "job.failed"] == ["moderation_blocked"]
    events = [line["event"] for line in about if line["event"] != "command"]
    assert events[:2] == ["batch.created", "batch.claimed"]
    assert [line["error_code"] for line in about if line["event"] == "job.withdrawn"] == ["rate_limited"]
    for record in service.recorded(batch_id):
        assert json.loads(record.body).items() >= trace.items()
    assert {tuple(line.get(name) for name in trace) for line in about} == {tuple(trace.values())}
    assert {tuple(post["trace"]) for post in provider.ledger()["posts"]} == {tuple(trace.values())}


LOUD = """
import logging, sys, threading, warnings
import actors.cli.serve
from actors.cli.app import main

class Broken:
    def __del__(self):
        raise ValueError("of the-key-of-this-test")

def loud(self):
    warnings.warn("a library is unhappy with the-key-of-this-test", RuntimeWarning)
    Broken()
    logging.getLogger("actors").error("a number: %d", "none")
    self._service.forget_commands = None
    raise OSError("the thread dies")

actors.cli.serve.Housekeeping._run = loud
main()
"""


def test_whatever_python_and_libraries_say_is_json_too(start_serving: Start) -> None:
    serving = start_serving("-c", LOUD, log_format="json", openai_api_key="the-key-of-this-test")
    until(lambda: "the thread dies" in serving.said)
    assert serving.end() == 0
    lines = [json.loads(line) for line in serving.said.splitlines()]
    told = " ".join(line["message"] for line in lines)
    for words in ("a library is unhappy with ***", "an error was ignored", "could not be logged", "a thread died"):
        assert words in told
    assert "the-key-of-this-test" not in serving.said


def test_settings_that_can_not_be_read_are_told_in_json_too(start_serving: Start) -> None:
    serving = start_serving(log_format="json", web_token_file="missing")
    until(lambda: serving.has_ended)
    (line,) = [json.loads(line) for line in serving.said.splitlines()]
    assert (line["level"], line["event"]) == ("ERROR", "failed")
    assert line["message"].startswith("WEB_TOKEN_FILE=")


MUTE = """
import os, signal
import storage.journal
from actors.cli.app import main
log_events = storage.journal.log_events

def dying(events, **more):
    if any(event.type == "EVENT" for event in events):
        os.kill(os.getpid(), signal.SIGKILL)
    log_events(events, **more)

storage.journal.log_events = dying
main()
"""


@pytest.mark.parametrize(
    ("event", "there"), [("job.submitted", False), ("batch.completed", False), ("batch.completed", True)]
)
def test_what_a_killed_process_has_recorded_and_not_logged_is_logged_by_another(
    event: str, there: bool, start_serving: Start, start_service: Callable[..., BatchService], provider: Provider
) -> None:
    other = start_service()
    other.create_batch(videos("a lake", id="nature"))
    want(other, "nature")
    killed = start_serving("-c", MUTE.replace("EVENT", event), log_format="json")
    until(lambda: killed.has_ended)
    if there:  # it was on another machine, so its death is known by its lease
        moved = "UPDATE owners SET host='elsewhere', lease_until=lease_until-60"
        other._write(lambda: other._database.execute(moved))
    serving = start_serving(log_format="json")
    until(lambda: '"batch.completed"' in serving.said)
    assert other.get_batch_status("nature").status == "completed"
    check_paid_once(provider)
    lines = [json.loads(line) for each in (killed, serving) for line in each.said.splitlines()]
    told = {line["sequence"]: line["event"] for line in lines if "sequence" in line}
    recorded = {int(each.sequence): each.name for each in other.history("nature") if "progressed" not in each.name}
    assert {sequence: name for sequence, name in told.items() if sequence > 1} == {
        sequence: name for sequence, name in recorded.items() if sequence > 1
    }  # the first one is this process's
    (line,) = [each for each in lines if each.get("event") == event]
    assert line["again"] is True
