"""Turns a validated request and the settings into the records of a new batch, or into its preview."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from actors.batch.expansion import Expansion, Place, Video, videos_of
from actors.batch.field_errors import all_of, wrong_field
from actors.batch.fields import FILES_MAX_BYTES, FileId, budget_document
from actors.batch.job_views import job_id
from actors.batch.references import load_reference
from actors.batch.requests import BatchVideoRequest, VideoDefaults, canonical_digest, new_batch_id
from actors.batch.start import NewBatch
from actors.expectations import read_budget
from actors.settings import Settings
from storage.records import BatchRecord, Document, JobRecord, ReferenceRecord, options_of
from storage.states import BatchStatus, JobStatus


class References:
    """The input references and files of a request: each is loaded once, however often it is named."""

    def __init__(self, settings: Settings, *, paths: bool, fetch: bool = True) -> None:
        """`paths`: any local path may be read; `fetch`: URLs are fetched."""
        self._settings, self._paths, self._fetch = settings, paths, fetch
        self._kept: dict[str | FileId, Document] = {}
        self._records: dict[str, ReferenceRecord] = {}
        self._names: dict[str | FileId, str] = {}

    @property
    def records(self) -> list[ReferenceRecord]:
        """The bytes to store."""
        return list(self._records.values())

    def name(self, reference: str | FileId | None) -> str | Document | None:
        """The name of a loaded reference: of a file, a URL, or `{file_id}`."""
        if isinstance(reference, FileId):
            return {"file_id": reference.file_id}
        return None if reference is None else self._names.get(reference, reference)

    def kept(self, reference: str | FileId | None, place: Place) -> Document | None:
        """What a job stores for a reference; `place`: its place in the request, for errors."""
        if reference is None:
            return None
        if reference not in self._kept:
            kept, record = load_reference(reference, self._settings, place, paths=self._paths, fetch=self._fetch)
            if record is not None:
                self._records[record.digest] = record
                self._names[reference] = record.name
            self._kept[reference] = kept
        return self._kept[reference]

    def all_kept(self, files: Mapping[str, str | FileId], place: Place) -> Document:
        """The same for each of the files."""
        kept = {name: self.kept(file, (*place, name)) for name, file in files.items()}
        size = sum(len(self._records[each["digest"]].data) for each in kept.values() if each and "digest" in each)
        if size > FILES_MAX_BYTES:
            expected = f"must total at most {FILES_MAX_BYTES >> 20} MiB"
            raise all_of([wrong_field(place, f"{expected}, and total {size} bytes", code="too_large")])
        return kept


def new_batch(request: BatchVideoRequest, settings: Settings, now: float, *, paths: bool = True) -> NewBatch:
    """The records of a new batch, not yet stored, and the bytes of its input references.

    `paths`: they may be read from any local path, not only below SORA_REFERENCE_DIRS.

    Raises:
        InvalidRequest: an input reference can't be loaded, or a placeholder is wrong.
    """
    batch_id = request.id or new_batch_id()
    references = References(settings, paths=paths)
    expansion = Expansion(request.matrix)
    jobs: list[JobRecord] = []
    for video in videos_of(request):
        reference = references.kept(video.input_reference, video.place_of("input_reference"))
        files = references.all_kept(video.files, video.place_of("files"))
        for take in expansion.takes(video):
            position = len(jobs) + 1
            jobs.append(
                JobRecord(
                    id=job_id(batch_id, position), batch_id=batch_id, position=position, status=JobStatus.PENDING,
                    prompt=take.prompt, **asked_of(video, settings), reference=reference, metadata=take.metadata,
                    remote_id=None, progress=0, attempts=0, error=None, video=None, created_at=now, updated_at=now,
                    started_at=None, completed_at=None,
                    options=options_of(seed=take.seed, take=take.take, params=take.params, files=files),
                )
            )  # fmt: skip
    timeout = settings.batch_timeout.total_seconds()
    batch = BatchRecord(
        id=batch_id, name=request.batch_name, metadata=dict(request.metadata), status=BatchStatus.PENDING,
        concurrency=request.concurrency or settings.batch_concurrency,
        timeout=timeout if request.timeout_ms is None else request.timeout_ms / 1000,
        digest=canonical_digest(_as_given(request, references)), provider=None, total=len(jobs), completed=0, failed=0,
        cancelled=0, processing=0, error=None, sequence=0, epoch=0, owner=None, wanted=False, claims=0, spent=0.0,
        created_at=now, updated_at=now, started_at=None, completed_at=None,
    )  # fmt: skip
    return NewBatch(batch._replace(budget=budget_of(request, settings)), jobs, references.records)


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


def budget_of(request: BatchVideoRequest, settings: Settings) -> list[Document] | None:
    """What a batch may use at most; None: any amount. BATCH_BUDGET counts where the request says nothing."""
    if request.budget is None and settings.batch_budget is not None:
        return [{"amount": each.amount, "unit": each.unit} for each in read_budget(settings.batch_budget)]
    return budget_document(request.budget) or None


def _as_given(request: BatchVideoRequest, references: References) -> Document:
    """The request before expansion, for its digest: a reference counts by its bytes, not by its file name.

    Newer fields that a request does not use are omitted, so that its digest never changes.
    """
    document = request.model_dump(mode="json", exclude={"id", "budget", "matrix", "defaults"})
    document["videos"] = [
        _video_as_given(video, references, ("videos", str(index))) for index, video in enumerate(request.videos)
    ]
    if request.defaults is not None:
        document["defaults"] = _video_as_given(request.defaults, references, ("defaults",))
    if request.matrix is not None:
        document["matrix"] = [[name, values] for name, values in request.matrix.items()]  # their order matters
    return document


def _video_as_given(video: VideoDefaults, references: References, place: Place) -> Document:
    document = video.model_dump(mode="json")
    for name in ("seed", "takes", "params", "files"):
        if not document[name] and document[name] != 0:
            del document[name]
    document["input_reference"] = references.kept(video.input_reference, (*place, "input_reference"))
    if video.files:
        document["files"] = references.all_kept(video.files, (*place, "files"))
    return document


def asked_of(video: Video, settings: Settings) -> dict[str, Any]:
    """The requested duration, size and model of a video, completed by the settings."""
    return {
        "duration": video.duration or settings.sora_seconds,
        "size": video.size or settings.sora_size,
        "model": video.model or settings.sora_model,
    }
