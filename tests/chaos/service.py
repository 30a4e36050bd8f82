"""`sora-batch` as a process that is killed, suspended and started again, on a machine of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tests.integration.support import ROOT

_MACHINE = Path(__file__).with_name("machine.py")
_SERVING = "serving:"
_WHEN_WE_ARE_GONE = 'read -r _; kill -s KILL "$1"'
"""What a shell does when its input ends: when the run dies, however it does. A suspended process ends of it too."""


class Service:
    """One service: at most one process at a time."""

    def __init__(self, name: str, settings: Mapping[str, object], folder: Path, *command: str) -> None:
        self.name, self.command = name, command or ("serve",)
        self._environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
        self._environment |= {key.upper(): str(value) for key, value in settings.items()}
        self._folder = folder
        self.log = folder / f"{name}.log"
        self.log.touch()
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._said_before = 0

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def serves(self) -> bool:
        """Whether it has said so since its start."""
        with self.log.open(errors="replace") as log:
            log.seek(self._said_before)
            return _SERVING in log.read()

    def start(self, host: str, ahead: float = 0.0) -> None:
        """Start it; whether it comes up, it says later."""
        with self.log.open("ab") as log:
            self._said_before = log.tell()
            self._process = subprocess.Popen(
                [sys.executable, _MACHINE, host, str(ahead), *self.command],
                env=self._environment, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,  # Ctrl-C is for the run
            )  # fmt: skip
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", _WHEN_WE_ARE_GONE, "sh", str(self._process.pid)],
            stdin=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    def send(self, number: int) -> None:
        """Send a signal, if it runs."""
        if self.runs:
            assert self._process is not None
            self._process.send_signal(number)

    def end(self, number: int, seconds: float) -> int | None:
        """End it with a signal; return its exit code. None: it did not end in so many seconds, and was killed."""
        self.send(number)
        return self.wait(seconds)

    def wait(self, seconds: float) -> int | None:
        """Wait for its end, as `end` does; a second signal would have it leave at once."""
        if self._process is None:
            return None
        try:
            code: int | None = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
        self.close()
        return code

    def gone(self) -> int | None:
        """Its exit code, if it has ended by itself; told once."""
        if self._process is None or self.runs:
            return None
        code = self._process.returncode
        self.close()
        return code

    def last_words(self) -> str:
        with self.log.open(errors="replace") as log:
            log.seek(self._said_before)
            lines = [line.strip() for line in log if line.strip()]
        return lines[-1] if lines else ""

    def close(self) -> None:
        """End the process, whatever it does, and its guard."""
        if self._guard is not None:
            self._guard.kill()  # before the process's id may be another's
            with suppress(BrokenPipeError):
                self._guard.communicate()
            self._guard = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
