"""What is there after a run, gathered with no code of the product: the rows, the ledger, the events, the files."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pika

from tests.chaos.customer import QUEUE, Arrival, Command, Heard
from tests.chaos.house import House

Row = dict[str, Any]
_ERROR = re.compile(r"\S+ \S+ (error|critical) ")
_UNREADABLE = "sora.batch.commands.unreadable"
QUEUES = {
    QUEUE, _UNREADABLE, "sora.batch.commands", "sora.batch.cancels", "sora.batch.commands.waiting",
}  # fmt: skip
"""All that may be there, by name."""
_OTHERS = (
    "SELECT pid, state, wait_event, query FROM pg_stat_activity WHERE datname=current_database() "
    "AND pid <> pg_backend_pid() AND backend_type='client backend'"
)
_LOCKS = "SELECT pid, locktype, mode FROM pg_locks WHERE pid <> pg_backend_pid() AND locktype <> 'virtualxid'"


@dataclass(slots=True)
class Evidence:
    """Everything that is judged."""

    batches: list[Row]
    jobs: list[Row]
    submissions: list[Row]
    budgets: list[Row]
    journal: list[Row]
    publications: list[Row]
    owners: list[Row]
    """With `alive`: whether the lease still lasts."""
    posts: list[Row]
    made: list[Row]
    """The videos at the provider."""
    most_at_once: dict[str, int]
    """Of each batch, how many videos were in the making at a time."""
    arrivals: list[Arrival]
    answers: dict[str, list[str]]
    """Of each command."""
    commands: list[Command]
    created: list[str]
    """The batches that were asked for."""
    files: dict[str, tuple[int, str]]
    """Of each file in the folders of videos, by its path, and each object, by its address: its bytes and its SHA-256."""
    queues: dict[str, int]
    """Of each queue, how many messages are in it."""
    aside: list[str]
    """The bodies of what was put aside."""
    sessions: list[Row]
    locks: list[Row]
    exits: dict[str, int | None]
    """How the services ended."""

    def keep(self, folder: Path) -> None:
        """Write it down, to be looked into."""
        document = asdict(self) | {
            "arrivals": [[each.key, each.id, each.body.decode()] for each in self.arrivals],
            "commands": [each.body.decode() for each in self.commands],
        }
        (folder / "evidence.json").write_text(json.dumps(document, indent=1, default=str))


def gather(
    house: House, heard: Heard, commands: list[Command], created: list[str], exits: dict[str, int | None]
) -> Evidence:
    """Look everywhere. The services have ended."""
    ledger = house.provider.ledger()
    queues = house.rabbitmq.control("list_queues", "--silent", "name", "messages")
    return Evidence(
        batches=house.rows("SELECT * FROM batches ORDER BY id"),
        jobs=house.rows("SELECT * FROM jobs ORDER BY batch_id, position"),
        submissions=house.rows("SELECT * FROM submissions ORDER BY intended_at"),
        budgets=house.rows("SELECT * FROM budgets ORDER BY scope, period, unit"),
        journal=house.rows("SELECT * FROM journal ORDER BY batch_id, sequence"),
        publications=house.rows("SELECT * FROM publications"),
        owners=house.rows("SELECT *, lease_until >= date_part('epoch', clock_timestamp()) AS alive FROM owners"),
        posts=ledger["posts"],
        made=ledger["videos"],
        most_at_once=ledger["max_in_flight_per_group"],
        arrivals=list(heard.arrivals),
        answers={command_id: sorted(body.decode() for body in told) for command_id, told in heard.answers.items()},
        commands=commands,
        created=created,
        files=_files(house),
        queues={name: int(count) for name, count in map(str.split, queues.splitlines())},
        aside=_aside(house),
        sessions=house.rows(_OTHERS),
        locks=house.rows(_LOCKS),
        exits=exits,
    )


def _files(house: House) -> dict[str, tuple[int, str]]:
    paths = [path for path in house.videos.rglob("*") if path.is_file() and not path.name.startswith(".sora-batch")]
    files = {str(path): _file(path) for path in paths}
    if house.bucket is not None:
        files |= {uri: (len(data), hashlib.sha256(data).hexdigest()) for uri, data in house.objects().items()}
    return files


def complaints(house: House) -> Counter[str]:
    """What the services logged as an error, and what their tracebacks end with."""
    counts: Counter[str] = Counter()
    for service in (*house.services, house.rival):
        told = False
        for line in service.log.read_text(errors="replace").splitlines():
            if error := _ERROR.match(line):
                counts[line[error.end() :][:160]] += 1
            elif told and line[:1].isalpha():
                counts[line[:160]] += 1
            told = line.startswith(("Traceback", " ")) if line[:1] in "T " else False
    return counts


def _file(path: Path) -> tuple[int, str]:
    content = path.read_bytes()
    return len(content), hashlib.sha256(content).hexdigest()


def _aside(house: House) -> list[str]:
    bodies = []
    connection = pika.BlockingConnection(pika.URLParameters(house.rabbitmq.url))
    try:
        channel = connection.channel()
        while (got := channel.basic_get(_UNREADABLE, auto_ack=True))[0] is not None:
            bodies.append(got[2].decode(errors="replace"))
    finally:
        connection.close()
    return bodies
