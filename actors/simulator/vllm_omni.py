"""vLLM-Omni 0.30 as a profile: how it checks requests, and how it words the same facts.

It checks with pydantic, so its rules stand here as the models that it has, and what is wrong is said in the same words.
Fields that it does not know are dropped, as there. Held against the real routes of 0.30.0 as they ran.
"""

from __future__ import annotations

import json
import secrets
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, Field, InstanceOf, ValidationError

from actors.simulator.fields import (
    MULTIPART,
    URLENCODED,
    Create,
    File,
    Page,
    check_drawable,
    last_of_each,
    read_form,
    validated,
)
from actors.simulator.gate import Refusal, not_found
from actors.simulator.profiles import OneModelProfile

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp import web

    from actors.simulator.films import Variant
    from actors.simulator.jobs import Job, State
    from actors.simulator.profiles import Body

Whole = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
Count = Annotated[int, Field(ge=1, le=2**63 - 1)]
Scale = Annotated[float, Field(ge=0, le=20)]
DEFAULT_FPS = 24.0
LONGEST_INPUT = 200
"""Characters of a wrong value that are repeated."""
BOUNDS = "BadRequestError"
"""The type of an error that is found only in the whole request."""
JSON_FIELDS = {
    "image_reference": object,
    "video_reference": object,
    "audio_reference": object,
    "lora": dict,
    "extra_params": dict,
}


class VideoForm(BaseModel):
    """The fields of vLLM-Omni's form, by their types."""

    prompt: str
    input_reference: InstanceOf[File] | None = None
    model: str | None = None
    seconds: Annotated[str, Field(pattern=r"^[1-9]\d*$")] | None = None
    size: Annotated[str, Field(pattern=r"^\d+x\d+$")] | None = None
    width: int | None = None
    height: int | None = None
    num_frames: int | None = None
    fps: Annotated[float, Field(ge=1, allow_inf_nan=False)] | None = None
    short_edge: Annotated[int, Field(ge=1)] | None = None
    num_outputs_per_prompt: Annotated[int, Field(ge=1, le=10)] = 1
    start_time_seconds: Annotated[float, Field(ge=0)] | None = None
    quality: str | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    guidance_scale_2: float | None = None
    boundary_ratio: float | None = None
    flow_shift: float | None = None
    true_cfg_scale: float | None = None
    seed: int | None = None
    generate_sound: bool | None = None
    sound_duration: Annotated[float, Field(gt=0)] | None = None
    enable_frame_interpolation: bool | None = None
    frame_interpolation_exp: Annotated[int, Field(ge=1)] | None = None
    frame_interpolation_scale: Annotated[float, Field(gt=0)] | None = None
    return_stage_metrics: bool | None = None
    image_reference: str | None = None
    video_reference: str | None = None
    audio_reference: str | None = None
    lora: str | None = None
    extra_params: str | None = None


class VideoGenerationRequest(VideoForm):
    """The request that vLLM-Omni makes of its form, with narrower bounds."""

    width: Count | None = None
    height: Count | None = None
    num_frames: Count | None = None
    fps: Annotated[float, Field(ge=1, le=2**63 - 1)] | None = None
    quality: Literal["lossless", "high"] | None = None
    num_inference_steps: Annotated[int, Field(ge=1, le=200)] | None = None
    guidance_scale: Scale | None = None
    guidance_scale_2: Scale | None = None
    boundary_ratio: Annotated[float, Field(ge=0, le=1)] | None = None
    true_cfg_scale: Scale | None = None
    seed: Whole | None = None


class PageQuery(BaseModel):
    """The query of a listing."""

    after: str | None = None
    limit: Annotated[int, Field(ge=0, le=100)] | None = None
    order: Literal["asc", "desc"] = "desc"


class VllmOmni(OneModelProfile):
    """vLLM-Omni: forms only, HTTP errors for failed jobs, and a DELETE that stops the work."""

    delete_running = "abort"

    async def read_create(self, request: web.Request) -> Create:
        """Read and check a create."""
        form = await read_form(request) if request.content_type in (MULTIPART, URLENCODED) else {}
        fields = last_of_each(form)
        given = validated(VideoForm, fields, "body", _misfit)
        for name, kind in JSON_FIELDS.items():
            _check_json(fields.get(name), kind)
        asked = validated(
            VideoGenerationRequest,
            given.model_dump(exclude_none=True, exclude={"input_reference"}),
            "body",
            _out_of_bounds,
        )
        if asked.model not in (None, *self.models):
            served = f"but server is running '{self.models[0]}'."
            raise Refusal(400, f"Model mismatch: request specifies '{asked.model}' {served}")
        seconds = int((asked.seconds or "4")[:9])  # more digits are too long anyway, and too much for a float
        check_drawable(seconds, asked.size, prefix="body.")
        fps = asked.fps or DEFAULT_FPS
        frames = asked.num_frames or (int(seconds * fps) if asked.seconds else None)
        duration = float(seconds) if asked.seconds else frames and frames / fps
        told = {"quality": asked.quality or "default", "fps": fps, "num_frames": frames, "duration_s": duration}
        return Create(prompt=asked.prompt, model=self.models[0], seconds=seconds, size=asked.size, told=told)

    def read_page(self, query: Mapping[str, str]) -> Page:
        """Check the query of a listing."""
        page = validated(PageQuery, query, "query", _misfit)
        return Page(after=page.after, limit=page.limit, newest_first=page.order == "desc")

    def new_id(self) -> str:
        """Return an id in its own form."""
        return f"video_gen_{secrets.token_hex(16)}"

    def video(self, job: Job, state: State) -> Body:
        """Return the video object: progress is 0 until it is 100, and failed jobs say when they ended."""
        done = state.status == "completed"
        changes = {
            "progress": 100 if done else 0,
            "completed_at": state.ended_at,
            "expires_at": None,
            "media_type": "video/mp4",
            "file_name": f"{job.id}.mp4" if done else None,
            "inference_time_s": job.latency if state.ended else None,
            "metrics": None,
            "stage_durations": {"diffuse": job.latency} if done else {},
            "peak_memory_mb": 0.0,
            "action": None,
        }
        return super().video(job, state) | changes

    def failure(self, job: Job) -> Body | None:
        """Return the `error` of a failed job, with a number for a code."""
        return {"code": job.failure.http_status, "message": job.failure.message} if job.failure else None

    def retrieved_status(self, job: Job, state: State) -> int:
        """Return the failure's own status for a failed job."""
        return job.failure.http_status if job.failure and state.status == "failed" else HTTPStatus.OK

    def content(self, state: State, query: Mapping[str, str]) -> Variant:  # noqa: ARG002 - it is not looked at
        """Return the video, whatever is asked for."""
        if state.status == "failed":
            raise Refusal(422, "Video generation failed. Check job status for error details.")
        if state.status != "completed":
            raise not_found("Generation is still in-progress")
        return "video"

    def error(self, refusal: Refusal) -> Body:
        """Return the body of an HTTP error: the status's name for a type, the status for a code."""
        if refusal.status == HTTPStatus.UNAUTHORIZED:
            return {"error": "Unauthorized"}
        if refusal.detail is not None:
            return {"detail": refusal.detail}
        kind = refusal.kind if refusal.kind == BOUNDS else HTTPStatus(refusal.status).phrase
        return {"error": {"message": refusal.message, "type": kind, "param": refusal.param, "code": refusal.status}}


def _misfit(error: ValidationError, place: str) -> Refusal:
    """Word what does not fit a form or a query, as vLLM does."""
    lines = []
    for entry in error.errors(include_url=False):
        said = {
            "type": entry["type"],
            "loc": ".".join(map(str, (place, *entry["loc"]))),
            "msg": entry["msg"],
            "input": "None" if entry["type"] == "missing" else str(entry["input"])[:LONGEST_INPUT],
        }
        lines.append(f"  {said | ({'ctx': entry['ctx']} if 'ctx' in entry else {})}")
    count = f"{len(lines)} validation error{'s' * (len(lines) > 1)}:"
    param = ".".join(map(str, (place, *error.errors()[0]["loc"])))
    return Refusal(400, "\n".join([count, *lines]), param=param)


def _out_of_bounds(error: ValidationError, _: str) -> Refusal:
    return Refusal(400, str(error), kind=BOUNDS)


def _check_json(text: str | None, kind: type) -> None:
    if text is None:
        return
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, "Invalid JSON in form field.") from error
    if not isinstance(document, kind):
        got = type(document).__name__
        raise Refusal(400, f"Invalid JSON in form field: expected {kind.__name__}, got {got}.")
