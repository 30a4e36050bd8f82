"""Starts vLLM-Omni's server (`inside/vllm_omni_server.py`)."""

from pathlib import Path

from tests.servers.real.environments import VLLM_OMNI
from tests.servers.real.program import Program
from tests.servers.real.server import StubbedServer

_SCRIPT = Path(__file__).parent / "inside/vllm_omni_server.py"
_KEY = "sk-vllm"


class VllmOmni(StubbedServer):
    title = "vLLM-Omni"
    environment = VLLM_OMNI
    model, profile = "wan-video", "vllm-omni"

    def __init__(self) -> None:
        super().__init__()
        flags = ["--api-key", _KEY, "--model", self.model]
        self.program = Program(
            [VLLM_OMNI.python, _SCRIPT, "{port}", self.folder, *flags], self.folder / "log", "/health"
        )
        self.user = {"OPENAI_BASE_URL": self.base_url, "OPENAI_API_KEY": _KEY, "SORA_SIZE": "832x480"}
