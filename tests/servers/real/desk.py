"""A user's desk: a folder and an environment of its own, and `sora-batch` run in it as a user runs it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.integration.support import ROOT, until

_PATIENCE = 300.0
"""Seconds that a command may take."""


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    output: str
    errors: str
    seconds: float

    def json(self) -> Any:
        return json.loads(self.output)


class Desk:
    """One trial's. The database is in the folder: trials may share it."""

    def __init__(self, name: str, folder: Path, user: dict[str, str]) -> None:
        """Sit down in `folder`, with the settings of `user`; `name` is the trial's, and its batch's id."""
        self.name, self.folder = name, folder
        self.again: Counter[str] = Counter()
        """How much more often than once a prompt may be made, since it is asked for so often."""
        home = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        quick = {"SORA_POLL_INTERVAL": "300", "BATCH_MAX_SIZE": "100", "NO_PROXY": "127.0.0.1", "COLUMNS": "200"}
        self.environment = home | quick | {"PYTHONPATH": str(ROOT)} | user

    def __call__(self, *words: str, **settings: str) -> Done:
        """Run a command to its end."""
        began = time.monotonic()
        return self.end(self.begin(*words, **settings), began)

    def begin(self, *words: str, **settings: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "actors.cli", *words], cwd=self.folder, env=self.environment | settings, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def end(self, process: subprocess.Popen[str], began: float | None = None) -> Done:
        try:
            output, errors = process.communicate(timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            output, errors = process.communicate()
            errors += f"\nit was killed after {_PATIENCE:g} s"
        return Done(process.returncode, output, errors, time.monotonic() - (began or time.monotonic()))

    def video(self, text: str, **more: Any) -> dict[str, Any]:
        """A video of a batch, with a prompt that is this trial's."""
        return {"prompt": f"{self.name}: {text}", **more}

    def run(self, *videos: dict[str, Any], flags: tuple[str, ...] = (), **settings: str) -> dict[str, Any]:
        """Make a batch of these videos; return it as `--json` tells it."""
        return self.told(self(*self.words(*videos), *flags, **settings))

    def words(self, *videos: dict[str, Any]) -> tuple[str, ...]:
        """The command that makes these videos."""
        file = self.folder / f"{self.name}.json"
        file.write_text(json.dumps({"id": self.name, "videos": videos}))
        return ("run", str(file), "--json", "--concurrency", str(min(len(videos), 20)))

    def told(self, done: Done) -> dict[str, Any]:
        """The batch that a command printed.

        Raises:
            AssertionError: it printed none.
        """
        assert done.output.startswith("{"), f"exit code {done.code}: {done.errors.strip()[-400:]}"
        return dict(done.json())

    def jobs(self) -> list[dict[str, Any]]:
        done = self("status", self.name, "--json")
        return list(done.json()["jobs"]) if done.code == 0 else []

    def wait_until_made(self, count: int) -> None:
        """Wait until the server has so many of the batch's videos, and we know their ids."""
        until(lambda: sum(bool(job["remote_id"]) for job in self.jobs()) >= count, _PATIENCE)

    def kill(self, process: subprocess.Popen[str]) -> None:
        process.send_signal(signal.SIGKILL)
        process.communicate()
