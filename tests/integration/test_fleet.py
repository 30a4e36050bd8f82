"""Three services, each with an empty folder of its own, share a database, a broker and a bucket, and are killed in turn.

A program in JavaScript that knows AMQP and HTTP alone gets every file all the same, and who has the logs of the services
and nothing else knows what became of each batch.
"""

import hashlib
import itertools
import json
import re
import signal
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest

from actors.service import BatchService
from storage.database import Database
from tests.integration.application import Application
from tests.integration.support import (
    PATIENCE,
    check_journal,
    check_objects,
    check_paid_once,
    numbered,
    options_for,
    until,
)
from tests.integration.test_documents import programs
from tests.integration.test_serve import Serving
from tests.integration.test_web import Told, failed_checks
from tests.javascript.node import node
from tests.provider.client import Provider
from tests.servers.port import HOST, Port
from tests.servers.postgresql import PostgreSQL
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.s3 import S3Server

pytestmark = pytest.mark.integration

SERVICES, BATCHES, VIDEOS, CONCURRENCY = 3, "abcde", 20, 4
KILLS = (10, 30, 50)
"""After so many of the 100 videos one of the services is killed: each once, and none when a batch is about to end."""
SETTINGS: dict[str, Any] = {
    "batch_max_size": VIDEOS,
    "batch_parallel": 2,  # so that each service has some of the batches
    "log_format": "json",
    "sora_poll_interval": 100,
    "sora_submit_timeout": 2000,
}
WANTED = re.compile(r"videos: \[\{ prompt: .* \}\] \}")
"""What the program in the docs asks for."""


@dataclass
class Life:
    """What a batch and its jobs went through."""

    events: dict[int, tuple[str, str | None, str]] = field(default_factory=dict)
    """By sequence number: the event, the job, and the status of the job or the batch after it."""
    owners: dict[int, str] = field(default_factory=dict)
    """By epoch, how it came to a process: `batch.claimed` or `batch.taken_over`."""

    def states(self) -> dict[str | None, list[str]]:
        """Of each job, and of the batch under None, its states in order."""
        states: dict[str | None, list[str]] = defaultdict(list)
        for _, (_, job_id, status) in sorted(self.events.items()):
            if states[job_id][-1:] != [status]:
                states[job_id].append(status)
        return dict(states)


def lives(logs: list[str]) -> dict[str, Life]:
    """What the lines of all processes, in whatever order, tell of each batch."""
    told: dict[str, Life] = defaultdict(Life)
    for line in (json.loads(each) for log in logs for each in log.splitlines()):
        if "sequence" in line:
            event = (line["event"], line.get("job_id"), line["status"])
            assert told[line["batch_id"]].events.setdefault(line["sequence"], event) == event
        elif line.get("event") in {"batch.claimed", "batch.taken_over"}:
            told[line["batch_id"]].owners[line["epoch"]] = line["event"]
    return dict(told)


def recorded(service: BatchService, batch_id: str) -> Life:
    """The same from the journal, without progress, of which a log at `info` does not tell."""
    life = Life()
    for event in service.history(batch_id):
        if not event.name.endswith(".progressed"):
            about = event.data.get("job") or {}
            status = (about or event.data)["status"]
            life.events[int(event.sequence)] = (event.name, about.get("id"), status)
    return life


@pytest.fixture
def shared(postgresql: PostgreSQL) -> Iterator[str]:
    name = postgresql.create_database()
    yield postgresql.url(name)
    postgresql.drop_database(name)


class Fleet:
    """Services at three addresses, and the logs of all that ever ran there."""

    def __init__(self, options: dict[str, Any], folder: Path) -> None:
        self._options, self._folder, self._numbers = options, folder, itertools.count(1)
        self.ports = [Port() for _ in range(SERVICES)]
        self.all: list[Serving] = []
        with ThreadPoolExecutor(SERVICES) as starting:
            self.alive = list(starting.map(self._start, range(SERVICES)))

    def _start(self, place: int) -> Serving:
        home = self._folder / f"service-{next(self._numbers)}"
        home.mkdir()
        there = f"{HOST}:{self.ports[place].number}"
        own = {"video_dir": home / "videos", "web_listen": there, "web_public_url": f"http://{there}"}
        self.all.append(Serving(self._options | own, home))
        return self.all[-1]

    def url(self, place: int) -> str:
        return f"http://{HOST}:{self.ports[place].number}"

    def kill(self, place: int) -> None:
        assert self.alive[place].end(signal.SIGKILL) == -signal.SIGKILL

    def replace(self, place: int) -> None:
        self.alive[place] = self._start(place)

    def lines(self, event: str, servings: list[Serving] | None = None) -> list[dict[str, Any]]:
        """The lines about an event, of all processes or of some; not those about what another has recorded."""
        logs = [each.said for each in servings or self.all]
        lines = [json.loads(line) for log in logs for line in log.splitlines() if f'"{event}"' in line]
        return [line for line in lines if line["event"] == event and "again" not in line]

    def are_ready(self, *places: int) -> Callable[[], bool]:
        """Whether these services say so."""
        return lambda: not any(failed_checks(self.url(place)) for place in places)

    def has_told_all(self, place: int) -> bool:
        """Whether no event is left to be published."""
        return Told(self.url(place)).total("outbox_events") == 0

    def has_taken_over(self, moved: set[tuple[str, str]]) -> bool:
        """Whether each of these batches was taken over from this owner."""
        return moved <= {(line["batch_id"], line["former_owner"]) for line in self.lines("batch.taken_over")}

    def close(self) -> None:
        for each in self.all:
            each.close()
        for port in self.ports:
            port.release()


@pytest.fixture
def fleet(
    shared: str, moto: S3Server, rabbitmq: RabbitMQ, application: Application, provider: Provider, tmp_path: Path
) -> Iterator[Fleet]:
    there = {"database_url": shared, "amqp_url": rabbitmq.url, **moto.settings("fleet")}
    fleet = Fleet(options_for(provider.base_url, tmp_path, **SETTINGS, **there), tmp_path)
    try:
        until(fleet.are_ready(*range(SERVICES)))
        yield fleet
    finally:
        fleet.close()


@pytest.fixture
def watching(
    shared: str, moto: S3Server, start_service: Callable[..., BatchService], monkeypatch: pytest.MonkeyPatch
) -> BatchService:
    """A service that makes nothing, and reads the records and the bucket."""
    settings = moto.settings("fleet")
    for name, value in settings.items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
    return start_service(database_url=shared, video_store=settings["VIDEO_STORE"])


def order(amqp_url: str, group: str, folder: Path) -> list[str]:
    """Run the program in docs/rabbitmq.md for other videos; return what it prints."""
    program, found = WANTED.subn("...JSON.parse(process.env.WANTED) }", programs("js")[0])
    assert found == 1
    wanted = {"videos": [{"prompt": prompt} for prompt in numbered(VIDEOS, group)], "concurrency": CONCURRENCY}
    folder.mkdir()
    done = node("-e", program, AMQP_URL=amqp_url, FOLDER=str(folder), WANTED=json.dumps(wanted))
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def owned(url: str, pid: int) -> tuple[str, set[str]]:
    """The id of a process as an owner, and the batches that it has."""
    database = Database(url)
    try:
        with database.connection():
            ((owner,),) = database.execute("SELECT id FROM owners WHERE pid=?", (pid,)).fetchall()
            batches = database.execute("SELECT id FROM batches WHERE owner=?", (owner,)).fetchall()
            return owner, {batch_id for (batch_id,) in batches}
    finally:
        database.close()


def has_batches(url: str, pid: int) -> bool:
    """A service that is idle looks for batches once a second."""
    return bool(owned(url, pid)[1])


def kill_one_after_the_other(fleet: Fleet, database_url: str, provider: Provider) -> set[tuple[str, str]]:
    """Kill each service once, and replace it; return which batches were taken over, each with its dead owner."""
    moved: set[tuple[str, str]] = set()
    for place, completed in enumerate(KILLS):
        provider.wait(completed=completed, timeout=PATIENCE)
        until(partial(has_batches, database_url, fleet.alive[place].pid))
        provider.hold()  # what is being submitted, fetched and stored goes on, but no batch comes to its end
        owner, batches = owned(database_url, fleet.alive[place].pid)
        assert batches
        fleet.kill(place)
        with pytest.raises(URLError, match="refused"):
            failed_checks(fleet.url(place))
        until(fleet.are_ready(*({*range(SERVICES)} - {place})))
        fleet.replace(place)
        until(fleet.are_ready(*range(SERVICES)))
        moved |= {(batch_id, owner) for batch_id in batches}
        until(partial(fleet.has_taken_over, set(moved)))
        provider.release("videos")
    return moved


def test_while_one_after_the_other_is_killed_every_file_arrives_whole_and_the_logs_tell_it_all(
    fleet: Fleet, shared: str, rabbitmq: RabbitMQ, provider: Provider, watching: BatchService, tmp_path: Path
) -> None:
    provider.options(latency=[0.4, 0.8])
    folders = [tmp_path / f"films-{group}" for group in BATCHES]
    with ThreadPoolExecutor(len(BATCHES)) as programs_running:
        printed = programs_running.map(partial(order, rabbitmq.url), BATCHES, folders)
        try:
            moved = kill_one_after_the_other(fleet, shared, provider)
        finally:
            provider.release("videos")  # the programs end with their batches
        lines = [line for each in printed for line in each]
    check_arrived(lines, folders, provider)
    assert sorted(check_paid_once(provider)["paid_per_prompt"]) == sorted(
        prompt for group in BATCHES for prompt in numbered(VIDEOS, group)
    )
    batches = [watching.get_batch_status(each.id) for each in watching.list_batches()]
    assert [batch.status for batch in batches] == ["completed"] * len(BATCHES)
    for batch in batches:
        check_objects(watching, batch, provider)
        check_journal(watching, batch.id)
    told = lives([each.said for each in fleet.all])
    assert told.keys() == {batch.id for batch in batches}
    for batch in batches:
        life, journal = told[batch.id], recorded(watching, batch.id)
        assert life.events == journal.events
        assert life.states() == journal.states()
        ends: dict[str | None, str] = {None: batch.status} | {job.id: job.status for job in batch.jobs}
        assert {about: states[-1] for about, states in life.states().items()} == ends
        assert [came for _, came in sorted(life.owners.items())] == [
            "batch.claimed", *["batch.taken_over"] * sum(batch_id == batch.id for batch_id, _ in moved)
        ]  # fmt: skip
    check_told(fleet)
    assert not fleet.lines("stores_differ")


def check_arrived(lines: list[str], folders: list[Path], provider: Provider) -> None:
    """The programs were told of every video, and each has its files, byte for byte as the provider made them."""
    made = sorted(video["sha256"] for video in provider.ledger()["videos"])
    films = [film for folder in folders for film in folder.iterdir()]
    assert sorted(hashlib.sha256(film.read_bytes()).hexdigest() for film in films) == made
    assert len(films) == len(BATCHES) * VIDEOS
    completed = [line.partition(" completed (")[0] for line in lines if " completed (" in line]
    assert sorted(completed) == sorted(prompt for group in BATCHES for prompt in numbered(VIDEOS, group))


def check_told(fleet: Fleet) -> None:
    """The metrics of each service that is left are what its own log says, and nothing is left to do."""
    for place, serving in enumerate(fleet.alive):
        until(fleet.are_ready(place))
        metrics = Told(fleet.url(place))
        assert metrics.total("takeovers_total") == len(fleet.lines("batch.taken_over", [serving]))
        assert metrics.total("jobs_finished_total", status="completed") == len(fleet.lines("job.completed", [serving]))
        assert metrics.total("jobs_finished_total") == metrics.total("jobs_finished_total", status="completed")
        assert [metrics.total(left) for left in ("jobs", "batches", "unknown_submissions")] == [0, 0, 0]
        until(partial(fleet.has_told_all, place))
    counted = [Told(fleet.url(place)).total("takeovers_total") for place in range(SERVICES)]
    assert sum(counted) > 0  # those from the service that was killed last, at least
