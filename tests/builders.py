"""Records for tests: whole ones, of which a test says only what it is about."""

from typing import Any

from actors.batch.batch_update import request_digest
from storage.owners import OwnerRecord
from storage.records import BatchRecord, EventRecord, JobRecord, SubmissionRecord
from storage.states import BatchStatus, JobStatus, SubmissionState
from storage.storage import Storage
from storage.urls import key_of, server_of

PROVIDER = "http://server/v1#key"
NOON = 1_790_000_000.0


def a_batch(batch_id: str = "nature", **columns: Any) -> BatchRecord:
    given: dict[str, Any] = {
        "id": batch_id, "name": None, "metadata": {}, "status": BatchStatus.PENDING, "concurrency": 3, "timeout": 0.0,
        "digest": "digest", "provider": None, "total": 1, "completed": 0, "failed": 0, "cancelled": 0, "processing": 0,
        "error": None, "sequence": 1, "epoch": 0, "owner": None, "wanted": False, "claims": 0, "spent": 0.0,
        "created_at": NOON, "updated_at": NOON, "started_at": None, "completed_at": None,
    }  # fmt: skip
    return BatchRecord(**given | columns)


def a_job(position: int = 1, batch_id: str = "nature", **columns: Any) -> JobRecord:
    given: dict[str, Any] = {
        "id": f"{batch_id}-{position:02d}", "batch_id": batch_id, "position": position, "status": JobStatus.PENDING,
        "prompt": f"lake {position}", "duration": None, "model": None, "size": None, "reference": None, "metadata": {},
        "remote_id": None, "progress": 0, "attempts": 0, "error": None, "video": None, "created_at": NOON,
        "updated_at": NOON, "started_at": None, "completed_at": None,
    }  # fmt: skip
    return JobRecord(**given | columns)


def some_jobs(count: int, batch_id: str = "nature", **columns: Any) -> list[JobRecord]:
    return [a_job(position, batch_id, **columns) for position in range(1, count + 1)]


def an_intent(intent_id: str = "intent-1", job: JobRecord | None = None, **columns: Any) -> SubmissionRecord:
    job = job or a_job()
    given: dict[str, Any] = {
        "id": intent_id, "job_id": job.id, "batch_id": job.batch_id, "attempt": 1, "digest": request_digest(job),
        "provider": PROVIDER, "sender": "us", "intended_at": NOON, "state": SubmissionState.INTENDED,
    }  # fmt: skip
    given |= columns
    of_provider = {"server": server_of(given["provider"]), "key_fingerprint": key_of(given["provider"])}
    return SubmissionRecord(**of_provider | given)


def an_event(sequence: int = 1, batch_id: str = "nature", **columns: Any) -> EventRecord:
    given: dict[str, Any] = {
        "batch_id": batch_id, "sequence": sequence, "type": "batch.created", "key": f"batch.created.{batch_id}",
        "body": "{}", "created_at": NOON,
    }  # fmt: skip
    return EventRecord(**given | columns)


def an_owner(owner_id: str = "us", **columns: Any) -> OwnerRecord:
    given: dict[str, Any] = {
        "id": owner_id, "host": "here", "boot": "today", "pid": 1, "started": "", "lease_until": 0.0,
    }  # fmt: skip
    return OwnerRecord(**given | columns)


def put(storage: Storage, batch: BatchRecord, jobs: list[JobRecord] | None = None) -> BatchRecord:
    """Store a batch with its jobs, as they are."""
    storage.batches.add(batch)
    storage.jobs.add(some_jobs(batch.total, batch.id) if jobs is None else jobs)
    return batch
