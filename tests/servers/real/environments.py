"""The servers' own packages: a virtual environment each, in a folder outside the project.

`REAL_SERVERS` names the folder. No file of a server is copied into the project: all is imported from its packages.
"""

import importlib.metadata
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(os.environ.get("REAL_SERVERS", Path.home() / ".cache/sora-batch/servers"))


@dataclass(frozen=True)
class Environment:
    """What `pip` is told, line by line, so that a server's HTTP routes can be imported on a machine without a GPU."""

    name: str
    package: str
    steps: tuple[str, ...]

    @property
    def python(self) -> Path:
        return FOLDER / self.name / "bin/python"

    @property
    def version(self) -> str | None:
        """Of the server's package; None where it is not installed."""
        places = [str(place) for place in (FOLDER / self.name).glob("lib/python*/site-packages")]
        found = importlib.metadata.distributions(name=self.package, path=places)
        return next((each.version for each in found), None)

    @property
    def remedy(self) -> str:
        return f"run python -m tests.servers.real --install {self.name}, or set REAL_SERVERS to the folder that has it"

    def install(self) -> None:
        """Make the environment anew.

        Raises:
            subprocess.CalledProcessError: pip could not.
        """
        subprocess.run([sys.executable, "-m", "venv", "--clear", FOLDER / self.name], check=True)
        for step in self.steps:
            subprocess.run([self.python, "-m", "pip", "install", "--quiet", *step.split()], check=True)


LITELLM = Environment("litellm", "litellm", ("litellm[proxy]",))

# Without their dependencies, most of which are kernels for a GPU; then what the HTTP routes import.
VLLM_OMNI = Environment(
    "vllm_omni",
    "vllm-omni",
    (
        "torch==2.13.0",
        "--no-deps vllm==0.30.0 vllm-omni==0.30.0",
        (
            "fastapi[standard]>=0.133,<0.137 starlette>=1.0.1 aiohttp openai pydantic pydantic-settings uvloop pillow av "
            "transformers>=5.13,<5.15 regex cachetools psutil numpy requests tqdm blake3 py-cpuinfo msgspec pyzmq janus "
            "msgpack omegaconf einops prometheus_client prometheus-fastapi-instrumentator python-json-logger cloudpickle "
            "pybase64 cbor2 ijson setproctitle partial-json-parser jsonschema lark==1.2.2 mcp>=2,<3 openai-harmony "
            "anthropic model-hosting-container-standards<1 opentelemetry-api opentelemetry-sdk "
            "opentelemetry-exporter-otlp opentelemetry-semantic-conventions-ai aenum==3.1.16 diffusers==0.40.0 scipy "
            "soundfile prettytable imageio accelerate==1.12.0 xgrammar llguidance tiktoken loguru mistral_common"
        ),
    ),
)
SGLANG = Environment(
    "sglang",
    "sglang",
    (
        "torch==2.13.0",
        "--no-deps sglang==0.5.23",
        (
            "fastapi uvicorn uvloop pydantic orjson httpx psutil pyzmq numpy pillow av requests tqdm transformers "
            "diffusers==0.37.0 msgspec msgpack cloudpickle python-multipart addict imageio imageio-ffmpeg PyYAML "
            "websockets prometheus_client setproctitle einops aiohttp openai partial_json_parser pybase64 ipython "
            "packaging dill sentencepiece gguf python-dateutil xgrammar"
        ),
    ),
)
