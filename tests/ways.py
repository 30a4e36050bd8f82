"""How many files a batch's way passes through: `python -m tests.ways [--against COMMIT] [--files]`.

Four ways are walked by real processes against the simulator: `run FILE` to the file on disk; a `create` from RabbitMQ to
its events; a cancellation; a crash and the `resume` behind it. Counted are the files of `actors` and `storage` in which
a function is called between start and end, in all threads.
"""

from __future__ import annotations

import argparse
import atexit
import inspect
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from tests.benchmarks.against import checked_out
from tests.integration.support import until as wait_until
from tests.servers.rabbitmq import RabbitMQ

ROOT = Path(__file__).resolve().parents[1]
_PATIENCE = 60.0


class Way:
    """One way, walked in a folder of its own with the packages of one tree."""

    def __init__(self, root: Path, folder: Path, amqp_url: str) -> None:
        self._root, self._folder = root, folder
        self._amqp_url = amqp_url
        (folder / "batch.json").write_text(json.dumps({"id": "nature", "videos": [{"prompt": "a lake"}]}))

    def files(self, *command: str, until: Callable[[], bool] | None = None, **settings: str) -> list[str]:
        """The files that a command passes; `until`: it is ended once that is so."""
        report = self._folder / "report.json"
        process = self.start(*command, counts=report, **settings)
        if until is not None:
            wait_until(until)
            process.send_signal(signal.SIGTERM)
        process.wait(_PATIENCE)
        found: list[str] = json.loads(report.read_text())
        return found

    def start(self, *command: str, counts: Path | None = None, **settings: str) -> subprocess.Popen[bytes]:
        """Start sora-batch, with its calls counted or not."""
        place = str(counts) if counts is not None else "-"
        return subprocess.Popen(
            [sys.executable, str(Path(__file__)), "--walk", place, "--", *command],
            cwd=self._folder, env={**os.environ, "PYTHONPATH": str(self._root), "WAYS_ROOT": str(self._root), **settings},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def run(self) -> list[str]:
        """`run FILE` to the file on disk."""
        return self.files("run", "batch.json", "--simulate")

    def create(self) -> list[str]:
        """A `create` from RabbitMQ to its events."""
        from actors import BatchClient

        answered = threading.Event()

        def ask() -> None:
            with BatchClient(self._amqp_url, timeout=_PATIENCE) as client:
                client.create({"id": "nature", "videos": [{"prompt": "a lake"}]})
            answered.set()

        threading.Thread(target=ask, daemon=True).start()
        return self.files("serve", "--simulate", until=answered.is_set, AMQP_URL=self._amqp_url)

    def cancel(self) -> list[str]:
        """A cancellation."""
        program = (
            "from actors import BatchService as S; S().create_batch({'id': 'nature', 'videos': [{'prompt': 'a lake'}]})"
        )
        environment = {**os.environ, "PYTHONPATH": str(self._root)}
        subprocess.run([sys.executable, "-c", program], cwd=self._folder, env=environment, check=True)
        return self.files("cancel", "nature")

    def crash(self) -> list[str]:
        """A crash, and the `resume` behind it."""
        first = self.start("run", "batch.json", "--simulate")
        wait_until(lambda: any((self._folder / "videos" / "nature").glob("*")) or first.poll() is not None)
        first.kill()
        first.wait(_PATIENCE)
        return self.files("resume", "nature", "--simulate")


WAYS: dict[str, Callable[[Way], list[str]]] = {
    "`run FILE` to the file on disk": Way.run,
    "`create` from RabbitMQ to its events": Way.create,
    "cancel": Way.cancel,
    "crash and `resume`": Way.crash,
}


def walk(report: str, command: list[str]) -> None:
    """In a process of its own: be sora-batch, and write down at the end which files were passed."""
    root = os.environ["WAYS_ROOT"]
    sys.path[0] = root
    passed: set[str] = set()

    def note(frame: FrameType, event: str, _: Any) -> None:
        # What is no function (a module, a class) runs when it is imported.
        if event == "call" and frame.f_code.co_flags & inspect.CO_OPTIMIZED:
            passed.add(frame.f_code.co_filename)

    def write() -> None:
        sys.setprofile(None)
        inside = [os.path.relpath(name, root) for name in passed if name.startswith(f"{root}/")]
        files = sorted(name for name in inside if name.startswith(("actors/", "storage/")))
        Path(report).write_text(json.dumps(files))

    from actors.cli import main

    if report != "-":
        atexit.register(write)
        threading.setprofile(note)
        sys.setprofile(note)
    sys.argv = ["sora-batch", *command]
    main()


@contextmanager
def _trees(commit: str | None) -> Iterator[dict[str, Path]]:
    if commit is None:
        yield {"this tree": ROOT}
        return
    with checked_out(commit) as other:
        yield {commit: other, "this tree": ROOT}


def _count(commit: str | None, *, files: bool) -> None:
    with RabbitMQ() as node, _trees(commit) as trees:
        for name, way in WAYS.items():
            for tree, root in trees.items():
                with tempfile.TemporaryDirectory() as folder:
                    found = way(Way(root, Path(folder), node.url))
                print(f"{name:<40} {tree:<12} {len(found)} files")
                if files:
                    print("    " + "\n    ".join(found))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.ways", description=__doc__)
    parser.add_argument("--against", metavar="COMMIT", help="that commit's packages, too")
    parser.add_argument("--files", action="store_true", help="name them")
    parser.add_argument("--walk", metavar="REPORT", help=argparse.SUPPRESS)
    parser.add_argument("command", nargs="*", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.walk is not None:
        walk(given.walk, given.command)
    else:
        _count(given.against, files=given.files)
