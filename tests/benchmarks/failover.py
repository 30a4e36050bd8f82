"""How long a takeover and a cancellation take: `python -m tests.benchmarks.failover [--runs N]` prints two tables.

Real `sora-batch serve` processes on PostgreSQL. One of them may be as if on another host: there a dead process is known
by its lease alone. The server is one of our own, and holds its videos.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

from actors.service import BatchService
from storage.database import Database
from storage.storage import Storage
from tests.integration.support import PATIENCE, ROOT, numbered, options_for, settings_from, until, videos
from tests.provider.client import Provider
from tests.servers.postgresql import PostgreSQL

LEASE_GOAL, STOP_GOAL, CANCEL_GOAL = 17.0, 2.0, 1.0
"""Seconds: the default lease and 2; a graceful stop; 99 of 100 cancellations."""
LIMIT = 2
ELSEWHERE = (
    "import sys, storage.owners as o, socket; h = o.this_host; n = sys.argv.pop(1); "
    "o.this_host = lambda: (n, h()[1]); from actors.cli import main; main()"
)
"""The program, on a host that is called otherwise."""


class Serving:
    """A `serve` process."""

    def __init__(self, options: dict[str, Any], folder: Path, host: str | None) -> None:
        environment = {name: value for name, value in os.environ.items() if name == "PATH"}
        environment |= {name.upper(): str(value) for name, value in options.items()}
        program = ["-m", "actors.cli"] if host is None else ["-c", ELSEWHERE, host]
        said = folder / f"serve-{os.urandom(4).hex()}"
        with said.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, *program, "serve"],
                env=environment | {"PYTHONPATH": str(ROOT)}, cwd=folder, stdin=subprocess.DEVNULL, stderr=file,
            )  # fmt: skip
        until(lambda: b"serving:" in said.read_bytes() or self.process.poll() is not None)
        assert self.process.poll() is None, said.read_text()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.wait()


class Bench:
    """A database, a server, and services that are started when asked for."""

    def __init__(self, provider: Provider, url: str, folder: Path) -> None:
        self.provider, self._folder = provider, folder
        self.options = options_for(provider.base_url, folder, database_url=url)
        self._started: list[Serving] = []
        self._database = Database(url)
        self.service = BatchService(settings_from(self.options))
        provider.reset()
        provider.hold()

    def serve(self, host: str | None = None) -> Serving:
        self._started.append(Serving(self.options, self._folder, host))
        return self._started[-1]

    def owner_of(self, batch_id: str) -> int | None:
        """The pid of a batch's owner."""
        with self._database.connection():
            batch = Storage(self._database).batches.get(batch_id)
            owner = batch.owner if batch else None
            found = self._database.execute("SELECT pid FROM owners WHERE id=?", (owner,)).fetchall()
            return found[0][0] if found else None

    def want(self, batch_id: str, count: int = 4) -> None:
        """Create a batch that any service may make."""
        self.service.create_batch(videos(*numbered(count, batch_id), id=batch_id, concurrency=LIMIT))
        batches = self.service._storage.batches
        self.service._write(lambda: batches.update(batch_id, wanted=True))

    def makes_two(self, batch_id: str) -> bool:
        jobs = self.service.get_batch_status(batch_id).jobs
        return sum(job.status == "generating" for job in jobs) == LIMIT

    def close(self) -> None:
        for serving in self._started:
            serving.close()
        self.service.close()
        self._database.close()


@contextmanager
def bench(provider: Provider, postgresql: PostgreSQL) -> Iterator[Bench]:
    name = postgresql.create_database()
    with tempfile.TemporaryDirectory() as folder:
        made = Bench(provider, postgresql.url(name), Path(folder))
        try:
            yield made
        finally:
            made.close()
            postgresql.drop_database(name)


# --- one ends, another goes on

TAKEOVERS: dict[str, tuple[signal.Signals, str | None, float]] = {
    "SIGKILL, same host": (signal.SIGKILL, None, STOP_GOAL),
    "SIGKILL, another host": (signal.SIGKILL, "elsewhere", LEASE_GOAL),
    "SIGTERM, same host": (signal.SIGTERM, None, STOP_GOAL),
    "SIGTERM, another host": (signal.SIGTERM, "elsewhere", STOP_GOAL),
}


def takeovers(how: signal.Signals, host: str | None, batches: int, on: Bench) -> list[float]:
    """End the owner of some batches; the seconds until another one has each of them."""
    first = on.serve()
    ids = [f"batch-{number}" for number in range(batches)]
    for batch_id in ids:
        on.want(batch_id)
    for batch_id in ids:
        until(lambda: on.makes_two(batch_id))  # noqa: B023
    second = on.serve(host)
    began = monotonic()
    first.process.send_signal(how)
    first.process.wait(PATIENCE)
    took: dict[str, float] = {}

    def all_taken() -> bool:
        for batch_id in ids:
            if batch_id not in took and on.owner_of(batch_id) == second.process.pid:
                took[batch_id] = monotonic() - began
        return len(took) == len(ids)

    until(all_taken, 60)
    return list(took.values())


# --- cancelling at every moment


def _pending(on: Bench, batch_id: str) -> None:
    on.service.create_batch(videos(*numbered(4, batch_id), id=batch_id))


def _wanted(on: Bench, batch_id: str) -> None:
    """And about to be claimed."""
    on.want(batch_id)


def _posting(on: Bench, batch_id: str) -> None:
    on.provider.fault(on="create", do="hang", accept=True, match=f"{batch_id}:", times=LIMIT, seconds=20.0)
    on.want(batch_id)
    until(lambda: sum(post["prompt"].startswith(f"{batch_id}:") for post in on.provider.ledger()["posts"]) == LIMIT)


def _generating(on: Bench, batch_id: str) -> None:
    on.want(batch_id)
    until(lambda: on.makes_two(batch_id))


def _downloading(on: Bench, batch_id: str) -> None:
    on.provider.fault(on="content", do="stall", match=f"{batch_id}:", times=LIMIT, seconds=20.0)
    _generating(on, batch_id)
    on.provider.finish(match=f"{batch_id}:")
    jobs = on.service.get_batch_status
    until(lambda: sum(job.status == "downloading" for job in jobs(batch_id).jobs) == LIMIT)


MOMENTS: dict[str, Callable[[Bench, str], None]] = {
    "pending": _pending,
    "wanted, or submitting": _wanted,
    "POST in flight": _posting,
    "generating": _generating,
    "downloading": _downloading,
}
_LEFT = {"owner dead": signal.SIGKILL, "owner suspended": signal.SIGSTOP}


def cancel(on: Bench, batch_id: str) -> float:
    """The seconds until the answer is there; nothing is started afterwards."""
    began = monotonic()
    summary = on.service.cancel_batch(batch_id)
    took = monotonic() - began
    assert summary.status == "cancelled"
    return took


def cancellations(runs: int, on: Bench) -> dict[str, list[float]]:
    """Cancel batches of another process, at each moment of their lives."""
    took: dict[str, list[float]] = {}
    serving = on.serve()
    for moment, reach in MOMENTS.items():
        for number in range(runs):
            batch_id = f"m{len(took)}-{number}"
            reach(on, batch_id)
            took.setdefault(f"{moment}, in another process", []).append(cancel(on, batch_id))
    here = took["generating, in this process"] = []
    serving.close()
    for number in range(runs):
        batch_id = f"here-{number}"
        on.service.create_batch(videos(*numbered(4, batch_id), id=batch_id, concurrency=LIMIT))
        running = on.service.process_batch(batch_id)
        until(lambda: on.makes_two(batch_id))  # noqa: B023
        began = monotonic()
        on.service.cancel_batch(batch_id)
        assert running.result(PATIENCE).status == "cancelled"
        here.append(monotonic() - began)  # until whoever waits for it has been told, too
    for moment, how in _LEFT.items():
        serving, ids = on.serve(), [f"{moment.split()[1]}-{number}" for number in range(runs)]
        for batch_id in ids:
            _generating(on, batch_id)
        serving.process.send_signal(how)
        took[moment] = [cancel(on, batch_id) for batch_id in ids]
        serving.close()
    return took


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="of each takeover")
    parser.add_argument("--batches", type=int, default=5, help="that are taken over in each")
    parser.add_argument("--cancels", type=int, default=25, help="at each moment")
    wanted = parser.parse_args()
    missed = False
    with Provider() as provider, PostgreSQL() as postgresql:
        print("| takeover | n | median | maximum | goal |\n| --- | --- | --- | --- | --- |")
        for name, (how, host, goal) in TAKEOVERS.items():
            took: list[float] = []
            for _ in range(wanted.runs):
                with bench(provider, postgresql) as on:
                    took += takeovers(how, host, wanted.batches, on)
            missed |= max(took) > goal
            print(_row(name, took, goal), flush=True)
        print("\n| cancel | n | median | maximum | goal |\n| --- | --- | --- | --- | --- |")
        with bench(provider, postgresql) as on:
            for name, took in cancellations(wanted.cancels, on).items():
                missed |= sorted(took)[int(len(took) * 0.99) - 1] > CANCEL_GOAL
                print(_row(name, took, CANCEL_GOAL), flush=True)
    return int(missed)


def _row(name: str, took: list[float], goal: float) -> str:
    return f"| {name} | {len(took)} | {statistics.median(took):.2f} s | {max(took):.2f} s | {goal:g} s |"


if __name__ == "__main__":
    sys.exit(main())
