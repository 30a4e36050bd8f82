"""Starts SGLang's server for diffusion models (`inside/sglang_server.py`)."""

from pathlib import Path

from tests.servers.port import Port
from tests.servers.real.environments import SGLANG
from tests.servers.real.program import Program
from tests.servers.real.server import StubbedServer

_SCRIPT = Path(__file__).parent / "inside/sglang_server.py"


class Sglang(StubbedServer):
    title = "SGLang"
    environment, profile = SGLANG, "sglang"

    def __init__(self) -> None:
        super().__init__()
        self._broker = Port()
        command = [SGLANG.python, _SCRIPT, "{port}", self.folder, "--broker-port", self._broker.number]
        self.program = Program(command, self.folder / "log", "/liveness")
        self.user = {"OPENAI_BASE_URL": self.base_url, "SORA_SIZE": "832x480"}

    def close(self) -> None:
        super().close()
        self._broker.release()

    def with_pictures(self) -> None:
        self.restart("--pictures")
