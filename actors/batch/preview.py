"""The preview of a request: every job as it would be recorded, with nothing stored."""

from __future__ import annotations

from typing import Any

from actors.batch.expansion import Expansion, videos_of
from actors.batch.factory import References, asked_of, budget_of
from actors.batch.requests import BatchVideoRequest
from actors.settings import Settings


def preview(request: BatchVideoRequest, settings: Settings) -> dict[str, Any]:
    """The expanded batch as JSON. Random seeds are not drawn; references are read, but nothing is fetched.

    Raises:
        InvalidRequest: an input reference can't be loaded, or a placeholder is wrong.
    """
    references, expansion = References(settings, paths=True, fetch=False), Expansion(request.matrix)
    jobs: list[dict[str, Any]] = []
    for video in videos_of(request):
        asked = asked_of(video, settings)
        references.kept(video.input_reference, video.place_of("input_reference"))
        references.all_kept(video.files, video.place_of("files"))
        files = {name: references.name(file) for name, file in video.files.items()}
        for take in expansion.takes(video):
            jobs.append(
                {
                    "index": len(jobs) + 1, "prompt": take.prompt, **asked,
                    "seed": video.seed if isinstance(video.seed, str) else take.seed, "take": take.take or 1,
                    "params": take.params, "input_reference": references.name(video.input_reference), "files": files,
                    "metadata": take.metadata,
                }
            )  # fmt: skip
    timeout = round(settings.batch_timeout.total_seconds() * 1000)
    return {
        "id": request.id, "name": request.batch_name, "metadata": request.metadata,
        "concurrency": request.concurrency or settings.batch_concurrency,
        "timeout_ms": timeout if request.timeout_ms is None else request.timeout_ms,
        "budget": budget_of(request, settings) or [],
        "total": len(jobs), "jobs": jobs,
    }  # fmt: skip
