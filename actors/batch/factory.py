"""Turns a validated request and the settings into the records of a new batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from actors.batch.expansion import Expansion, Place, Take, Video, videos_of
from actors.batch.field_errors import all_of, invalid, wrong_field
from actors.batch.fields import FILES_MAX_BYTES, FileId, budget_document
from actors.batch.references import load_reference
from actors.batch.requests import BatchVideoRequest, VideoDefaults, VideoRequest, canonical_digest, job_id, new_batch_id
from actors.batch.start import NewBatch
from actors.errors import InvalidRequest
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
            jobs.append(_new_job(batch_id, len(jobs) + 1, video, take, settings, now, reference, files))
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


def _new_job(
    batch_id: str,
    position: int,
    video: Video,
    take: Take,
    settings: Settings,
    now: float,
    reference: Document | None,
    files: Document,
) -> JobRecord:
    return JobRecord(
        id=job_id(batch_id, position), batch_id=batch_id, position=position, status=JobStatus.PENDING,
        prompt=take.prompt, **asked_of(video, settings),
        reference=reference, metadata=take.metadata, remote_id=None, progress=0, attempts=0, error=None, video=None,
        created_at=now, updated_at=now, started_at=None, completed_at=None,
        options=options_of(seed=take.seed, take=take.take, params=take.params, files=files),
    )  # fmt: skip


def changed_columns(
    changes: Mapping[str, Mapping[str, Any]], settings: Settings, *, paths: bool = True
) -> tuple[dict[str, dict[str, Any]], list[ReferenceRecord]]:
    """The columns that the changes set, by job id, and the bytes of their input references.

    `options` has the changed seed, params and files, which are merged with those of the job. `paths`: see `new_batch`.

    Raises:
        InvalidRequest: a change is wrong.
    """
    columns: dict[str, dict[str, Any]] = {}
    references = References(settings, paths=paths)
    for changed_id, change in changes.items():
        given, removed = _without_removed_files(change)
        try:
            video = VideoRequest.model_validate({"prompt": "unchanged", **given})
        except ValidationError as error:
            raise invalid(error, "changes", changed_id) from None
        columns[changed_id] = changed = _changed(changed_id, video, references, prompt="prompt" in change)
        if removed:
            changed["options"]["files"].update(dict.fromkeys(removed))
    return columns, references.records


def _without_removed_files(change: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[str]]:
    """A change without the files that it sets to null, and their names: they are removed from the job's."""
    files = change.get("files")
    if not isinstance(files, dict):
        return change, []
    removed = [name for name, file in files.items() if file is None]
    return {**change, "files": {name: file for name, file in files.items() if file is not None}}, removed


def _changed(changed_id: str, video: VideoRequest, references: References, *, prompt: bool) -> dict[str, Any]:
    said = video.model_fields_set
    if "metadata" in said:
        raise InvalidRequest(
            f"changes of {changed_id}: a retry can't change metadata, which is never sent to the server"
        )
    if video.takes is not None:
        raise InvalidRequest(f"changes of {changed_id}: a job makes a single take; create another batch for more takes")
    if video.seed == "random":
        raise InvalidRequest(f'changes of {changed_id}: seed can\'t be "random" in a retry; give a number')
    given = video.model_dump(exclude_unset=True, include={"prompt", "duration", "size", "model"})
    if not prompt:
        del given["prompt"]
    place = ("changes", changed_id)
    if "input_reference" in said:
        given["reference"] = references.kept(video.input_reference, (*place, "input_reference"))
    options: dict[str, Any] = {"params": dict(video.params)} if "params" in said else {}
    if "seed" in said:
        options["seed"] = video.seed
    if "files" in said:
        options["files"] = references.all_kept(video.files, (*place, "files"))
    return given | ({"options": options} if options else {})
