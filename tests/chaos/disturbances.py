"""What goes wrong, and when: the lanes that run side by side. At the end every lane mends what it has broken."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

import psycopg

from tests.chaos.customer import Sender
from tests.chaos.faults import FAULTS
from tests.chaos.house import LEASE, House
from tests.chaos.lane import Lane
from tests.chaos.machine import HOUR
from tests.chaos.orders import CustomerLane
from tests.chaos.report import Report
from tests.chaos.service import Service
from tests.servers.packages import ServerError
from tests.servers.s3 import Fault

_END_SECONDS = 20.0


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

    @property
    def sizes(self) -> list[int]:
        """Of the files. The largest goes into a bucket in two parts."""
        return [4096, 50_000, 50_000, 2_600_000 if self.house.gate is None else 6_000_000]

    def disturb(self) -> None:
        if self.chance.random() < 0.04:
            self.house.provider.kill()
            self.count("provider killed")
            self.pause(0.1, 4.0)
            self.house.provider.restart()
            return
        # Most files fit into one block; of the largest, a half that has come is a file already.
        self.house.provider.options(content_bytes=self.chance.choice(self.sizes))
        fault = self.chance.choice(FAULTS)
        times = self.chance.randint(1, 3)
        self.house.provider.fault(**fault(self.chance), times=times)
        self.report.disturbed("provider's fault", times)

    def mend(self) -> None:
        self.house.provider.clear_faults()
        self.house.provider.release("requests")


class StoreLane(Lane):
    """The bucket's faults: it is slow, full, or away, and answers that are lost."""

    rest = (0.5, 4.0)

    def disturb(self) -> None:
        assert self.house.gate is not None
        method = self.chance.choice(["PUT", "PUT", "HEAD", "GET", "POST"])
        status, code = self.chance.choice(
            [(503, "SlowDown"), (500, "InternalError"), (507, "InsufficientStorage"), (None, "")]
        )
        times, after = self.chance.randint(1, 4), self.chance.random() < 0.4
        held = threading.Event() if self.chance.random() < 0.3 else None
        self.house.gate.fault(Fault(method, "", status, code, times=times, after=after, held=held))
        self.count("bucket's fault")
        if held is not None:
            self.pause(0.5, 8.0)
            held.set()


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
    if house.gate is not None:
        others.append(StoreLane("store", *where))
    return CustomerLane(sender, house.listener.heard, *where), others
