"""The events, to the letter of the contract."""

import json
from datetime import UTC, datetime

import pytest

from actors.batch.events import FINAL_EVENTS, JOBS_MAX_BYTES, Event, EventName, batch_event, final_event, job_event
from actors.batch.job_views import Job
from actors.batch.views import Progress
from storage.states import FINAL_BATCH, BatchStatus, JobStatus
from tests.builders import NOON, a_batch, a_job, some_jobs

AT = NOON + 0.25
KNOWN = {
    "batch": [
        "created",
        "started",
        "progressed",
        "completed",
        "partial",
        "failed",
        "cancelled",
        "retried",
        "deleted",
        "updated",
        "budget_reached",
    ],
    "job": ["submitted", "progressed", "completed", "failed", "cancelled", "retried", "settled"],
}


def document(record):
    return json.loads(record.body)


def test_the_events_are_those_of_the_contract():
    assert {name.value for name in EventName} == {f"{entity}.{word}" for entity in KNOWN for word in KNOWN[entity]}


def test_an_event_of_a_batch_is_a_cloudevents_document():
    batch = a_batch(total=5, completed=3, failed=2, status=BatchStatus.PROCESSING)
    record = batch_event(EventName.BATCH_PROGRESSED, batch, 42, AT)
    assert document(record) == {
        "specversion": "1.0",
        "id": "nature:0000000042",
        "source": "/sora-batch/batches/nature",
        "type": "sora-batch.batch.progressed.v1",
        "subject": "nature",
        "time": "2026-09-21T14:13:20.250000Z",
        "datacontenttype": "application/json",
        "dataschema": "urn:sora-batch:batch.progressed.v1",
        "sequence": "0000000042",
        "data": {
            "batch_id": "nature",
            "status": "processing",
            "progress": {
                "total": 5, "completed": 3, "failed": 2, "cancelled": 0, "pending": 0, "processing": 0,
                "percentage": 100,
            },
        },
    }  # fmt: skip
    assert (record.batch_id, record.sequence, record.type, record.created_at) == ("nature", 42, "batch.progressed", AT)
    assert record.key == "batch.progressed.nature"


def test_an_event_of_a_job_names_it_and_carries_it():
    job = a_job(7, status=JobStatus.GENERATING, remote_id="video_7", progress=40, started_at=NOON)
    record = job_event(EventName.JOB_PROGRESSED, a_batch(total=9, processing=1), job, 3, AT)
    event = document(record)
    assert record.key == "job.progressed.nature.nature-07"
    assert (event["subject"], event["source"]) == ("nature-07", "/sora-batch/batches/nature")
    assert event["data"]["job"]["id"] == "nature-07"
    assert (event["data"]["job"]["index"], event["data"]["job"]["remote_id"]) == (7, "video_7")
    assert event["data"]["progress"]["processing"] == 1


FAILURE = {"code": "moderation_blocked", "message": "grün\n", "retryable": False, "detail": {"b": 1.5, "a": None}}
FILE = {"path": "/v/ü.mp4", "bytes": 2**40, "sha256": "0" * 64, "content_type": "video/mp4"}


@pytest.mark.parametrize("at", [NOON, NOON + 0.25, NOON + 1e-6, 0.0])
@pytest.mark.parametrize(
    "job",
    [
        a_job(),
        a_job(10_000, status=JobStatus.COMPLETED, video=FILE, progress=100, remote_id="video_1", started_at=NOON),
        a_job(status=JobStatus.FAILED, error=FAILURE, completed_at=NOON + 0.5, attempts=2),
        a_job(status=JobStatus.FAILED, error=dict(reversed(FAILURE.items()))),  # jsonb has an order of its own
        a_job(status=JobStatus.CANCELLED, error={"code": "cancelled", "message": "", "retryable": True}),
        a_job(prompt='"\\\x1b 🌻', duration=8, model="m", size="1x1", metadata={"z": [1, {"ü": 2.0}], "a": 2**60}),
    ],
    ids=range(6),
)
def test_the_bytes_of_an_event_are_those_of_the_models(job, at):
    batch = a_batch(total=7, completed=2, failed=1, cancelled=1, processing=2, status=BatchStatus.PROCESSING)
    body = job_event(EventName.JOB_PROGRESSED, batch, job, 3, at).body
    data = json.loads(body)["data"]
    shown = Job.model_validate(data["job"]).model_dump_json()
    assert body.endswith(f'"job":{shown}}}}}')
    assert f'"progress":{Progress.model_validate(data["progress"]).model_dump_json()},"job":' in body
    assert shown == Job.of(job).model_dump_json()


def test_more_may_be_said_with_an_event_of_a_batch():
    record = batch_event(EventName.BATCH_RETRIED, a_batch(), 2, AT, job_ids=["nature-01"])
    assert document(record)["data"]["job_ids"] == ["nature-01"]


def test_every_end_of_a_batch_has_its_event():
    assert set(FINAL_EVENTS) == FINAL_BATCH
    assert all(name.value == f"batch.{status.value}" for status, name in FINAL_EVENTS.items())


@pytest.mark.parametrize("status", sorted(FINAL_BATCH))
def test_the_last_event_carries_the_whole_batch(status):
    record = final_event(a_batch(total=3, status=status), some_jobs(3), 9, AT, reason="why")
    data = document(record)["data"]
    assert record.type == f"batch.{status.value}"
    assert data["reason"] == "why"
    assert [job["index"] for job in data["batch"]["jobs"]] == [1, 2, 3]
    assert data["batch"]["job_ids"] == ["nature-01", "nature-02", "nature-03"]
    assert "jobs_omitted" not in data["batch"]


@pytest.mark.parametrize("letter", ["x", "ü"], ids=["ascii", "two bytes each"])
def test_the_last_event_carries_as_many_jobs_as_256_kib_hold(letter):
    jobs = some_jobs(40, prompt=letter * 16_000, status=JobStatus.COMPLETED)
    batch = document(final_event(a_batch(total=40, status=BatchStatus.COMPLETED), jobs, 9, AT))["data"]["batch"]
    size = len(json.dumps(batch["jobs"], ensure_ascii=False, separators=(",", ":")).encode())
    one = len(json.dumps(batch["jobs"][0], ensure_ascii=False, separators=(",", ":")).encode())
    assert size <= JOBS_MAX_BYTES + 2 * len(jobs)
    assert size + one > JOBS_MAX_BYTES
    assert len(batch["jobs"]) + batch["jobs_omitted"] == 40
    assert len(batch["job_ids"]) == 40


def test_a_job_that_is_too_large_by_itself_is_omitted():
    jobs = [a_job(prompt="x" * (JOBS_MAX_BYTES + 1))]
    batch = document(final_event(a_batch(status=BatchStatus.FAILED), jobs, 9, AT))["data"]["batch"]
    assert (batch["jobs"], batch["jobs_omitted"]) == ([], 1)


def test_words_are_not_escaped():
    body = job_event(EventName.JOB_FAILED, a_batch(), a_job(prompt="grüne Wiese 🌻"), 1, AT).body
    assert "grüne Wiese 🌻" in body
    assert json.loads(body)


def test_a_recorded_event_is_read_again():
    record = job_event(EventName.JOB_FAILED, a_batch(), a_job(), 12, AT)
    event = Event.parse(record)
    assert (event.name, event.sequence, event.time) == ("job.failed", "0000000012", datetime.fromtimestamp(AT, UTC))
    assert event.data == document(record)["data"]


def test_a_time_on_the_second_is_a_time_too():
    assert document(batch_event(EventName.BATCH_CREATED, a_batch(), 1, NOON))["time"] == "2026-09-21T14:13:20Z"
