"""How three servers word the same facts: OpenAI's hosted API, vLLM-Omni and SGLang.

Owns ids, bodies and which requests a server knows. Decides nothing about jobs. A profile overrides what its
server does otherwise than OpenAI's API did; where nobody wrote down what that did, it is marked as a guess.
"""

from __future__ import annotations

import secrets
import uuid
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal

from actors.simulator.gate import Refusal, invalid, not_found

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actors.simulator.jobs import Job, State

Body = dict[str, Any]
Variant = Literal["video", "thumbnail", "spritesheet"]
VARIANTS: tuple[Variant, ...] = ("video", "thumbnail", "spritesheet")
KEPT_SECONDS = 3600
"""How long the hosted API kept a completed video. The simulator says so too, and keeps it on."""


class Profile:
    """OpenAI's hosted API."""

    takes_json = True
    default_size: str | None = "720x1280"
    list_limits = range(101)
    remixes = True
    unknown_after_is_refused = True
    """A guess for the hosted API; the others answer an empty page."""
    delete_running: Literal["refuse", "abort", "forget"] = "refuse"
    """A guess for the hosted API: its reference speaks of completed and failed videos only."""

    def new_id(self) -> str:
        """Give an id that no other job ever has: never seeded, or a restart would give the old ones again."""
        return f"video_{secrets.token_hex(24)}"

    def video(self, job: Job, state: State) -> Body:
        """Give the video object."""
        completed = state.ended_at if state.status == "completed" else None
        return {
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

    def failure(self, job: Job) -> Body | None:
        """Give the `error` of a failed job."""
        return {"code": job.failure.code, "message": job.failure.message} if job.failure else None

    def retrieved_status(self, job: Job, state: State) -> int:  # noqa: ARG002 - vLLM-Omni's looks at both
        """Give the HTTP status of a GET of a job."""
        return HTTPStatus.OK

    def deleted(self, job: Job, state: State) -> Body:  # noqa: ARG002 - SGLang's looks at both
        """Give the body of a DELETE that was obeyed."""
        return {"id": job.id, "deleted": True, "object": "video.deleted"}

    def variant(self, query: Mapping[str, str]) -> Variant:
        """Read which content is asked for."""
        asked = query.get("variant", "video")
        for variant in VARIANTS:
            if asked == variant:
                return variant
        message = f"Invalid value: '{asked}'. Supported values are: 'video', 'thumbnail', and 'spritesheet'."
        raise invalid("variant", message)

    def no_content(self, state: State) -> Refusal:
        """Give the refusal of the content of a job that has none."""
        if state.status == "failed":
            return not_found("Video generation failed: there is no content.")
        return not_found(f"Video is not ready yet, use GET /v1/videos/{{video_id}} (status: {state.status}).")

    def error(self, refusal: Refusal) -> Body:
        """Give the body of an HTTP error."""
        fields = {"type": refusal.kind, "param": refusal.param, "code": refusal.code}
        return {"error": {"message": refusal.message, **fields}}


class VllmOmni(Profile):
    """vLLM-Omni 0.30: forms only, HTTP errors for failed jobs, and a DELETE that stops the work."""

    takes_json = False
    default_size = None
    list_limits = range(1, 101)
    remixes = False
    unknown_after_is_refused = False
    delete_running = "abort"

    def new_id(self) -> str:
        """Give an id in its own form."""
        return f"video_gen_{secrets.token_hex(16)}"

    def video(self, job: Job, state: State) -> Body:
        """Give the video object: progress is 0 until it is 100, and failed jobs say when they ended."""
        done = state.status == "completed"
        changes = {
            "progress": 100 if done else 0,
            "completed_at": state.ended_at,
            "expires_at": None,
            "quality": "standard",
            "media_type": "video/mp4",
            "file_name": f"{job.id}.mp4" if done else None,
            "inference_time_s": job.latency if done else None,
        }
        return super().video(job, state) | changes

    def failure(self, job: Job) -> Body | None:
        """Give the `error` of a failed job, with a number for a code."""
        return {"code": job.failure.http_status, "message": job.failure.message} if job.failure else None

    def retrieved_status(self, job: Job, state: State) -> int:
        """Give the failure's own status for a failed job."""
        return job.failure.http_status if job.failure and state.status == "failed" else HTTPStatus.OK

    def variant(self, query: Mapping[str, str]) -> Variant:  # noqa: ARG002 - it is not looked at
        """Give the video, whatever is asked for."""
        return "video"

    def no_content(self, state: State) -> Refusal:
        """Give the refusal of the content of a job that has none."""
        if state.status == "failed":
            return Refusal(422, "Video generation failed")
        return not_found("Video is not ready yet")

    def error(self, refusal: Refusal) -> Body:
        """Give the body of an HTTP error: the status's name for a type, the status for a code."""
        if refusal.status == HTTPStatus.UNAUTHORIZED:
            return {"error": "Unauthorized"}
        fields = {"type": HTTPStatus(refusal.status).phrase, "param": refusal.param, "code": refusal.status}
        return {"error": {"message": refusal.message, **fields}}


class Sglang(Profile):
    """SGLang 0.5.23: bare ids, no prompt told, and a DELETE that only forgets."""

    list_limits = range(1, 101)
    remixes = False
    unknown_after_is_refused = False
    delete_running = "forget"

    def new_id(self) -> str:
        """Give an id in its own form."""
        return str(uuid.uuid4())

    def video(self, job: Job, state: State) -> Body:
        """Give the video object: without the prompt, with places for files that are not told."""
        body = super().video(job, state)
        del body["prompt"]
        told = {"expires_at": None, "quality": "standard", "url": None, "urls": None, "file_path": None}
        return body | told | {"num_outputs": 1, "inference_time_s": job.latency if state.ended else None}

    def failure(self, job: Job) -> Body | None:
        """Give the `error` of a failed job, which has no code."""
        return {"message": job.failure.message} if job.failure else None

    def deleted(self, job: Job, state: State) -> Body:
        """Give the video object, in a status of its own."""
        return self.video(job, state) | {"status": "deleted"}

    def variant(self, query: Mapping[str, str]) -> Variant:
        """Read an output's number: there is only the first."""
        asked = query.get("variant", "0")
        if not (asked.isascii() and asked.isdigit() and int(asked) == 0):
            raise not_found(f"Video variant {asked} not found")
        return "video"

    def no_content(self, state: State) -> Refusal:
        """Give the refusal of the content of a job that has none."""
        return not_found("Video not found" if state.ended else "Generation is still in-progress")

    def error(self, refusal: Refusal) -> Body:
        """Give the body of an HTTP error."""
        if refusal.status == HTTPStatus.UNAUTHORIZED:
            return {"error": "Unauthorized"}
        return {"detail": refusal.message}


PROFILES: Mapping[str, Profile] = {"openai": Profile(), "vllm-omni": VllmOmni(), "sglang": Sglang()}
