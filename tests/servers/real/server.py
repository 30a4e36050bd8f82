"""What the trials know of a server: where it is, what a user sets for it, and how often it really made a video."""

import contextlib
import json
import shutil
import tempfile
from abc import abstractmethod
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

from tests.servers import lifecycle
from tests.servers.real.environments import Environment
from tests.servers.real.program import Program


class Server(lifecycle.Server):
    """A real server's own HTTP routes on loopback. A kill keeps what `made` counts."""

    title: ClassVar[str]
    environment: ClassVar[Environment]
    model: ClassVar[str] = ""
    """The name that it serves its model under."""
    program: Program
    user: dict[str, str]
    """The settings that a user needs to use it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="sora-batch-real-"))
        self._flags: tuple[str, ...] = ()

    def start(self) -> None:
        self.program.start()

    def close(self) -> None:
        self.program.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def base_url(self) -> str:
        return f"{self.program.url}/v1"

    @property
    def version(self) -> str:
        return self.environment.version or "not installed"

    def restart(self, *flags: str) -> None:
        """Kill it, and start it again, with further flags."""
        self._flags = flags
        self.program.kill()
        self.program.start(*flags)

    def mend(self) -> None:
        """Be again as at the start, whatever a trial did; its videos may be forgotten."""
        if self._flags or not self.program.runs:
            self.restart()

    def made(self) -> Counter[str]:
        """How often a video was begun, and so paid for, for each prompt."""
        return Counter(asked["prompt"] for asked in self.asked())

    @abstractmethod
    def asked(self) -> list[dict[str, Any]]:
        """The fields that each video was begun with, as they arrived behind the routes."""


class SteeredServer(Server):
    """One whose videos end when a trial wants them to."""

    @abstractmethod
    def hold(self) -> None:
        """Let no video end until `release`."""

    @abstractmethod
    def release(self) -> None: ...

    @abstractmethod
    def film(self, size: int) -> None:
        """Have the films be so large from now on, in bytes."""

    def with_pictures(self) -> None:
        """Be one that makes videos of pictures, where it isn't."""

    def mend(self) -> None:
        self.release()
        super().mend()


class StubbedServer(SteeredServer):
    """One whose model is `inside/studio.py`."""

    profile: ClassVar[str]
    """Of the simulator, that stands for it."""

    def asked(self) -> list[dict[str, Any]]:
        file = self.folder / "asked.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def hold(self) -> None:
        (self.folder / "hold").touch()

    def release(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            (self.folder / "hold").unlink()

    def film(self, size: int) -> None:
        (self.folder / "bytes").write_text(str(size))
