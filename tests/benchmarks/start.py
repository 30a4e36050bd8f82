"""How long the start takes: `python -m tests.benchmarks.start`.

The program's help, the import of the library, and the first POST of `run` beside that of a bare aiohttp script: from
the start of each process to the POST's arrival at a server, in turn. As it is installed with no extras: peewee
imports psycopg where it finds it.
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROUNDS = 11
_FLOOR = """
import asyncio, sys, aiohttp

async def main():
    async with aiohttp.ClientSession() as session:
        form = aiohttp.FormData({"prompt": "A sunset over the ocean"}, default_to_multipart=True)
        async with session.post(sys.argv[1] + "/videos", data=form) as response:
            await response.read()

asyncio.run(main())
"""


class Gate:
    """A server that notes when a POST comes, and refuses it."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/v1"
        self._came, self._at = threading.Event(), 0.0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            with connection:
                while data := connection.recv(65_536):
                    if data.startswith(b"POST") and not self._came.is_set():
                        self._at = time.monotonic()
                        self._came.set()
                    if data.endswith(b"--\r\n"):
                        connection.sendall(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                        break

    def milliseconds_until_post(self, command: list[str], environment: dict[str, str]) -> float:
        self._came.clear()
        began = time.monotonic()
        with _running(command, environment):
            assert self._came.wait(30), "no POST came"
        return 1000 * (self._at - began)


@contextmanager
def _running(command: list[str], environment: dict[str, str]) -> Iterator[None]:
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ):
        yield


def ended_in(command: list[str], environment: dict[str, str]) -> float:
    """Milliseconds until a program has ended."""
    began = time.monotonic()
    with _running(command, environment):
        pass
    return 1000 * (time.monotonic() - began)


def main() -> int:
    gate = Gate()
    python = [sys.executable]
    program = [*python, "-m", "actors.cli"]
    took: dict[str, list[float]] = {"help": [], "nothing": [], "import": [], "floor": [], "run": [], "again": []}
    with tempfile.TemporaryDirectory() as folder:
        without = Path(folder) / "without"
        without.mkdir()
        (without / "psycopg.py").write_text("raise ImportError\n")
        environment = {
            "PATH": os.environ["PATH"], "PYTHONPATH": f"{without}:{ROOT}", "OPENAI_BASE_URL": gate.url,
            "VIDEO_DIR": f"{folder}/videos",
        }  # fmt: skip
        for number in range(ROUNDS):
            new = {**environment, "DATABASE_URL": f"sqlite:///{folder}/{number}.db"}
            took["help"].append(ended_in([*program, "--help"], environment))
            took["nothing"].append(ended_in([*python, "-c", "pass"], environment))
            took["import"].append(ended_in([*python, "-c", "import actors"], environment))
            took["floor"].append(gate.milliseconds_until_post([*python, "-c", _FLOOR, gate.url], environment))
            for which in ("run", "again"):  # with a new database, and with one that is there
                run = [*program, "run", "-p", "A sunset over the ocean"]
                took[which].append(gate.milliseconds_until_post(run, new))
    middle = {name: statistics.median(times) for name, times in took.items()}
    least = {name: min(times) for name, times in took.items()}
    imported = middle["import"] - middle["nothing"]
    print(f"sora-batch --help     {middle['help']:6.0f} ms (least {least['help']:.0f})   goal 250")
    print(f"import actors         {imported:6.0f} ms beyond Python's own start   goal 100")
    print(f"first POST, the floor {middle['floor']:6.0f} ms (least {least['floor']:.0f})")
    for which, what in (("run", "a new database"), ("again", "one that is there")):
        more = middle[which] - middle["floor"]
        told = f"{middle[which]:6.0f} ms (least {least[which]:.0f}), {more:.0f} after the floor's"
        print(f"first POST of run     {told}   goal 300, {what}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
