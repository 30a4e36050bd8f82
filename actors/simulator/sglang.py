"""SGLang 0.5 as a profile: how it checks requests, and how it words the same facts.

It checks with pydantic, so its rules stand here as the models that it has, and what is wrong is said in the same words.
Fields that it does not know are dropped, as there. Held against the real routes of 0.5.23 as they ran, but for one
thing: the simulator takes a picture as well as none, where a real model does one of the two.
"""

from __future__ import annotations

import json
import uuid
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, Field, InstanceOf, ValidationError

from actors.simulator.fields import (
    MULTIPART,
    Create,
    File,
    Page,
    check_drawable,
    last_of_each,
    read_form,
    read_json,
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

DEFAULT_SECONDS, DEFAULT_FPS = 4, 24
DEFAULT_SIDES = (832, 480)
"""Of the model that SGLang's own examples have, Wan 2.1."""
MOST_OUTPUTS = 10
MOST_FRAMES = 10**9
"""More are too many to draw anyway, and may be too many for a float."""
QUALITIES = ("exact", "lossless", "high", "extra-high")


class VideoGenerationsRequest(BaseModel):
    """The fields of SGLang's JSON body."""

    prompt: str
    input_reference: str | None = None
    reference_url: str | None = None
    video_url: str | None = None
    model: str | None = None
    n: int | None = 1
    num_outputs_per_prompt: int | None = None
    seconds: int | None = DEFAULT_SECONDS
    size: str | None = ""
    fps: int | None = None
    num_frames: int | None = None
    width: int | None = None
    height: int | None = None
    seed: int | list[int] | None = None
    negative_prompt: str | None = None
    quality: str | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    guidance_scale_2: float | None = None
    true_cfg_scale: float | None = None
    max_sequence_length: int | None = None
    flow_shift: float | None = None
    enhance_prompt: bool = False
    enable_teacache: bool | None = False
    enable_frame_interpolation: bool | None = False
    frame_interpolation_exp: int | None = 1
    frame_interpolation_scale: float | None = 1.0
    enable_upscaling: bool | None = False
    upscaling_scale: int | None = 4


class SglangForm(VideoGenerationsRequest):
    """The fields of SGLang's form."""

    prompt: str = ""
    input_reference: InstanceOf[File] | None = None  # type: ignore[assignment]  # a file, where JSON has a text
    seed: int | None = None


class PageQuery(BaseModel):
    """The query of a listing."""

    after: str | None = None
    limit: Annotated[int, Field(ge=1, le=100)] = 20
    order: Literal["asc", "desc"] = "desc"


class Sglang(OneModelProfile):
    """SGLang: bare ids, no prompt told, and a DELETE that only forgets."""

    delete_running = "forget"

    async def read_create(self, request: web.Request) -> Create:
        """Read and check a create; a body that is no JSON object counts as an empty one."""
        if request.content_type == MULTIPART:
            fields = _with_extras(last_of_each(await read_form(request)), "{name} is not valid JSON")
            asked: VideoGenerationsRequest = validated(SglangForm, fields, "body", _misfit)
            if not asked.prompt:
                raise Refusal(400, "prompt is required")
            asked.seconds = asked.seconds or DEFAULT_SECONDS
        else:
            wrong = "Invalid request body: {error}"
            try:
                fields = await read_json(request)
            except Refusal:
                fields = {}
            asked = validated(VideoGenerationsRequest, _with_extras(fields, wrong), "body", _misfit_body)
        return self._resolved(asked)

    def _resolved(self, asked: VideoGenerationsRequest) -> Create:
        """Return what SGLang makes of a request, and tells instead of what was asked."""
        width, height = _sides(asked.size) if asked.size else DEFAULT_SIDES
        width = width if asked.width is None else asked.width
        height = height if asked.height is None else asked.height
        fps = DEFAULT_FPS if asked.fps is None else asked.fps
        seconds = DEFAULT_SECONDS if asked.seconds is None else asked.seconds
        frames = fps * seconds if asked.num_frames is None else asked.num_frames
        steps = 1 if asked.num_inference_steps is None else asked.num_inference_steps
        positive = {"width": width, "height": height, "num_frames": frames, "num_inference_steps": steps}
        for name, number in positive.items():
            if number <= 0:
                raise Refusal(400, f"{name} must be positive")
        if asked.quality not in (None, *QUALITIES):
            raise Refusal(400, f"quality must be one of {list(QUALITIES)}, got {asked.quality!r}")
        made, size = max(1, round(min(frames, MOST_FRAMES) / (fps or DEFAULT_FPS))), f"{width}x{height}"
        check_drawable(made, size)
        outputs = asked.n or 1 if asked.num_outputs_per_prompt is None else asked.num_outputs_per_prompt
        told = {"num_outputs": max(1, min(outputs, MOST_OUTPUTS))}
        model = asked.model or self.models[0]
        return Create(prompt=asked.prompt, model=model, seconds=made, size=size, told=told)

    def read_page(self, query: Mapping[str, str]) -> Page:
        """Check the query of a listing."""
        page = validated(PageQuery, query, "query", _misfit)
        return Page(after=page.after, limit=page.limit, newest_first=page.order == "desc")

    def new_id(self) -> str:
        """Return an id in its own form."""
        return str(uuid.uuid4())

    def video(self, job: Job, state: State) -> Body:
        """Return the video object: without the prompt, with the path that its file has on the server."""
        done, path = state.status == "completed", f"/outputs/{job.id}.mp4"
        body = super().video(job, state)
        del body["prompt"]
        changes = {
            "expires_at": None,
            "quality": "standard",
            "url": None,
            "urls": [None] if done else None,
            "file_path": None if state.status == "failed" else path,
            "file_paths": [path] if done else None,
            "num_outputs": job.told.get("num_outputs", 1) if done else None,
            "peak_memory_mb": None,
            "inference_time_s": job.latency if done else None,
            "revised_prompt": None,
            "action": None,
            "lidar": None,
        }
        return body | changes

    def failure(self, job: Job) -> Body | None:
        """Return the `error` of a failed job, which has no code."""
        words = "Model generation failed. Error from scheduler:"
        return {"message": f"{words} {job.failure.message}"} if job.failure else None

    def deleted(self, job: Job, state: State) -> Body:
        """Return the video object, in a status of its own."""
        return self.video(job, state) | {"status": "deleted"}

    def content(self, state: State, query: Mapping[str, str]) -> Variant:
        """Read an output's number: there is only the first."""
        if not state.ended:
            raise not_found("Generation is still in-progress")
        asked = query.get("variant")
        try:
            number = 0 if asked is None else int(asked)
        except ValueError:
            number = -1
        if number != 0 or state.status == "failed":
            raise not_found(f"Video variant {asked} not found")
        return "video"

    def error(self, refusal: Refusal) -> Body:
        """Return the body of an HTTP error."""
        if refusal.status == HTTPStatus.UNAUTHORIZED:
            return {"error": "Unauthorized"}
        return {"detail": refusal.message if refusal.detail is None else refusal.detail}


def _misfit(error: ValidationError, place: str) -> Refusal:
    """Word what does not fit a form or a query, as FastAPI does."""
    entries = [
        {
            "type": entry["type"],
            "loc": [place, *entry["loc"]],
            "msg": entry["msg"],
            "input": entry["input"] if isinstance(entry["input"], str) else None,
            **({"ctx": entry["ctx"]} if "ctx" in entry else {}),
        }
        for entry in error.errors(include_url=False)
    ]
    return Refusal(422, error.title, detail=entries)


def _misfit_body(error: ValidationError, _: str) -> Refusal:
    return Refusal(400, f"Invalid request body: {error}")


def _with_extras(fields: Mapping[str, Any], refused: str) -> dict[str, Any]:
    """Take what OpenAI's SDK sends as `extra_body` for fields that are not there otherwise."""
    merged = dict(fields)
    for name in ("extra_body", "extra_json", "extra_params"):
        extra = merged.pop(name, None)
        try:
            extra = json.loads(extra) if isinstance(extra, str) else extra
        except (ValueError, RecursionError) as error:
            raise Refusal(400, refused.format(name=name, error=error)) from error
        merged = (extra | merged) if isinstance(extra, dict) else merged
    return merged


def _sides(size: str) -> tuple[int, int]:
    width, _, height = size.lower().replace(" ", "").partition("x")
    try:
        sides = int(width), int(height)
    except ValueError:
        sides = 0, 0
    if min(sides) <= 0:
        raise Refusal(400, "size must be formatted as positive WIDTHxHEIGHT")
    return sides
