"""vLLM-Omni's own HTTP server for videos, on a CPU: only the engine is a stub.

Its own are vLLM's `build_app` (routers, --api-key, error bodies) and vLLM-Omni's router, error handlers, form parser,
request model, job store, file store and `OmniOpenAIServingVideo`. A stub are the making of the film, and the engine's
`abort`. Runs in vLLM-Omni's environment.
"""

# ruff: noqa: E402  (the stand-ins come before what imports them)

import argparse
import asyncio
from pathlib import Path
from types import SimpleNamespace

import stand_ins
from studio import Studio

options = argparse.ArgumentParser()
options.add_argument("port", type=int)
options.add_argument("folder", type=Path)
options.add_argument("--api-key", required=True)
options.add_argument("--model", required=True)
options.add_argument("--stuck", action="store_true", help="an abort does not end a video")
options.add_argument("--workers", type=int, default=1, help="what --api-server-count would be")
given = options.parse_args()

stand_ins.allow(
    "vllm._", "torchaudio", "torchvision", "torchcodec", "flashinfer", "kernels", "tvm", "onnxruntime", "torchsde",
    "gguf", "cosmos_guardrail", "soxr", "mooncake", "ray", "librosa",
)  # fmt: skip
import uvicorn
from vllm.entrypoints.launchers.cli_args import FrontendArgs
from vllm.entrypoints.openai.api_server import build_app
from vllm.utils.argparse_utils import FlexibleArgumentParser
from vllm.v1.engine.exceptions import EngineGenerateError
from vllm_omni.entrypoints.openai import api_server
from vllm_omni.entrypoints.openai.serving_video import OmniOpenAIServingVideo


class Engine:
    """In place of AsyncOmni."""

    stage_configs = ()
    od_config = None
    errored, dead_error = False, None

    async def check_health(self):
        pass

    async def abort(self, *_, **__):
        """Leave it to the cancellation of the task that waits for the film."""


class Serving(OmniOpenAIServingVideo):
    """The server's own handler, but for the engine's work."""

    async def generate_video_bytes(self, request, reference_id, *, on_started=None, **references):
        if on_started is not None:
            await on_started()
        asked = request.model_dump(mode="json", exclude_unset=True)
        pictures = {name: type(value).__name__ for name, value in references.items() if value is not None}
        making = asyncio.ensure_future(studio.make(**asked | pictures))
        try:
            film = await self._waited_for(making)
        except RuntimeError as error:
            raise EngineGenerateError(str(error)) from error
        return film, {"diffuse": 1.0}, 0.0, None, {}

    async def _waited_for(self, making):
        while given.stuck and not making.done():
            try:
                await asyncio.shield(making)
            except asyncio.CancelledError:
                continue
        return await making


studio = Studio(given.folder)
# The server's own options: those of the engine ask for a GPU.
args = FrontendArgs.add_cli_args(FlexibleArgumentParser()).parse_args(["--api-key", given.api_key])
app = build_app(args, ())
app.state.api_server_count = given.workers
app.include_router(api_server.router)
api_server._register_omni_exception_handlers(app)
app.state.engine_client = Engine()
app.state.stage_configs = []
app.state.openai_serving_models = SimpleNamespace(base_model_paths=[SimpleNamespace(name=given.model)])
app.state.openai_serving_video = Serving(app.state.engine_client, model_name=given.model)
app.state.enable_server_load_tracking = app.state.log_stats = False
uvicorn.run(app, host="127.0.0.1", port=given.port, log_level="info")
