"""Fills databases with rows as real use leaves them: batches, jobs, tries and journals, through the repositories."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from actors.batch.events import EventName, batch_event, job_event
from storage.records import BatchRecord, EventRecord, JobRecord
from storage.states import FINAL_BATCH, BatchStatus, JobStatus
from storage.storage import Storage
from tests.builders import NOON, PROVIDER, a_batch, a_job, an_intent

SIZE = 10
"""Videos a batch."""
_TOGETHER = 500
"""Batches a transaction."""
_PROMPT = "A slow flight over a mountain lake at dawn, mist on the water, a single boat, in the manner of a documentary"
_ENDS = 97 * (BatchStatus.COMPLETED,) + (BatchStatus.PARTIAL, BatchStatus.FAILED, BatchStatus.CANCELLED)
_OPEN_EVERY = 200
"""One batch in so many was created and never started: nobody cleans up."""


def fill(storage: Storage, jobs: int, stored: int = 0) -> list[str]:
    """Store so many videos in batches of ten, `stored` of which are there already; give the ids of all batches."""
    ids = [f"batch-{number * 2_654_435_761 % 2**48:012x}" for number in range(jobs // SIZE)]
    for start in range(stored // SIZE, len(ids), _TOGETHER):
        with storage.database.begin():
            for number, batch_id in enumerate(ids[start : start + _TOGETHER], start):
                _put(storage, _batch(number, batch_id))
    return ids


def flying(storage: Storage, batch_id: str, jobs: int) -> None:
    """Store a batch whose videos the server is making, all of them."""
    batch = a_batch(
        batch_id, status=BatchStatus.PROCESSING, total=jobs, processing=jobs, concurrency=jobs, provider=PROVIDER,
        owner="somebody", epoch=1, wanted=True, started_at=NOON,
    )  # fmt: skip
    with storage.database.begin():
        _put(storage, batch)


def _batch(number: int, batch_id: str) -> BatchRecord:
    created = NOON - 3_000_000 + 30 * number
    if number % _OPEN_EVERY == 0:
        return a_batch(batch_id, total=SIZE, created_at=created, updated_at=created)
    status = _ENDS[number % len(_ENDS)]
    done = {BatchStatus.COMPLETED: SIZE, BatchStatus.PARTIAL: SIZE // 2}.get(status, 0)
    rest = {"cancelled" if status is BatchStatus.CANCELLED else "failed": SIZE - done}
    return a_batch(
        batch_id, status=status, total=SIZE, completed=done, provider=PROVIDER, epoch=1, created_at=created,
        updated_at=created + 300, started_at=created + 1, completed_at=created + 300, **rest,
    )  # fmt: skip


def _put(storage: Storage, batch: BatchRecord) -> None:
    jobs = [_job(batch, position) for position in range(1, batch.total + 1)]
    events = list(_journal(batch, jobs))
    storage.batches.add(batch._replace(sequence=len(events)))
    storage.jobs.add(jobs)
    storage.journal.append(events)
    if batch.started_at is not None:
        storage.submissions.intend([an_intent(f"{job.id}-try", job) for job in jobs])
        bound = "UPDATE submissions SET state='bound', remote_id='video_' || job_id WHERE batch_id=?"
        storage.database.execute(bound, (batch.id,))


def _job(batch: BatchRecord, position: int) -> JobRecord:
    job = a_job(position, batch.id, prompt=f"{_PROMPT}, take {position}", duration=8, model="sora-2", size="1280x720")
    if batch.started_at is None:
        return job
    made: dict[str, Any] = {"remote_id": f"video_{job.id}", "attempts": 1, "started_at": batch.started_at}
    if batch.status not in FINAL_BATCH:
        return job._replace(status=JobStatus.GENERATING, **made)
    made["completed_at"] = batch.completed_at
    if position <= batch.completed:
        path = f"/srv/videos/{batch.id}/{job.id}.mp4"
        video = {"path": path, "bytes": 8_388_608, "sha256": 64 * "a", "content_type": "video/mp4"}
        return job._replace(status=JobStatus.COMPLETED, progress=100, video=video, **made)
    status = JobStatus.CANCELLED if batch.cancelled else JobStatus.FAILED
    error = {"code": "generation_failed", "message": "The video could not be made.", "retryable": True, "detail": None}
    return job._replace(status=status, error=error, **made)


def _journal(batch: BatchRecord, jobs: list[JobRecord]) -> Iterator[EventRecord]:
    names = [EventName.JOB_SUBMITTED, EventName.JOB_COMPLETED] if batch.started_at is not None else []
    yield batch_event(EventName.BATCH_CREATED, batch, 1, batch.created_at)
    for sequence, (job, name) in enumerate(((job, name) for job in jobs for name in names), 2):
        yield job_event(name, batch, job, sequence, batch.updated_at)
