"""Kills four processes that spend against one ceiling, at random, while the server misbehaves at random.

`python -m tests.chaos.ceiling --kills 200 --seed 1` prints a report, and ends with 1 if the ceiling was exceeded, if a
charge was lost or counted twice, or if something was left unmade that the ceiling allowed. Each round has a database of
its own on one PostgreSQL; each process makes a batch of its own. Judged by the bill of a server that shares no code with
us, and by rows that are read without our code.
"""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field
from decimal import ROUND_CEILING, Decimal
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from actors.errors import Conflict
from actors.service import BatchService
from tests.chaos.command import concluded, counted, wanted
from tests.chaos.kills import FAULTS
from tests.integration.support import PATIENCE, Drivers, check_paid_once, options_for, settings_from
from tests.provider.client import Provider
from tests.provider.options import PRICE_TELLINGS, Options
from tests.servers.postgresql import PostgreSQL

PROCESSES, VIDEOS, MOST_KILLS = 4, 8, 16
RATES = ("0.10", "0.033333333333", "1")
"""US dollars a second."""
SECONDS = (4, 8, 12)
_PASSES = 8
"""Rounds of retries, until nothing more is made; each begins with what the one before has released."""
Row = dict[str, Any]


@dataclass
class Report:
    """What happened."""

    seed: int
    rounds: int = 0
    kills: int = 0
    states: Counter[str] = field(default_factory=Counter)
    """Of the videos at the end: a state, or the code of the error."""
    charges: Counter[str] = field(default_factory=Counter)
    billed: Decimal = Decimal(0)
    ceilings: Decimal = Decimal(0)
    wrong: list[str] = field(default_factory=list)
    """Rounds in which the ceiling or the ledger was wrong, and how."""


def kill_under_a_ceiling(seed: int, kills: int, provider: Provider, drivers: Drivers, postgresql: PostgreSQL) -> Report:
    """Go on until so many processes were killed."""
    report, chance = Report(seed), random.Random(seed)  # noqa: S311  (to be repeatable)
    while report.kills < kills:
        report.rounds += 1
        name = postgresql.create_database()
        with tempfile.TemporaryDirectory() as folder:
            game = Round(report, chance, provider, drivers, postgresql.url(name), Path(folder))
            try:
                game.play(min(kills - report.kills, chance.randint(4, MOST_KILLS)))
                game.finish()
            except (AssertionError, TimeoutError) as error:
                report.wrong.append(f"round {report.rounds}: {type(error).__name__}: {error}")
                drivers.reset()
        postgresql.drop_database(name)
    return report


class Round:
    """One ceiling, and four processes that spend against it."""

    def __init__(
        self, report: Report, chance: random.Random, provider: Provider, drivers: Drivers, url: str, folder: Path
    ) -> None:
        self._report, self._chance, self._provider, self._drivers, self._url = report, chance, provider, drivers, url
        self._rate, bills_failed = chance.choice(RATES), chance.random() < 0.5
        provider.reset()
        provider.options(
            **asdict(Options())
            | {
                "latency": (0.1, 0.4), "prices": {"*": self._rate}, "bills_failed": bills_failed, "fail_rate": 0.1,
                "tells_price": chance.choice([None, *PRICE_TELLINGS]), "seed": chance.randrange(1000),
            }
        )  # fmt: skip
        for fault in chance.sample(FAULTS, k=3):
            provider.fault(**fault, skip=chance.randint(0, 8), times=chance.randint(1, 3))
        (folder / "prices.json").write_text(json.dumps({"*": {"output_cost_per_second": float(self._rate)}}))
        self._requests = [self._request(number) for number in range(PROCESSES)]
        asked = sum(video["duration"] for request in self._requests for video in request["videos"])
        self.ceiling = (Decimal(self._rate) * asked * chance.randint(20, 80) / 100).quantize(Decimal("0.01"))
        self._options = options_for(
            provider.base_url, folder, database_url=url, sora_submit_timeout=1500,
            sora_prices=str(folder / "prices.json"), sora_budget=f"{self.ceiling} USD",
            sora_charges_failed="yes" if bills_failed else "no",
        )  # fmt: skip

    def _request(self, number: int) -> Row:
        prompts = [f"p{number}: video {each}" for each in range(1, VIDEOS + 1)]
        return {
            "id": f"p{number}", "concurrency": 3,
            "videos": [{"prompt": prompt, "duration": self._chance.choice(SECONDS)} for prompt in prompts],
        }  # fmt: skip

    def play(self, kills: int) -> None:
        """Kill so many, unless all four have ended by themselves."""
        running = {self._start(number): number for number in range(PROCESSES)}
        while kills and running:
            with suppress(TimeoutError):  # what it would wait for never comes: it is how a moment passes
                self._provider.wait(timeout=self._chance.uniform(0.0, 0.25), completed=1000)
            pid = self._chance.choice(list(running))
            number = running.pop(pid)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            if self._drivers.end(pid)["ended"] == -signal.SIGKILL:
                kills -= 1
                self._report.kills += 1
                running[self._start(number)] = number
        for pid in running:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            self._drivers.end(pid)

    def _start(self, number: int) -> int:
        return self._drivers.start(options=self._options, request=self._requests[number])

    def finish(self) -> None:
        """Have one more process make all that the ceiling allows, and judge."""
        with BatchService(settings_from(self._options)) as service:
            ids = [service.create_batch(request).id for request in self._requests]
            for running in [service.process_batch(each) for each in ids if not service.get_batch_status(each).finished]:
                running.result(2 * PATIENCE)
            before = -1
            for _ in range(_PASSES):
                if before == (before := self._provider.summary()["accepted"]):
                    break
                for each in ids:
                    with suppress(Conflict):
                        service.retry_batch(each).result(2 * PATIENCE)
            jobs = [job for each in ids for job in service.get_batch_status(each).jobs]
        self._report.states.update(job.error.code if job.error else job.status.value for job in jobs)
        self._judge({job.id: job for job in jobs})

    def _judge(self, jobs: dict[str, Any]) -> None:
        check_paid_once(self._provider) if not self._retried_failures() else None
        ledger = self._provider.ledger()
        billed = Decimal(ledger["billed"])
        (budget,) = self._rows("SELECT * FROM budgets WHERE scope='total'")
        charges = {row["id"]: row for row in self._rows("SELECT * FROM submissions")}
        self._report.billed += billed
        self._report.ceilings += self.ceiling
        self._report.charges.update(row["charge"] for row in charges.values())
        ceiling, used = int(self.ceiling * 10**6), budget["used_micros"]
        assert billed <= self.ceiling, f"the bill is {billed}, the ceiling {self.ceiling}"
        assert budget["ceiling_micros"] == ceiling, budget
        assert used <= ceiling, f"{used} is used of {ceiling}"
        assert used == sum(map(_counted, charges.values())), f"{used} is used, the charges are {charges}"
        self._check_bill(ledger, charges)
        for batch_id in {job.id.rpartition("-")[0] for job in jobs.values()}:
            waiting = [job for job in jobs.values() if job.id.startswith(batch_id) and _was_refused(job)]
            if waiting:
                needed = min(_micros(Decimal(self._rate) * job.duration) for job in waiting[:1])
                assert used + needed > ceiling, f"{waiting[0].id} costs {needed}, and {used} is used of {ceiling}"

    def _retried_failures(self) -> bool:
        return any(video["status"] == "failed" for video in self._provider.ledger()["videos"])

    def _check_bill(self, ledger: Row, charges: dict[str, Row]) -> None:
        """Each video that was paid for has a charge of its own, of what it costs."""
        keys = {post["video_id"]: post["idempotency_key"] for post in ledger["posts"] if post["accepted"]}
        for video in ledger["videos"]:
            charge, price = charges[keys[video["id"]]], Decimal(video["price"])
            if video["status"] == "failed" and not video["bills_failed"]:
                continue
            assert charge["charge"] != "released", f"{video} was paid for, its charge is {charge}"
            told = Decimal(charge["charged_micros"] or 0) / 10**6 + Decimal(charge["charged_rest"] or 0) / 10**18
            assert charge["charge"] != "charged" or told == price, f"{video} is charged as {charge}"
            assert _counted(charge) >= price * 10**6, f"{video} is counted as {charge}"

    def _rows(self, sql: str) -> list[Row]:
        with psycopg.connect(self._url, row_factory=dict_row) as connection:
            return connection.execute(sql.encode()).fetchall()


def _was_refused(job: Any) -> bool:
    return job.error is not None and job.error.code == "budget_exceeded"


def _counted(charge: Row) -> int:
    """What a charge counts against a ceiling in dollars."""
    match charge["charge"]:
        case "released":
            return 0
        case "charged":
            return int(charge["charged_micros"]) + bool(charge["charged_rest"])
        case _:
            return int(charge["reserved_micros"])


def _micros(dollars: Decimal) -> int:
    return int((dollars * 10**6).to_integral_value(ROUND_CEILING))


def main() -> int:
    seed, kills = wanted(__doc__, "kills", 200)
    logging.disable(logging.WARNING)  # each round sets another ceiling
    began = time.monotonic()
    with closing(Drivers()) as drivers, Provider() as provider, PostgreSQL() as postgresql:
        report = kill_under_a_ceiling(seed, kills, provider, drivers, postgresql)
    print(f"seed {report.seed}: {report.kills} kills in {report.rounds} rounds, {time.monotonic() - began:.0f} s")
    print(f"videos: {counted(report.states)}")
    print(f"charges: {counted(report.charges)}")
    print(f"billed: {report.billed} USD of ceilings of {report.ceilings} USD")
    return concluded("rounds with something wrong", report.wrong)


if __name__ == "__main__":
    sys.exit(main())
