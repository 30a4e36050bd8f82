"""OpenAI's hosted API as a profile: its ids, its bodies, and how it checks requests.

Every other server is a Profile that overrides what it does otherwise (vllm_omni.py, sglang.py); where nobody wrote down
what OpenAI's did, it is marked as a guess. A profile decides nothing about jobs. This one takes fields that it does not
know and tells them back, unless it is strict: the servers of this protocol have many of their own.
"""

from __future__ import annotations

import re
import secrets
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal

from actors.simulator.fields import (
    LONGEST_SECONDS,
    MULTIPART,
    URLENCODED,
    Create,
    File,
    Page,
    check_drawable,
    read_form,
    read_json,
    read_prompt,
    read_text,
    told_back,
    wrong_type,
)
from actors.simulator.films import SUFFIXES, Variant
from actors.simulator.gate import Refusal, invalid, not_found

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp import web

    from actors.simulator.jobs import Job, State

Body = dict[str, Any]
PROFILES = ("openai", "vllm-omni", "sglang")
"""The names of all."""
KEPT_SECONDS = 3600
"""How long the hosted API kept a completed video. The simulator says so too, and keeps it on."""
KNOWN = ("prompt", "model", "seconds", "size")
LONGEST_LIMIT = 100
HOSTED_SECONDS = (4, 8, 12)
HOSTED_SIZES = ("720x1280", "1280x720", "1024x1792", "1792x1024")
HOSTED_MODELS = ("sora-2", "sora-2-pro", "sora-2-2025-10-06", "sora-2-2025-12-08", "sora-2-pro-2025-10-06")
IMAGES = ("image/jpeg", "image/png", "image/webp")
MEANINGS = {"code", "cost", "created", "data", "detail", "file_path", "file_paths", "message", "polling_url", "request",
            "request_id", "task_id", "unsigned_urls", "url", "urls", "usage"}  # fmt: skip
"""What clients read in an answer beside the keys of OpenAI's: nobody may put an address there by asking for it."""


class Profile:
    """OpenAI's hosted API."""

    remixes = True
    unknown_after_is_refused = True
    """A guess for the hosted API; the others answer an empty page."""
    lists_by_second = False
    """Whether videos of one second are listed oldest first, whichever order is asked for."""
    delete_running: Literal["refuse", "abort", "forget"] = "refuse"
    """A guess for the hosted API: its reference speaks of completed and failed videos only."""

    def __init__(self, *, model: str | None = None, strict: bool = False) -> None:
        """Serve one model, or any; `strict`: take only what the hosted API took."""
        self._model = model
        self._strict = strict

    @property
    def models(self) -> tuple[str, ...]:
        """The models that are listed."""
        return HOSTED_MODELS[:2] if self._model is None else (self._model,)

    async def read_create(self, request: web.Request) -> Create:
        """Read and check a create.

        Raises:
            Refusal: a field is missing or wrong.
        """
        fields = await self.read_fields(request)
        create = Create(
            prompt=read_prompt(fields),
            model=self._checked_model(read_text(fields, "model")),
            seconds=_seconds(fields.get("seconds"), strict=self._strict),
            size=_size(read_text(fields, "size"), strict=self._strict) or HOSTED_SIZES[0],
            told=told_back({name: value for name, value in fields.items() if name not in KNOWN and value is not None}),
        )
        _check_reference(fields.get("input_reference"))
        for name in create.told if self._strict else ():
            if name.partition("[")[0] != "input_reference":
                raise invalid(name, f"Unknown parameter: '{name}'.", "unknown_parameter")
        return create

    async def read_fields(self, request: web.Request) -> Body:
        """Read a body, a form or JSON.

        Raises:
            Refusal: it is neither.
        """
        is_form = request.content_type in (MULTIPART, URLENCODED)
        return await read_form(request) if is_form else await read_json(request)

    def _checked_model(self, name: str | None) -> str:
        models = HOSTED_MODELS if self._strict and self._model is None else self.models
        if name is not None and name not in models and (self._strict or self._model is not None):
            supported = ", ".join(f"'{known}'" for known in models)
            raise invalid("model", f"Invalid value: '{name}'. Supported values are: {supported}.")
        return name or models[0]

    def read_page(self, query: Mapping[str, str]) -> Page:
        """Check the query of a listing.

        Raises:
            Refusal: it makes no sense.
        """
        order = query.get("order", "desc")
        if order not in ("asc", "desc"):
            raise invalid("order", f"Invalid value: '{order}'. Supported values are: 'asc' and 'desc'.")
        limit = query.get("limit", "20")
        if not (re.fullmatch("[0-9]{1,4}", limit) and int(limit) <= LONGEST_LIMIT):
            raise invalid("limit", f"Invalid value: '{limit}'. Expected a number from 0 to {LONGEST_LIMIT}.")
        return Page(after=query.get("after"), limit=int(limit), newest_first=order == "desc")

    def new_id(self) -> str:
        """Return an id that no other job ever has: never seeded, or a restart would give the old ones again."""
        return f"video_{secrets.token_hex(24)}"

    def video(self, job: Job, state: State) -> Body:
        """Return the video object; what was asked under a name that means something else here stands in `request`."""
        completed = state.ended_at if state.status == "completed" else None
        body = {
            "id": job.id,
            "object": "video",
            "created_at": int(job.accepted_at),
            "completed_at": completed,
            "expires_at": completed and completed + KEPT_SECONDS,
            "status": state.status,
            "progress": state.progress,
            "model": job.model,
            "prompt": job.prompt,
            "seconds": str(job.seconds),
            "size": job.size,
            "remixed_from_video_id": job.remixed_from,
            "error": self.failure(job) if state.status == "failed" else None,
            "simulated": True,
        }
        if not job.told:
            return body
        taken = {name: value for name, value in job.told.items() if name in body or name in MEANINGS}
        told = {name: value for name, value in job.told.items() if name not in taken}
        return body | told | ({"request": taken} if taken else {})

    def failure(self, job: Job) -> Body | None:
        """Return the `error` of a failed job."""
        return {"code": job.failure.code, "message": job.failure.message} if job.failure else None

    def retrieved_status(self, job: Job, state: State) -> int:  # noqa: ARG002 - vLLM-Omni's looks at both
        """Return the HTTP status of a GET of a job."""
        return HTTPStatus.OK

    def deleted(self, job: Job, state: State) -> Body:  # noqa: ARG002 - SGLang's looks at both
        """Return the body of a DELETE that was obeyed."""
        return {"id": job.id, "deleted": True, "object": "video.deleted"}

    def content(self, state: State, query: Mapping[str, str]) -> Variant:
        """Read which content of a job is asked for.

        Raises:
            Refusal: it has none, or not this one.
        """
        asked = query.get("variant", "video")
        variant = next((known for known in SUFFIXES if known == asked), None)
        if variant is None:
            message = f"Invalid value: '{asked}'. Supported values are: 'video', 'thumbnail', and 'spritesheet'."
            raise invalid("variant", message)
        if state.status == "failed":
            raise not_found("Video generation failed: there is no content.")
        if state.status != "completed":
            raise not_found(f"Video is not ready yet, use GET /v1/videos/{{video_id}} (status: {state.status}).")
        return variant

    def error(self, refusal: Refusal) -> Body:
        """Return the body of an HTTP error."""
        return {
            "error": {"message": refusal.message, "type": refusal.kind, "param": refusal.param, "code": refusal.code}
        }


class OneModelProfile(Profile):
    """What the servers that one runs oneself have in common: each serves one model, and creates nothing but videos."""

    remixes = False
    unknown_after_is_refused = False
    lists_by_second = True

    @property
    def models(self) -> tuple[str, ...]:
        """The served model."""
        return (self._model or "sora-2",)


def profile_of(name: str, *, model: str | None = None, strict: bool = False) -> Profile:
    """Return the profile with a name of PROFILES."""
    if name == "openai":
        return Profile(model=model, strict=strict)
    # Their rules take a while to import, and few ask for them.
    from actors.simulator.sglang import Sglang
    from actors.simulator.vllm_omni import VllmOmni

    return VllmOmni(model=model) if name == "vllm-omni" else Sglang(model=model)


def _seconds(value: object, *, strict: bool) -> int:
    """Read a whole number; servers take it as text, most as a number too, the hosted API did not."""
    if value is None:
        return 4
    if isinstance(value, bool) or not isinstance(value, str if strict else (str, int)):
        raise wrong_type("seconds", "a string", value)
    text = str(value)
    if not re.fullmatch(r"[1-9][0-9]{0,2}", text):
        raise invalid("seconds", f"Invalid value: '{text}'. Expected whole seconds, 1 to {LONGEST_SECONDS}.")
    check_drawable(int(text), None)
    if strict and int(text) not in HOSTED_SECONDS:
        raise invalid("seconds", f"Invalid value: '{text}'. Supported values are: '4', '8', and '12'.")
    return int(text)


def _size(text: str | None, *, strict: bool) -> str | None:
    check_drawable(1, text)
    if strict and text is not None and text not in HOSTED_SIZES:
        supported = ", ".join(f"'{size}'" for size in HOSTED_SIZES)
        raise invalid("size", f"Invalid value: '{text}'. Supported values are: {supported}.")
    return text


def _check_reference(reference: object) -> None:
    if isinstance(reference, File):
        kind = reference["content_type"]
        if kind not in IMAGES:
            message = f"Invalid file 'input_reference': unsupported mimetype ('{kind}'), not one of {IMAGES}."
            raise invalid("input_reference", message, "unsupported_mimetype")
    elif isinstance(reference, dict):
        if len({"file_id", "image_url"} & reference.keys()) != 1:
            message = "Invalid 'input_reference': expected exactly one of 'file_id' and 'image_url'."
            raise invalid("input_reference", message)
    elif reference is not None:
        raise wrong_type("input_reference", "a file or an object", reference)
