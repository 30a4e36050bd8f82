"""What goes wrong, and when: lanes of disturbances that run side by side, each with a chance of its own from the seed.

A lane is a thread: it rests, disturbs one thing, mends it, and rests again. What it chooses depends on the seed and the
lane's name alone. At the end every lane mends what it has broken.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import psycopg

from tests.chaos.customer import Command, Heard, Sender
from tests.chaos.house import LEASE, House
from tests.chaos.machine import HOUR
from tests.chaos.report import Report
from tests.chaos.service import Service
from tests.servers.postgresql_programs import ServerError

_END_SECONDS = 20.0


class Lane(ABC):
    """See the module."""

    rest: tuple[float, float]
    """Seconds between two disturbances: the least and the most."""

    def __init__(self, name: str, house: House, report: Report, stopping: threading.Event) -> None:
        self.name, self.house, self.report, self._stopping = name, house, report, stopping
        self.chance = random.Random(f"{report.seed} {name}")  # noqa: S311  (to be repeatable)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self.pause(*self.rest):
                self.disturb()
            self.mend()
        except Exception as error:
            self.report.found(f"the lane {self.name} failed: {type(error).__name__}: {error}")

    def pause(self, least: float, most: float) -> bool:
        """Let a while pass, less at the end of the run; return whether that has come."""
        return self._stopping.wait(self.chance.uniform(least, most))

    def count(self, how: str) -> None:
        self.report.disturbed(how)

    @abstractmethod
    def disturb(self) -> None: ...

    def mend(self) -> None:  # noqa: B027  (most lanes have nothing to mend)
        """Called once, at the end."""


class Services(Lane):
    """One service's life: killed, ended, suspended, on machines whose clocks are off."""

    rest = (3.0, 16.0)

    def __init__(self, service: Service, house: House, report: Report, stopping: threading.Event) -> None:
        super().__init__(service.name, house, report, stopping)
        self._service, self._ahead = service, 0.0
        self._deeds: list[tuple[int, Callable[[], None]]] = [
            (4, self._kill), (2, self._end), (3, self._suspend_past_the_lease), (2, self._suspend), (2, self._set_clock),
        ]  # fmt: skip

    def disturb(self) -> None:
        if not self.see():
            return
        weights, deeds = zip(*self._deeds, strict=True)
        self.chance.choices(deeds, weights)[0]()

    def see(self) -> bool:
        """Whether it runs; one that has ended by itself is started again, as whatever watches over it would do."""
        served, code = self._service.serves, self._service.gone()
        if code is not None:
            self._note_end(code, served=served)
        if not self._service.runs:
            self._start_service()
        return code is None

    def _note_end(self, code: int, *, served: bool) -> None:
        words = self._service.last_words()
        if served:
            self.report.found(f"{self.name} ended by itself with {code}: {words}")
        else:
            self.count("start that failed")  # what it needs was away

    def _start_service(self) -> None:
        self._ahead = self.chance.choice([0.0, 0.0, 0.0, HOUR, -HOUR])
        if self._ahead:
            self.count("clock off by an hour")
        # As a rule on a machine of its own: that it is dead, the others can't see.
        self._service.start(self.chance.choice([self.name, self.name, "shared"]), self._ahead)

    def mend(self) -> None:
        self._service.send(signal.SIGCONT)
        self.see()

    def _kill(self) -> None:
        self._service.end(signal.SIGKILL, _END_SECONDS)
        self.count("service killed")
        self.pause(0.0, 3.0)
        self._start_service()

    def _end(self) -> None:
        served = self._service.serves
        code = self._service.end(signal.SIGTERM, _END_SECONDS)
        self.count("service ended")
        if code != 0 and served:
            how = f"with {code}" if code is not None else f"not within {_END_SECONDS:g} s"
            self.report.found(f"{self.name} ended {how} at SIGTERM: {self._service.last_words()}")
        self.pause(0.0, 2.0)
        self._start_service()

    def _suspend_past_the_lease(self) -> None:
        self._service.send(signal.SIGSTOP)
        self.count("suspended past its lease")
        self.pause(LEASE + 0.5, 2 * LEASE + 2)
        if self.chance.random() < 0.2:
            self._kill()
        self._service.send(signal.SIGCONT)

    def _suspend(self) -> None:
        self._service.send(signal.SIGSTOP)
        self.count("suspended")
        self.pause(0.2, LEASE)
        self._service.send(signal.SIGCONT)

    def _set_clock(self) -> None:
        forward = self._ahead < 0 or (self._ahead == 0 and self.chance.random() < 0.5)
        if self._service.serves:  # before that, the signal would end it
            self._ahead += HOUR if forward else -HOUR
            self._service.send(signal.SIGUSR1 if forward else signal.SIGUSR2)
            self.count("clock set by an hour")


class DatabaseLane(Lane):
    """PostgreSQL, stopped at once or killed, and started again."""

    rest = (12.0, 45.0)

    def disturb(self) -> None:
        if self.chance.random() < 0.5:
            self.house.postgresql.stop()
            self.count("PostgreSQL stopped")
        else:
            self.house.postgresql.kill()
            self.count("PostgreSQL killed")
        self.pause(0.2, 8.0)
        self.house.postgresql.start()


class BrokerLane(Lane):
    """RabbitMQ, killed and started again."""

    rest = (20.0, 60.0)

    def disturb(self) -> None:
        self.house.rabbitmq.kill()
        self.count("RabbitMQ killed")
        self.pause(0.0, 6.0)
        self.house.rabbitmq.start()


class ProviderLane(Lane):
    """The provider's faults, and its own deaths."""

    rest = (0.5, 4.0)

    def disturb(self) -> None:
        if self.chance.random() < 0.04:
            self.house.provider.kill()
            self.count("provider killed")
            self.pause(0.1, 4.0)
            self.house.provider.restart()
            return
        # Most files fit into one block; of the largest, a half that has come is a file already.
        self.house.provider.options(content_bytes=self.chance.choice([4096, 50_000, 50_000, 2_600_000]))
        fault = self.chance.choice(FAULTS)
        times = self.chance.randint(1, 3)
        self.house.provider.fault(**fault(self.chance), times=times)
        self.report.disturbed("provider's fault", times)

    def mend(self) -> None:
        self.house.provider.clear_faults()
        self.house.provider.release("requests")


Fault = Callable[[random.Random], dict[str, Any]]


def _always(**fault: Any) -> Fault:
    return lambda _: fault


def _in_a_second(chance: random.Random) -> dict[str, Any]:
    """A pause that is told as a date, in this machine's right time."""
    date = formatdate(time.time() + chance.choice([1, 2]), usegmt=True)
    return {"on": ["create", "retrieve"], "do": "answer", "status": 429, "headers": {"Retry-After": date}}


FAULTS: list[Fault] = [
    _always(on="create", do="lose_response"),
    _always(on="create", do="lose_response"),
    _always(on="create", do="lose_request"),
    _always(on="create", do="reset", accept=True),
    _always(on="create", do="reset"),
    lambda chance: {"on": "create", "do": "hang", "accept": True, "seconds": chance.uniform(0.3, 6), "then": "close"},
    _always(on="create", do="hang", accept=True, seconds=1.0, then="answer"),
    _always(on="create", do="answer", status=503),
    _always(on="create", do="answer", status=503, accept=True),
    _always(on="create", do="answer", status=200, drop=["id"]),
    _always(on="create", do="answer", status=400, body={"error": {"message": "not today", "code": "invalid"}}),
    _always(on="create", do="answer", status=429, headers={"Retry-After": "1"}),
    _in_a_second,
    _always(on="retrieve", do="answer", status=500),
    _always(on="retrieve", do="answer", status=404),
    _always(on="retrieve", do="reset"),
    _always(on="retrieve", do="hang", seconds=3.0),
    _always(on="content", do="short"),
    _always(on="content", do="reset"),
    _always(on="content", do="stall", seconds=2.0),
    _always(on="content", do="stall", seconds=2.0, then="reset"),
    _always(on="list", do="answer", status=503),
    _always(on="list", do="answer", lag=1.0),
    _always(on="list", do="reset"),
    _always(on="delete", do="answer", status=409),
    _always(on="delete", do="lose_response"),
]


class NetworkLane(Lane):
    """Connections that are cut, slow or half-open."""

    rest = (0.5, 5.0)

    def disturb(self) -> None:
        place = self.chance.choice(sorted(self.house.proxies))
        proxy, dice = self.house.proxies[place], self.chance.random()
        if dice < 0.6:
            self.report.disturbed("connections cut", proxy.cut())
            return
        if dice < 0.8:
            proxy.delay(self.chance.uniform(0.02, 0.4))
            self.count("network slow")
            self.pause(1.0, 5.0)
        else:
            proxy.half_open()
            self.count("network half-open")
            self.pause(1.0, 12.0)
        proxy.mend()


class RivalLane(Lane):
    """Two owners for one batch: its owner's lease is ended under its feet, and another process asks for the batch."""

    rest = (6.0, 25.0)

    def disturb(self) -> None:
        try:
            owned = self.house.rows(
                "SELECT id, owner FROM batches WHERE owner IS NOT NULL AND status='processing' ORDER BY id"
            )
            if not owned:
                return
            batch = self.chance.choice(owned)
            self.house.rows("UPDATE owners SET lease_until=0 WHERE id=%s", batch["owner"])
        except (psycopg.Error, ServerError):
            return  # it is away just now
        self.count("two owners of a batch")
        self.house.rival.command = ("resume", batch["id"])
        self.house.rival.start("rival")
        self.pause(2.0, 15.0)
        self.house.rival.end(self.chance.choice([signal.SIGKILL, signal.SIGTERM]), _END_SECONDS)


class CustomerLane(Lane):
    """Batches, created and cancelled throughout; also what customers do by mistake."""

    rest = (0.2, 2.4)

    def __init__(self, sender: Sender, heard: Heard, *where: Any) -> None:
        super().__init__("customer", *where)
        self._sender, self._heard = sender, heard
        self.batches: list[str] = []
        self._unprocessed: list[str] = []
        self._number = 0
        self._deeds: list[tuple[int, Callable[[], None]]] = [
            (10, self._create), (4, self._cancel), (3, self._retry), (2, self._process), (2, self._say_it_again),
            (1, self._replay), (1, self._talk_nonsense),
        ]  # fmt: skip

    def disturb(self) -> None:
        weights, deeds = zip(*self._deeds, strict=True)
        self.chance.choices(deeds, weights)[0]()

    def mend(self) -> None:
        for batch_id in self._unprocessed:
            self._send("process", {"batch_id": batch_id})

    def _send(self, name: str, data: dict[str, Any]) -> Command:
        self._number += 1
        return self._sender.send(name, data, f"{name}-{self._number}")

    def _create(self) -> None:
        batch_id = f"b{len(self.batches) + 1:04d}"
        words = ["", "", "", "", "", "", "", "", "[fail] ", "[moderation] "]
        videos = [
            {"prompt": f"{batch_id}: {self.chance.choice(words)}video {number}"}
            for number in range(1, self.chance.randint(1, 6) + 1)
        ]
        process = self.chance.random() < 0.8
        if not process:
            self._unprocessed.append(batch_id)
        self.batches.append(batch_id)
        request = {"id": batch_id, "videos": videos, "concurrency": self.chance.randint(1, 3), "process": process}
        self._send("create", request)
        if self.chance.random() < 0.15:
            self.pause(0.0, 2.0)
            self._send("cancel", {"batch_id": batch_id, "reason": "it was a mistake"})

    def _any(self, batch_ids: list[str]) -> str | None:
        """As a rule a late one."""
        return self.chance.choice(batch_ids[-8:] or [None])

    def _cancel(self) -> None:
        batch_id = self._any([each for each in self.batches if each not in self._heard.ended])
        if batch_id is not None:
            self._send("cancel", {"batch_id": batch_id})

    def _retry(self) -> None:
        ended = dict(self._heard.ended)
        batch_id = self._any([each for each in self.batches if ended.get(each, "completed") != "completed"])
        if batch_id is not None:
            self._send("retry", {"batch_id": batch_id})

    def _process(self) -> None:
        if self._unprocessed:
            batch_id = self._unprocessed.pop(self.chance.randrange(len(self._unprocessed)))
            self._send("process", {"batch_id": batch_id})

    def _say_it_again(self) -> None:
        if self._sender.commands:
            self._sender.deliver(self.chance.choice(self._sender.commands[-20:]))

    def _replay(self) -> None:
        batch_id = self._any(self.batches)
        if batch_id is not None:
            self._send(self.chance.choice(["replay", "report"]), {"batch_id": batch_id})

    def _talk_nonsense(self) -> None:
        self._send(self.chance.choice(["create", "cancel", "retry"]), {"batch_id": "..", "videos": 7})


def lanes(house: House, sender: Sender, report: Report, stopping: threading.Event) -> tuple[CustomerLane, list[Lane]]:
    """All lanes of a run; the customer's, and the others."""
    where = (house, report, stopping)
    others: list[Lane] = [
        *(Services(service, *where) for service in house.services),
        DatabaseLane("database", *where),
        BrokerLane("broker", *where),
        ProviderLane("provider", *where),
        NetworkLane("network", *where),
        RivalLane("rival", *where),
    ]
    return CustomerLane(sender, house.listener.heard, *where), others
