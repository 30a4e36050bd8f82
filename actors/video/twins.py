"""Whose video an adopted one may be: twins differ in fields that no listing shows, such as the seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from actors.batch.batch_update import request_digest
from actors.sora.exchange import VideoSpec
from actors.sora.matching import BEFORE, contradicts
from actors.sora.wire import RemoteVideo
from storage.records import Document, JobRecord
from storage.storage import Storage

_NAMED = 3


def twins_of(storage: Storage, submission_id: str) -> list[JobRecord]:
    """The jobs with the same prompt whose video this submission may have adopted. Reads."""
    adopted = storage.submissions.get(submission_id)
    if not adopted.adopted:
        return []
    rivals = storage.submissions.rivals(adopted, adopted.intended_at - BEFORE)
    jobs = storage.jobs.by_id([adopted.job_id, *(rival.job_id for rival in rivals)])
    job = jobs.get(adopted.job_id)
    if job is None:
        return []
    twins = {
        twin.id: twin
        for rival in rivals
        if (twin := jobs.get(rival.job_id)) is not None
        and twin.prompt == job.prompt
        and request_digest(twin) == rival.digest
        # What was found before the other's intent can't be the other's video.
        and not (_found_before(twin, adopted.intended_at) or _found_before(job, rival.intended_at))
    }
    return list(twins.values())


def _found_before(job: JobRecord, moment: float) -> bool:
    return job.started_at is not None and job.started_at <= moment


def uncertain(job: JobRecord, video: RemoteVideo, twins: Sequence[JobRecord]) -> Iterator[Document]:
    """A warning for each requested field that may be a twin's: neither listing nor video says whose it is."""
    possible = [twin for twin in twins if not contradicts(video, _shown(twin))]
    for field, asked in _asked(job).items():
        if others := [twin for twin in possible if _asked(twin)[field] != asked]:
            yield _warning(field, asked, others)
    names = {
        "params": {name for twin in possible for name in _differing(job.params, twin.params)},
        "files": {name for twin in possible for name in _differing(_files(job), _files(twin))},
    }
    for field, found in names.items():
        if found:
            yield _warning(field, ", ".join(sorted(found)), possible)


def _warning(field: str, asked: str | int | None, others: list[JobRecord]) -> Document:
    ids = ", ".join(twin.id for twin in others[:_NAMED])
    more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
    what = f"asked for {field} {asked}" if asked is not None else f"{field} was not set"
    message = (
        f"{what}; the create's answer was lost and the video was found in the server's listing, "
        f"which does not show the {field}: it may be that of {ids}{more}"
    )
    return {"code": f"{field}_uncertain", "message": message, "asked": asked, "made": None}


def _asked(job: JobRecord) -> dict[str, str | int | None]:
    return {"model": job.model, "duration": job.duration, "size": job.size, "seed": job.seed}


def _files(job: JobRecord) -> Document:
    return {**({} if job.reference is None else {"input_reference": job.reference}), **job.files}


def _differing(first: Document, second: Document) -> set[str]:
    return {name for name in {*first, *second} if first.get(name) != second.get(name)}


def _shown(job: JobRecord) -> VideoSpec:
    return VideoSpec(job.prompt, job.model, job.duration, job.size, seed=job.seed)
