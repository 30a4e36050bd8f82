"""SGLang's own HTTP server for diffusion models, on a CPU: only the scheduler, the process with the GPU, is a stub.

Its own are `create_app` with all its routers and middlewares (the gate while it warms up, the 503 of a dead
scheduler), the create by form and by JSON, the sampling parameters of Wan 2.1, job store, progress, job task and the
content route. Runs in SGLang's environment.
"""

# ruff: noqa: E402  (the stand-ins come before what imports them)

import argparse
import asyncio
import time
from pathlib import Path
from types import SimpleNamespace

import stand_ins
from studio import Studio

options = argparse.ArgumentParser()
options.add_argument("port", type=int)
options.add_argument("folder", type=Path)
options.add_argument("--broker-port", type=int, required=True)
options.add_argument("--pictures", action="store_true", help="a model that makes videos of pictures")
options.add_argument("--warmup", type=float, default=0.0, help="seconds for which requests hang after the start")
options.add_argument("--dead", action="store_true", help="the scheduler has died")
given = options.parse_args()

stand_ins.allow(
    "torchaudio", "torchvision", "torchcodec", "flashinfer", "sgl_kernel", "cache_dit", "kernels", "triton",
    "torch_memory_saver", "flash_attn", "runai", "modelopt", "compressed_tensors", "tvm_ffi",
)  # fmt: skip
import uvicorn
from sglang.multimodal_gen.configs.pipeline_configs.wan import WanI2V480PConfig, WanT2V480PConfig
from sglang.multimodal_gen.runtime.entrypoints import http_server
from sglang.multimodal_gen.runtime.entrypoints.openai.video_progress import VIDEO_PROGRESS, apply_progress
from sglang.multimodal_gen.runtime.pipelines_core.schedule_batch import OutputBatch
from sglang.multimodal_gen.runtime.scheduler_client import async_scheduler_client
from sglang.multimodal_gen.runtime.server_args import set_global_server_args
from sglang.multimodal_gen.runtime.utils.perf_logger import RequestMetrics

STEPS = 100
ASKED = ("seed", "negative_prompt", "width", "height", "num_frames", "fps", "num_inference_steps", "guidance_scale")


class Arguments(SimpleNamespace):
    """The server's arguments: None where nothing is said."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)


async def forward(batches):
    """In place of the scheduler."""
    (batch,) = batches

    async def progress(share):
        told = VIDEO_PROGRESS.update(request_id=batch.request_id, completed=int(share * STEPS), total=STEPS)
        if told is not None:
            await apply_progress(*told)

    pictures = {"image": Path(batch.image_path).name} if batch.image_path else {}
    asked, metrics, began = (
        {name: getattr(batch, name) for name in ASKED},
        RequestMetrics(batch.request_id),
        time.time(),
    )
    try:
        film = await studio.make(batch.prompt, progress, **asked, **pictures)
    except RuntimeError as error:
        return OutputBatch(error=str(error))
    path = batch.output_file_path()
    await asyncio.to_thread(Path(path).write_bytes, film)
    metrics.total_duration_ms = 1000 * (time.time() - began)
    return OutputBatch(output_file_paths=[path], metrics=metrics)


class Server(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        if given.warmup:
            app.state.server_warmup_done.clear()
            asyncio.get_running_loop().call_later(given.warmup, app.state.server_warmup_done.set)
        if given.dead:
            async_scheduler_client.mark_failed("Scheduler worker exited; restart the server.")


studio = Studio(given.folder)
async_scheduler_client.forward = forward
async_scheduler_client.initialize = lambda _: None  # nobody is there to connect to
model = "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers" if given.pictures else "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"
films = given.folder / "films"
films.mkdir(exist_ok=True)
args = Arguments(
    model_path=model, served_model_name=model, output_path=str(films), input_save_path=str(films),
    pipeline_class_name="WanImageToVideoPipeline" if given.pictures else "WanPipeline",
    pipeline_config=WanI2V480PConfig() if given.pictures else WanT2V480PConfig(),
    host="127.0.0.1", port=given.port, broker_port=given.broker_port, enable_metrics=False, enable_trace=False,
    batching_max_size=1, num_gpus=1, tp_size=1, dp_size=1, attention_backend_config={}, comfyui_mode=False,
)  # fmt: skip
set_global_server_args(args)
app = http_server.create_app(args)
Server(uvicorn.Config(app, host="127.0.0.1", port=given.port, log_level="info")).run()
