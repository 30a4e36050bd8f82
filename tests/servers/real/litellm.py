"""Starts LiteLLM's proxy, nothing of it a stub and with its default settings, in front of a server of ours."""

import json
import secrets
import sys
from typing import Any

from tests.integration.support import ROOT
from tests.provider.client import Provider
from tests.servers.real.environments import LITELLM
from tests.servers.real.program import Program, fetched
from tests.servers.real.server import Server, SteeredServer

MODEL = "films"
KEY = "sk-backend"
"""Of the server behind it."""
_RUN = "import sys; from litellm import run_server; sys.exit(run_server())"


class _Proxy(Server):
    title = "LiteLLM's proxy"
    environment = LITELLM

    def __init__(
        self, behind: str, model: str, key: str = KEY, info: dict[str, Any] | None = None, **environment: str
    ) -> None:
        super().__init__()
        inner = {"model": model, "api_base": behind, "api_key": key}
        config = self.folder / "config.yaml"
        listed = {"model_name": MODEL, "litellm_params": inner} | ({"model_info": info} if info else {})
        config.write_text(json.dumps({"model_list": [listed]}))
        master = f"sk-{secrets.token_hex(16)}"  # it refuses to start with a well-known one
        self.program = Program(
            [LITELLM.python, "-c", _RUN, "--config", config, "--host", "127.0.0.1", "--port", "{port}"],
            self.folder / "log", "/health/liveliness", LITELLM_MASTER_KEY=master, **environment,
        )  # fmt: skip
        self.user = {"OPENAI_BASE_URL": self.base_url, "OPENAI_API_KEY": master, "SORA_MODEL": MODEL}


class LiteLLM(_Proxy, SteeredServer):
    """In front of the tests' own provider, which fails as it is told to, and counts."""

    def __init__(self) -> None:
        self.provider = Provider(latency=1.0, api_key=KEY)
        super().__init__(self.provider.base_url, "openai/films")

    def start(self) -> None:
        self.provider.__enter__()
        super().start()

    def close(self) -> None:
        super().close()
        self.provider.close()

    def asked(self) -> list[dict[str, Any]]:
        taken = [post for post in self.provider.ledger()["posts"] if post["accepted"]]
        return [post["fields"] | {"prompt": post["prompt"]} for post in taken]

    def hold(self) -> None:
        self.provider.hold()

    def release(self) -> None:
        self.provider.release("videos")

    def film(self, size: int) -> None:
        self.provider.options(content_bytes=size)

    def mend(self) -> None:
        self.provider.clear_faults()
        self.provider.release("requests")
        super().mend()


class LiteLLMBefore(_Proxy):
    """In front of another server, as `provider` (in LiteLLM's sense), told of its address for the listing too.

    `info`: the `model_info` of its configuration, such as prices.
    """

    def __init__(self, backend: Server, provider: str, info: dict[str, Any] | None = None) -> None:
        self.backend = backend
        key = backend.user["OPENAI_API_KEY"]
        place = {"HOSTED_VLLM_API_BASE": backend.base_url, "HOSTED_VLLM_API_KEY": key}
        super().__init__(backend.base_url, f"{provider}/{backend.model}", key, info, **place)

    def start(self) -> None:
        self.backend.__enter__()
        super().start()

    def close(self) -> None:
        super().close()
        self.backend.close()

    def asked(self) -> list[dict[str, Any]]:
        return self.backend.asked()


class Simulator(Server):
    """`sora-batch simulator`."""

    title = "the simulator"
    model = "sora-2"
    environment = LITELLM  # it needs none: it is only started behind the proxy

    def __init__(self, profile: str = "openai", key: str | None = KEY) -> None:
        super().__init__()
        flags = ["--latency", "0.5-2", "--content-bytes", "20000", "--profile", profile]
        flags += ["--api-key", key] if key else []
        command = [sys.executable, "-m", "actors.cli", "simulator", "--port", "{port}", *flags]
        self.program = Program(command, self.folder / "log", "/v1/models", PYTHONPATH=str(ROOT))
        self.user = {"OPENAI_BASE_URL": self.base_url} | ({"OPENAI_API_KEY": key} if key else {})

    def asked(self) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = []
        while True:
            after = f"&after={listed[-1]['id']}" if listed else ""
            page = fetched(f"{self.base_url}/videos?limit=100{after}", KEY)
            listed += page["data"]
            if not page["has_more"]:
                return listed
