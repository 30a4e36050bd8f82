"""The judge of a run finds each way in which a promise can be broken."""

import copy
import json
from collections.abc import Callable

import pytest

from tests.chaos.customer import Arrival, Command
from tests.chaos.evidence import QUEUES, Evidence
from tests.chaos.judge import judge

FILE, DIGEST = "/videos/b1/b1-01.mp4", "5ha"
Break = Callable[[Evidence], object]


def an_event(number: int, name: str, subject: str, progress: dict[str, int]) -> dict[str, object]:
    document = {"type": f"sora-batch.{name}.v1", "subject": subject, "data": {"progress": progress}}
    return {"batch_id": "b1", "sequence": number, "type": name, "body": json.dumps(document)}


def a_post(number: int, key: str, video: str | None) -> dict[str, object]:
    return {
        "number": number, "idempotency_key": key, "prompt": "b1: video 1", "complete": True, "accepted": video is not None,
        "video_id": video, "status": None, "fault": None,
    }  # fmt: skip


def a_submission(key: str, state: str, video: str | None) -> dict[str, object]:
    return {
        "id": key, "job_id": "b1-01", "batch_id": "b1", "state": state, "note": None, "remote_id": video, "adopted": False,
        "day": "2026-11-30", "charge": "assumed", "currency": "USD", "seconds": 4, "reserved_micros": 400_000,
        "charged_micros": None, "charged_rest": None,
    }  # fmt: skip


@pytest.fixture
def seen() -> Evidence:
    """A batch of one video that failed and was made again, and one that was refused."""
    counts = {"total": 2, "completed": 1, "failed": 1, "cancelled": 0, "processing": 0}
    batch = {
        **counts, "id": "b1", "status": "partial", "sequence": 3, "owner": None, "wanted": True, "epoch": 1, "claims": 0,
        "concurrency": 1, "budget": [{"amount": "0.8", "unit": "USD"}],
    }  # fmt: skip
    video = {"path": FILE, "bytes": 7, "sha256": DIGEST}
    job = {"id": "b1-01", "batch_id": "b1", "prompt": "b1: video 1", "status": "completed", "error": None}
    other = {"id": "b1-02", "batch_id": "b1", "prompt": "b1: video 2", "status": "failed", "error": {"code": "moderation_blocked"}}  # fmt: skip
    journal = [
        an_event(1, "job.failed", "b1-02", counts), an_event(2, "job.completed", "b1-01", counts),
        an_event(3, "batch.partial", "b1", counts),
    ]  # fmt: skip
    told = [Arrival(f"{row['type']}.b1", f"b1:{row['sequence']:010d}", str(row["body"]).encode()) for row in journal]
    answer = {"id": "a", "correlationid": "c1", "type": "sora-batch.command.accepted.v1", "data": {}}
    return Evidence(
        batches=[batch],
        jobs=[{**job, "remote_id": "v2", "video": video}, {**other, "remote_id": None, "video": None}],
        submissions=[a_submission("i1", "failed", "v1"), a_submission("i2", "bound", "v2")],
        budgets=[
            {"scope": scope, "period": period, "unit": unit, "used_micros": used}
            for scope, period in (("batch", "b1"), ("day", "2026-11-30"), ("month", "2026-11"), ("total", ""))
            for unit, used in (("USD", 800_000), ("seconds", 8_000_000), ("videos", 2_000_000))
        ],
        journal=journal,
        publications=[{"batch_id": "b1", "published": 3}],
        owners=[{"id": "dead", "alive": False}],
        posts=[a_post(1, "i1", "v1"), a_post(2, "i2", "v2")],
        made=[
            {"id": "v1", "prompt": "b1: video 1", "sha256": None, "status": "failed", "price": "0.40", "seconds": "4"},
            {
                "id": "v2",
                "prompt": "b1: video 1",
                "sha256": DIGEST,
                "status": "completed",
                "price": "0.4",
                "seconds": "4",
            },
        ],
        most_at_once={"b1": 1},
        arrivals=[*told, told[1]],  # it may be told again
        answers={"c1": [json.dumps(answer)]},
        commands=[Command("c1", "create", "b1", json.dumps({"id": "c1", "data": {}}).encode())],
        created=["b1"],
        files={FILE: (7, DIGEST)},
        queues=dict.fromkeys(QUEUES, 0),
        aside=[],
        sessions=[],
        locks=[],
        exits={"service1": 0},
    )


def test_nothing_is_wrong_with_what_is_sound(seen: Evidence) -> None:
    assert judge(seen) == []


@pytest.mark.parametrize(
    ("words", "spoil"),
    [
        ("are not there", lambda seen: seen.created.append("b2")),
        ("b1 is processing", lambda seen: seen.batches[0].update(status="processing")),
        ("b1-02 is generating", lambda seen: seen.jobs[1].update(status="generating")),
        ("failed of our own", lambda seen: seen.jobs[1].update(error={"code": "internal"})),
        ("its jobs are", lambda seen: seen.batches[0].update(completed=2)),
        ("its sequence is 3", lambda seen: seen.journal.pop(1)),
        ("first appearances were", lambda seen: seen.arrivals.pop(1) and seen.arrivals.pop()),
        ("first appearances were", lambda seen: seen.arrivals.insert(0, seen.arrivals[1])),
        ("told otherwise", lambda seen: seen.arrivals.append(Arrival("job.failed.b1", "b1:0000000001", b"{}"))),
        ("marked as published", lambda seen: seen.publications[0].update(published=2)),
        ("its last event is completed", lambda seen: seen.jobs[0].update(status="failed", error={"code": "network"})),
        ("the file is None", lambda seen: seen.files.pop(FILE)),
        ("the file is", lambda seen: seen.files.update({FILE: (6, DIGEST)})),
        ("another video", lambda seen: seen.made[1].update(sha256="other")),
        ("an orphan file", lambda seen: seen.files.update({"/videos/b1/b1-02.2.part": (1, "")})),
        ("submitted again after", lambda seen: seen.submissions[0].update(state="unknown", remote_id=None)),
        ("submitted again after", lambda seen: seen.submissions[0].update(state="absent", remote_id=None)),
        ("sent twice", lambda seen: seen.posts.append(a_post(3, "i2", None))),
        ("without an intent", lambda seen: seen.submissions.pop(0)),
        ("nobody knows", lambda seen: seen.submissions[1].update(state="unknown", remote_id=None)),
        ("its limit is 1", lambda seen: seen.most_at_once.update(b1=2)),
        ("800001 USD are used", lambda seen: seen.budgets[0].update(used_micros=800_001)),
        ("of month 2026-11 says", lambda seen: seen.budgets[7].update(used_micros=0)),
        ("is released", lambda seen: seen.submissions[1].update(charge="released")),
        ("a video costs 400000", lambda seen: seen.submissions[1].update(charge="charged", charged_micros=399_999)),
        ("has spent 0.80", lambda seen: seen.batches[0].update(budget=[{"amount": "0.79", "unit": "USD"}])),
        ("has spent 2", lambda seen: seen.batches[0].update(budget=[{"amount": "1", "unit": "videos"}])),
        ("was not answered", lambda seen: seen.answers.clear()),
        ("in different ways", lambda seen: seen.answers["c1"].append('{"id": "b", "data": {}}')),
        ("was put aside", lambda seen: seen.aside.append('{"id": "c1"}')),
        ("a lease without its process", lambda seen: seen.owners[0].update(alive=True)),
        ("still has an owner", lambda seen: seen.batches[0].update(owner="dead")),
        ("an orphan queue", lambda seen: seen.queues.update(other=0)),
        ("messages are left", lambda seen: seen.queues.update({"sora.batch.commands": 1})),
        ("an orphan session", lambda seen: seen.sessions.append({"pid": 1})),
        ("an orphan lock", lambda seen: seen.locks.append({"pid": 1})),
        ("ended with None", lambda seen: seen.exits.update(service1=None)),
    ],
)  # fmt: skip
def test_what_is_broken_is_found(words: str, spoil: Break, seen: Evidence) -> None:
    spoiled = copy.deepcopy(seen)
    spoil(spoiled)
    assert any(words in finding for finding in judge(spoiled)), judge(spoiled)


def test_a_video_that_its_job_calls_unknown_may_be_left_open(seen: Evidence) -> None:
    seen.submissions[1].update(state="unknown", remote_id=None)
    seen.jobs[0].update(status="failed", error={"code": "submission_unknown"})
    assert not any("nobody knows" in finding for finding in judge(seen))
