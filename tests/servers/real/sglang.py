"""Starts SGLang's server for diffusion models (`inside/sglang_server.py`)."""

from pathlib import Path

from tests.servers.real.environments import SGLANG
from tests.servers.real.program import Program
from tests.servers.real.server import StubbedServer

_SCRIPT = Path(__file__).parent / "inside/sglang_server.py"


class Sglang(StubbedServer):
    title = "SGLang"
    environment, profile = SGLANG, "sglang"

    def __init__(self) -> None:
        super().__init__()
        self.program = Program([SGLANG.python, _SCRIPT, "{port}", self.folder], self.folder / "log", "/liveness")
        self.user = {"OPENAI_BASE_URL": self.base_url, "SORA_SIZE": "832x480"}

    def with_pictures(self) -> None:
        self.restart("--pictures")
