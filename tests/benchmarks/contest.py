"""One run of one peer: a process of its own, measured from outside, and what it made judged."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.cases import PEERS, VARIANTS, WITH_RABBITMQ, Case
from tests.benchmarks.serving import Serving
from tests.benchmarks.studio import Options, content, prompt_of
from tests.benchmarks.usage import cpu_seconds, peak_megabytes, tree

ROOT = Path(__file__).parents[2]
_START, _END = 60.0, 30.0
"""Seconds to get ready, and to end."""


class PeerError(Exception):
    """A peer did not do what it was to do."""


@dataclass(frozen=True, slots=True)
class Result:
    """What one run came to."""

    wall: float
    """Seconds from the word to the end of the last video."""
    cpu: float
    """Processor seconds of all its processes in that time."""
    peak: float
    """The most MB that they held."""
    requests: dict[str, int]
    """What the server was asked, by route."""
    max_in_flight: int
    paid_again: int
    """POSTs beyond the first one for a prompt."""
    told: dict[str, Any]
    """What only this peer tells."""


class Performer:
    """A peer's process."""

    def __init__(self, peer: str, order: dict[str, Any], root: Path) -> None:
        module, *words = (PEERS | VARIANTS)[peer]
        command = [sys.executable, "-m", f"tests.benchmarks.peers.{module}", json.dumps(order), *words]
        self._process = subprocess.Popen(
            command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self._peer = peer

    def hear(self, seconds: float) -> str:
        """The next line that it says.

        Raises:
            PeerError: it says nothing in that time, or has ended.
        """
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], seconds)[0]:
            raise PeerError(f"{self._peer} did not end within {seconds:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            raise PeerError(f"{self._peer} ended with {self._process.wait()}: see its stderr")
        return line

    def say(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()

    def processes(self) -> list[int]:
        return tree(self._process.pid)

    def close(self) -> None:
        """End it, if it has not ended; it ends its own children when its input does."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(_END)
        except subprocess.TimeoutExpired:
            self._process.kill()
        with self._process:
            pass


def run(
    case: Case, peer: str, server: Serving, folder: Path, amqp_url: str | None = None, *, root: Path = ROOT
) -> Result:
    """Have a peer make a case's videos once, with the packages that lie in `root`.

    Raises:
        PeerError: it did not, or not all, or not right.
    """
    server.reset(
        Options(
            latency=case.latency, content_bytes=case.content_bytes, failing_every=case.failing_every,
            refused_every=case.refused_every, queued_first=case.queued_first,
        )
    )  # fmt: skip
    with tempfile.TemporaryDirectory(dir=folder, prefix="benchmark-") as own:
        order = {
            "base_url": server.base_url, "folder": own, "videos": case.videos, "concurrency": case.concurrency,
            "poll": case.poll, "batches": case.batches, "look_first": case.queued_first,
            "amqp_url": amqp_url if peer in WITH_RABBITMQ else None,
        }  # fmt: skip
        performer = Performer(peer, order, root)
        try:
            wall, cpu, peak, told = _measure(performer, case)
        finally:
            performer.close()
        counts = server.counts()
        _judge(case, peer, counts, Path(own))
    paid_again = sum(count - 1 for count in counts["posts"].values())
    return Result(wall, cpu, peak, counts["requests"], counts["max_in_flight"], paid_again, told)


def _measure(performer: Performer, case: Case) -> tuple[float, float, float, dict[str, Any]]:
    performer.hear(_START)
    before = cpu_seconds(performer.processes())
    began = time.perf_counter()
    performer.say("go")
    told = performer.hear(case.deadline)
    wall = time.perf_counter() - began
    processes = performer.processes()
    cpu, peak = cpu_seconds(processes) - before, peak_megabytes(processes)
    performer.say("end")
    return wall, cpu, peak, json.loads(told) | json.loads(performer.hear(_END))


def _judge(case: Case, peer: str, counts: dict[str, Any], folder: Path) -> None:
    """Every video that did not fail is there once, whole, and is the right one."""
    failed = Counter(counts["failed"])
    wanted = [prompt for prompt, count in counts["posts"].items() if count > failed[prompt]]
    if len(counts["posts"]) != case.videos:
        raise PeerError(f"{peer} asked for {len(counts['posts'])} videos of {case.videos}")
    found = Counter(map(_whose, folder.rglob("*.mp4"), [case.content_bytes] * case.videos))
    if found != Counter(wanted):
        wrong = (Counter(wanted) - found) + (found - Counter(wanted))
        raise PeerError(f"{peer}: {sum(wrong.values())} of {len(wanted)} files are not as they should be: {wrong}")


def _whose(path: Path, size: int) -> str:
    file = path.read_bytes()
    prompt = prompt_of(file)
    return prompt if file == content(prompt, size) else f"broken: {path.name}"
