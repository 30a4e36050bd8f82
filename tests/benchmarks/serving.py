"""The benchmarks' server as they see it: a process that is started, asked and ended."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from tests.benchmarks.studio import Options

_SERVER = Path(__file__).with_name("server.py")
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_PATIENCE = 30.0


class Serving:
    """One server process."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, str(_SERVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self._root = f"http://127.0.0.1:{int(self._process.stdout.readline())}"
        self.base_url = f"{self._root}/v1"
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            self._process.kill()

    @property
    def pid(self) -> int:
        return self._process.pid

    def reset(self, options: Options) -> None:
        """Begin a new run."""
        self._ask("reset", json.dumps(asdict(options)).encode())

    def counts(self) -> dict[str, Any]:
        """What was asked in this run: `Studio.counts`."""
        return self._ask("counts")

    def _ask(self, what: str, body: bytes | None = None) -> dict[str, Any]:
        with _OPENER.open(f"{self._root}/_/{what}", body, timeout=_PATIENCE) as response:
            return dict(json.load(response))
