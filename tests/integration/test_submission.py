"""Every way that a create can end: no video is paid for twice, and none is lost that can be found."""

import json
import math
import urllib.request
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from time import monotonic, time
from typing import Any

import pytest

from actors.batch.views import Batch
from actors.errors import Conflict
from actors.loop import IOLoop
from actors.service import BatchService
from actors.sora.client import SoraClient
from actors.sora.rate_limiter import RateLimiter
from actors.sora.requests import VideoSpec
from actors.sora.submission import LeaseMargin, NotPaid, Submitter
from storage.database import Database
from storage.recorder import Recorder
from storage.states import SubmissionState
from storage.storage import Storage
from storage.timing import boottime
from tests.builders import PROVIDER, an_intent
from tests.integration.support import (
    PATIENCE,
    check_files,
    check_journal,
    check_paid_once,
    job_of,
    numbered,
    rows,
    settings_from,
    until,
    videos,
)
from tests.provider.client import Provider
from tests.servers.port import Port

pytestmark = pytest.mark.integration

Start = Callable[..., BatchService]


PROVES_SOON = {"sora_submit_timeout": 1000}
"""A proof of absence waits until the POST must have arrived."""


def make(service: BatchService, *prompts: str, **more: Any) -> Batch:
    batch = service.create_batch(videos(*prompts, **more))
    return service.process_batch(batch.id).result(PATIENCE)


def codes(batch: Batch) -> list[str | None]:
    return [job.error.code if job.error else None for job in batch.jobs]


def posts(provider: Provider) -> dict[str, int]:
    return dict(provider.summary()["posts_per_prompt"])


def somebody_elses(provider: Provider, prompt: str) -> str:
    """A video that another client of the account has made."""
    request = urllib.request.Request(
        f"{provider.base_url}/videos",
        json.dumps({"prompt": prompt}).encode(),
        {"Content-Type": "application/json"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=10) as response:
        return str(json.load(response)["id"])


# --- the answer is lost, and the listing tells


LOST_AFTER_ACCEPTING: list[dict[str, Any]] = [
    {"do": "lose_response"},
    {"do": "reset", "accept": True},
    {"do": "hang", "accept": True},
    {"do": "hang", "accept": True, "seconds": 0.1, "then": "close"},
    {"do": "hang", "accept": True, "seconds": 0.1, "then": "reset"},
    {"do": "answer", "status": 500, "accept": True},
    {"do": "answer", "status": 503, "accept": True, "body": {"error": "scheduler failed"}},
    {"do": "answer", "status": 408, "accept": True},
    {"do": "answer", "status": 409, "accept": True},
    {"do": "redirect", "accept": True},
    {"do": "answer", "body": "this is no JSON"},
    {"do": "answer", "body": None},
    {"do": "answer", "drop": ["id"]},
]


@pytest.mark.parametrize("fault", LOST_AFTER_ACCEPTING, ids=str)
def test_a_job_whose_answer_was_lost_is_adopted_from_the_listing(
    fault: dict[str, Any], provider: Provider, start_service: Start, tmp_path: Path
) -> None:
    provider.fault(on="create", match="video 2", **fault)
    service = start_service(sora_submit_timeout=400)
    batch = make(service, *numbered(3), id="b")
    assert batch.status == "completed"
    assert posts(provider) == dict.fromkeys(numbered(3), 1)
    assert check_paid_once(provider, limit=3)["elsewhere"] == 0
    check_files(batch, provider)
    check_journal(service, "b")
    assert rows(tmp_path, "SELECT job_id, state FROM submissions WHERE adopted") == [("b-02", "bound")]
    assert job_of(batch, "a: video 2").attempts == 1


LOST_BEFORE_ACCEPTING: list[dict[str, Any]] = [
    {"do": "lose_request"},
    {"do": "reset", "accept": False},
    {"do": "hang", "accept": False, "seconds": 0.1, "then": "close"},
    {"do": "answer", "status": 500, "accept": False},
    {"do": "answer", "status": 502, "accept": False, "body": "<html>Bad gateway</html>"},
    {"do": "answer", "status": 408, "accept": False},
    {"do": "answer", "status": 409, "accept": False},
    {"do": "redirect", "accept": False},
    {"do": "redirect", "accept": False, "status": 307},
    {"do": "answer", "body": "this is no JSON", "accept": False},
]


@pytest.mark.parametrize("fault", LOST_BEFORE_ACCEPTING, ids=str)
def test_a_job_whose_absence_is_proved_is_submitted_again(
    fault: dict[str, Any], provider: Provider, start_service: Start, tmp_path: Path
) -> None:
    service = start_service(**PROVES_SOON)
    provider.fault(on="create", match="video 2", **fault)
    batch = make(service, *numbered(3), id="b")
    assert batch.status == "completed"
    assert posts(provider) == {**dict.fromkeys(numbered(3), 1), "a: video 2": 2}
    assert check_paid_once(provider, limit=3)["elsewhere"] == 0
    states = rows(tmp_path, "SELECT state FROM submissions WHERE job_id = 'b-02' ORDER BY intended_at")
    assert states == [("absent",), ("bound",)]
    assert job_of(batch, "a: video 2").attempts == 1


def test_the_first_video_ever_is_absent_from_an_empty_listing(provider: Provider, start_service: Start) -> None:
    service = start_service(**PROVES_SOON)
    provider.fault(on="create", do="lose_request")
    assert make(service, "a boat").status == "completed"
    assert posts(provider) == {"a boat": 2}


def test_equal_requests_are_matched_as_many_as_were_made(provider: Provider, start_service: Start) -> None:
    """Two of three answers are lost, and one of three requests: nobody can tell which, and it does not matter."""
    service = start_service(**PROVES_SOON)
    assert make(service, "a: first").status == "completed"
    provider.fault(on="create", do="lose_response", times=2)
    provider.fault(on="create", do="lose_request")
    batch = make(service, "a boat", "a boat", "a boat")
    assert batch.status == "completed"
    assert len({job.remote_id for job in batch.jobs}) == 3
    summary = provider.summary()
    assert summary["posts_per_prompt"]["a boat"] == 4
    assert summary["paid_per_prompt"]["a boat"] == 3
    check_files(batch, provider)


def test_equal_requests_of_two_batches_are_told_apart(provider: Provider, service: BatchService) -> None:
    provider.fault(on="create", do="lose_response", times=2)
    running = [service.process_batch(service.create_batch(videos("a boat")).id) for _ in range(2)]
    batches = [future.result(PATIENCE) for future in running]
    assert len({batch.jobs[0].remote_id for batch in batches}) == 2
    assert posts(provider) == {"a boat": 2}


@pytest.mark.parametrize("skew", [-3600, 3600])
def test_a_video_is_found_by_the_servers_clock_not_ours(skew: int, provider: Provider, service: BatchService) -> None:
    provider.options(skew=skew)
    provider.fault(on="create", do="lose_response")
    assert make(service, *numbered(2)).status == "completed"
    assert posts(provider) == dict.fromkeys(numbered(2), 1)


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_that_is_set_in_the_middle_hides_no_video(
    hours: int, provider: Provider, service: BatchService, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert make(service, "a lake").status == "completed"  # the server's clock was compared with ours
    monkeypatch.setattr("time.time", lambda: time() + hours * 3600)
    provider.fault(on="create", do="lose_response")
    assert make(service, "a boat").status == "completed"
    assert posts(provider) == {"a lake": 1, "a boat": 1}


def test_a_listing_that_lags_for_less_than_the_settle_time_is_waited_for(
    provider: Provider, start_service: Start
) -> None:
    provider.fault(on="list", do="answer", lag=0.6, times=-1)
    provider.fault(on="create", do="lose_response", match="video 2")
    assert make(start_service(sora_settle=1200), *numbered(2)).status == "completed"
    assert posts(provider) == dict.fromkeys(numbered(2), 1)


def test_a_listing_of_many_pages_is_read_to_the_window(provider: Provider, service: BatchService) -> None:
    for number in range(120):
        somebody_elses(provider, f"other {number}")
    provider.fault(on="create", do="lose_response")
    assert make(service, "a boat").status == "completed"
    assert posts(provider)["a boat"] == 1


@pytest.mark.parametrize("drop", [["created_at"], ["model", "seconds", "size"]])
def test_a_field_that_the_listing_does_not_tell_is_no_mismatch(
    drop: list[str], provider: Provider, start_service: Start
) -> None:
    provider.fault(on="create", do="lose_response")
    provider.fault(on="create", do="answer", times=-1)
    provider.fault(on="retrieve", do="answer", times=-1)
    provider.fault(on="list", do="answer", drop=drop, times=-1)
    assert (
        make(start_service(sora_model="sora-2", sora_size="1280x720", sora_seconds=8), "a boat").status == "completed"
    )
    assert posts(provider) == {"a boat": 1}


# --- the answer is lost, and the listing does not tell


BLIND_LISTINGS: list[dict[str, Any]] = [
    {"do": "answer", "status": 404},
    {"do": "answer", "status": 405},
    {"do": "answer", "status": 500},
    {"do": "answer", "status": 200, "body": "this is no JSON"},
    {"do": "answer", "status": 200, "body": {"object": "list"}},
    {"do": "answer", "status": 200, "body": {"object": "list", "data": ["no video"]}},
    {"do": "answer", "drop": ["prompt"]},
]


@pytest.mark.parametrize("listing", BLIND_LISTINGS, ids=str)
@pytest.mark.parametrize("accepted", [True, False], ids=["made", "not made"])
def test_what_nobody_can_tell_is_never_submitted_twice(
    accepted: bool, listing: dict[str, Any], provider: Provider, start_service: Start
) -> None:
    service = start_service(sora_submit_timeout=600)  # for so long a listing is asked for again
    provider.options(latency=0.02)
    provider.fault(on="list", times=-1, **listing)
    provider.fault(on="create", match="video 2", do="lose_response" if accepted else "lose_request")
    batch = make(service, *numbered(3))
    if listing.get("drop") and not accepted:
        # All that it shows is ours: that proves that nothing else was made.
        assert (batch.status, posts(provider)["a: video 2"]) == ("completed", 2)
        return
    assert batch.status == "partial"
    assert codes(batch) == [None, "submission_unknown", None]
    error = batch.jobs[1].error
    assert error is not None
    assert not error.retryable
    assert posts(provider) == dict.fromkeys(numbered(3), 1)


def test_a_listing_without_paging_proves_no_absence(provider: Provider, start_service: Start) -> None:
    service = start_service(**PROVES_SOON)
    provider.fault(on="list", do="answer", paging=False, times=-1)
    provider.fault(on="create", match="video 2", do="lose_request")
    assert codes(make(service, *numbered(2))) == [None, "submission_unknown"]


def test_a_listing_that_forgot_what_we_made_proves_no_absence(provider: Provider, start_service: Start) -> None:
    """Another replica behind the same address, or a server that lost its memory."""
    service = start_service(**PROVES_SOON)
    assert make(service, "a: first").status == "completed"
    provider.forget()
    provider.fault(on="create", do="lose_request")
    assert codes(make(service, "a: second")) == ["submission_unknown"]
    assert posts(provider)["a: second"] == 1


def test_nobody_gets_somebody_elses_video(provider: Provider, start_service: Start) -> None:
    service = start_service(**PROVES_SOON)
    provider.fault(on="create", do="lose_response", skip=1)
    provider.hold()
    batch = service.create_batch(videos("a boat"))
    somebody_elses(provider, "a boat")
    final = service.process_batch(batch.id).result(PATIENCE)
    assert codes(final) == ["submission_unknown"]
    assert posts(provider) == {"a boat": 2}


def test_other_clients_videos_do_not_hinder_a_proof_of_absence(provider: Provider, start_service: Start) -> None:
    service = start_service(**PROVES_SOON)
    assert make(service, "a: first").status == "completed"
    somebody_elses(provider, "a train")
    provider.fault(on="create", do="lose_request", match="second")
    assert make(service, "a: second").status == "completed"
    assert posts(provider)["a: second"] == 2


def test_where_nothing_is_paid_the_unknown_is_submitted_again(provider: Provider, start_service: Start) -> None:
    provider.fault(on="list", do="answer", status=404, times=-1)
    provider.fault(on="create", do="lose_response", match="video 2")
    batch = make(start_service(sora_unknown_submission="resubmit"), *numbered(2))
    assert batch.status == "completed"
    assert posts(provider) == {"a: video 1": 1, "a: video 2": 2}


@pytest.mark.parametrize("mode", ["fail", "resubmit"])
def test_a_server_that_fails_at_every_create_is_not_asked_for_ever(
    provider: Provider, start_service: Start, mode: str
) -> None:
    service = start_service(sora_unknown_submission=mode, sora_settle=50, **PROVES_SOON)
    assert make(service, "a: good").status == "completed"
    provider.fault(on="create", do="answer", status=500, accept=False, times=-1, match="bad")
    if mode == "resubmit":
        provider.fault(on="list", do="answer", status=404, times=-1)
    batch = make(service, "a: bad", "a: also good")
    assert posts(provider) == {"a: good": 1, "a: bad": 3, "a: also good": 1}
    error = job_of(batch, "a: bad").error
    assert (batch.status, error.code) == ("partial", "server_error")


# --- a retry of what is unknown


@pytest.fixture
def unknown(provider: Provider, service: BatchService) -> Batch:
    """A batch of three: one completed, one failed, and of one nobody knows."""
    provider.fault(on="list", do="answer", status=404, times=-1)
    provider.fault(on="create", do="lose_response", match="video 2")
    provider.fault(on="create", do="answer", status=403, accept=False, match="video 3")
    batch = make(service, *numbered(3), id="b")
    assert codes(batch) == [None, "submission_unknown", "permission"]
    provider.clear_faults()
    return batch


def test_a_blanket_retry_leaves_the_unknown_alone(unknown: Batch, provider: Provider, service: BatchService) -> None:
    final = service.retry_batch("b").result(PATIENCE)
    assert codes(final) == [None, "submission_unknown", None]
    assert posts(provider) == {"a: video 1": 1, "a: video 2": 1, "a: video 3": 2}
    with pytest.raises(Conflict, match="b-02"):
        service.retry_batch("b")


def test_naming_an_unknown_job_looks_again(unknown: Batch, provider: Provider, service: BatchService) -> None:
    final = service.retry_batch("b", job_ids=["b-02"]).result(PATIENCE)
    assert codes(final) == [None, None, "permission"]
    assert final.status == "partial"
    assert posts(provider)["a: video 2"] == 1
    check_files(final, provider)


def test_naming_a_job_that_is_still_unknown_pays_nothing(
    unknown: Batch, provider: Provider, service: BatchService
) -> None:
    provider.fault(on="list", do="answer", status=404, times=-1)
    final = service.retry_batch("b", job_ids=["b-02"]).result(PATIENCE)
    assert codes(final) == [None, "submission_unknown", "permission"]
    assert posts(provider)["a: video 2"] == 1


@pytest.mark.parametrize("job_ids", [["b-02"], None])
def test_a_persons_word_pays_again(
    job_ids: list[str] | None, unknown: Batch, provider: Provider, service: BatchService
) -> None:
    final = service.retry_batch("b", job_ids=job_ids, pay_again=True).result(PATIENCE)
    assert codes(final) == [None, None, None if job_ids is None else "permission"]
    assert posts(provider)["a: video 2"] == 2


def test_a_changed_request_is_a_new_payment(unknown: Batch, provider: Provider, service: BatchService) -> None:
    final = service.retry_batch("b", changes={"b-03": {"prompt": "a: another", "size": "1280x720"}}).result(PATIENCE)
    assert codes(final) == [None, "submission_unknown", None]
    assert posts(provider)["a: another"] == 1
    assert (final.jobs[2].prompt, final.jobs[2].size) == ("a: another", "1280x720")


# --- answers that tell


@pytest.mark.parametrize("status", [200, 201, 202])
def test_any_success_with_an_id_is_an_acceptance(status: int, provider: Provider, service: BatchService) -> None:
    provider.fault(on="create", do="answer", status=status)
    assert make(service, "a boat").status == "completed"
    assert provider.summary()["requests"].get("list") is None


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, "invalid_request"), (404, "not_found"), (405, "not_found"), (413, "invalid_request"),
     (415, "invalid_request"), (422, "invalid_request")],
)  # fmt: skip
def test_a_refused_video_does_not_stop_the_others(
    status: int, code: str, provider: Provider, service: BatchService
) -> None:
    body = {"error": {"message": "not like this", "code": "bad"}}
    provider.fault(on="create", do="answer", status=status, body=body, match="video 2")
    batch = make(service, *numbered(3))
    assert codes(batch) == [None, code, None]
    error = batch.jobs[1].error
    assert error is not None
    assert "not like this" in error.message
    assert not error.retryable
    assert posts(provider) == dict.fromkeys(numbered(3), 1)
    assert provider.summary()["requests"].get("list") is None


def test_a_blocked_prompt_has_its_own_code(provider: Provider, service: BatchService) -> None:
    body = {"error": {"message": "Your request was blocked by our moderation system.", "code": "moderation_blocked"}}
    provider.fault(on="create", do="answer", status=400, body=body)
    assert codes(make(service, "a boat")) == ["moderation_blocked"]


@pytest.mark.parametrize(
    ("status", "body", "code", "retryable"),
    [
        (401, {"error": {"message": "Incorrect API key"}}, "authentication", True),
        (402, {"error": "pay first"}, "quota_exceeded", True),
        (403, {"detail": "not you"}, "permission", False),
        (429, {"error": {"message": "no money", "code": "insufficient_quota"}}, "quota_exceeded", True),
    ],
)
def test_an_account_that_is_refused_stops_the_batch(
    status: int, body: Any, code: str, retryable: bool, provider: Provider, service: BatchService
) -> None:
    provider.fault(on="create", do="answer", status=status, body=body, skip=1, times=-1)
    batch = make(service, *numbered(5), id="b", concurrency=1)
    assert batch.status == "partial"
    assert codes(batch) == [None] + [code] * 4
    assert [job.error.retryable for job in batch.jobs if job.error] == [retryable] * 4
    assert posts(provider) == dict.fromkeys(numbered(2), 1)
    provider.clear_faults()
    assert service.retry_batch("b").result(PATIENCE).status == "completed"
    check_paid_once(provider)


def test_a_wrong_key_is_told_and_never_written_down(provider: Provider, start_service: Start, tmp_path: Path) -> None:
    provider.options(api_key="sk-right")
    batch = make(start_service(openai_api_key="sk-very-wrong"), *numbered(2))
    assert codes(batch) == ["authentication"] * 2
    assert b"sk-very-wrong" not in (tmp_path / "batches.db").read_bytes()
    provider.options(api_key="sk-right")
    assert make(start_service(openai_api_key="sk-right"), "a boat").status == "completed"


def test_a_model_that_is_refused_stops_the_jobs_with_that_model_only(provider: Provider, service: BatchService) -> None:
    body = {"error": {"message": "no access to pro", "code": "model_not_found"}}
    provider.fault(on="create", do="answer", status=403, body=body, match="pro", times=-1)
    request = [{"prompt": "pro: 1", "model": "pro"}, {"prompt": "2"}, {"prompt": "pro: 3", "model": "pro"}]
    batch = service.create_batch({"videos": request, "concurrency": 1})
    final = service.process_batch(batch.id).result(PATIENCE)
    assert codes(final) == ["permission", None, "permission"]
    assert posts(provider) == {"pro: 1": 1, "2": 1}
    assert final.jobs[2].error is not None
    told = f"not submitted: {batch.id}-01 was rejected with HTTP 403: no access to pro"
    assert (final.jobs[2].error.message, final.jobs[2].error.retryable) == (told, False)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_create_that_is_redirected_to_another_place_is_refused_at_once(
    status: int, provider: Provider, service: BatchService
) -> None:
    provider.fault(on="create", do="redirect", status=status, to=f"{provider.other_url}/v1/videos", times=-1)
    batch = make(service, *numbered(3), concurrency=1)
    assert codes(batch) == ["network"] * 3
    for job in batch.jobs:
        assert job.error is not None
        assert job.error.message.endswith(f"and nothing was made: set OPENAI_BASE_URL={provider.other_url}/v1")
        assert job.error.retryable
    summary = provider.summary()
    assert (summary["posts"], summary["elsewhere"], summary["requests"].get("list")) == (1, 0, None)


def test_a_listing_that_is_redirected_is_not_followed_to_look_for_a_video(
    provider: Provider, service: BatchService
) -> None:
    provider.fault(on="create", do="lose_request")
    provider.fault(on="list", do="redirect", to=f"{provider.other_url}/v1/videos", times=-1)
    batch = make(service, "a boat")
    assert codes(batch) == ["submission_unknown"]
    assert batch.jobs[0].error is not None
    assert f"redirected to {provider.other_url}/v1/videos (HTTP 302)" in batch.jobs[0].error.message
    assert provider.summary()["elsewhere"] == 0


# --- rate limits


def _date_in(seconds: float) -> str:
    return formatdate(time() + seconds, usegmt=True)


@pytest.mark.parametrize(
    ("headers", "least"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "0.4"}, 0.4),
        ({"Retry-After-Ms": "700", "Retry-After": "20"}, 0.7),
        ({"llm_provider-retry-after": "1"}, 1.0),
        ({"Retry-After": "in two seconds"}, 0.9),
        ({}, 0.9),
    ],
)
def test_a_429_waits_as_long_as_it_is_told(
    headers: dict[str, str], least: float, provider: Provider, service: BatchService
) -> None:
    provider.fault(on="create", do="answer", status=429, headers=headers)
    batch = make(service, "a boat")
    assert batch.status == "completed"
    first, second = (post["at"] for post in provider.ledger()["posts"])
    assert least <= second - first < least + 5
    assert batch.jobs[0].attempts == 1


@pytest.mark.parametrize(("ahead", "least", "most"), [(2.5, 1.0, 5.0), (-60.0, 0.0, 1.0)])
def test_a_429_waits_for_a_date(
    ahead: float, least: float, most: float, provider: Provider, service: BatchService
) -> None:
    provider.fault(on="create", do="answer", status=429, headers={"Retry-After": _date_in(ahead)})
    assert make(service, "a boat").status == "completed"
    first, second = (post["at"] for post in provider.ledger()["posts"])
    assert least <= second - first < most


def test_a_429_with_a_long_pause_is_obeyed_told_and_cancelled_at_once(
    provider: Provider, service: BatchService
) -> None:
    provider.fault(on="create", do="answer", status=429, headers={"Retry-After": "121"}, times=9)
    running = service.process_batch(service.create_batch(videos(*numbered(3), id="b")).id)
    until(lambda: service.waits("b") and all(job.status == "pending" for job in service.get_batch_status("b").jobs))
    assert 100 < service.waits("b")[""].until - monotonic() <= 121
    summary = service.cancel_batch("b")
    assert running.result(PATIENCE).status == "cancelled"
    assert summary.may_be_charged == []
    assert provider.summary()["posts"] <= 3  # those that had left when the first one was refused


def test_a_429_slows_every_batch_of_the_process(provider: Provider, service: BatchService) -> None:
    provider.fault(on="create", do="answer", status=429, headers={"Retry-After": "1"}, match="a:")
    slowed = service.process_batch(service.create_batch(videos("a: boat", id="slowed")).id)
    until(lambda: service.waits("slowed"))
    assert "rate limited" in service.waits("slowed")[""].reason
    other = service.process_batch(service.create_batch(videos("b: boat")).id)
    assert [running.result(PATIENCE).status for running in (slowed, other)] == ["completed"] * 2
    refused, *later = (post["at"] for post in provider.ledger()["posts"])
    assert min(later) - refused >= 1.0


def test_many_refusals_in_a_row_lose_no_video(provider: Provider, service: BatchService) -> None:
    provider.fault(on="create", do="answer", status=429, headers={"Retry-After-Ms": "50"}, times=6)
    assert make(service, *numbered(4)).status == "completed"
    assert provider.summary()["posts"] == 10
    check_paid_once(provider, limit=3)


# --- no connection


def test_a_server_that_is_not_there_fails_the_batch(start_service: Start) -> None:
    port = Port()
    service = start_service(openai_base_url=f"http://127.0.0.1:{port.number}/v1", sora_connect_timeout=500)
    batch = make(service, *numbered(5))
    port.release()
    assert batch.status == "failed"
    assert codes(batch) == ["network"] * 5
    error = batch.jobs[0].error
    assert error is not None
    assert error.retryable
    assert f":{port.number}" in error.message
    assert "(SORA_CONNECT_TIMEOUT)" in error.message


@pytest.mark.parametrize(
    ("serves", "changes", "patience"),
    [(False, {}, 10.0), (True, {}, math.inf), (True, {"sora_connect_timeout": 700}, 0.7),
     (False, {"sora_connect_timeout": 0}, math.inf)],
)  # fmt: skip
def test_how_long_a_server_is_tried_that_never_answered(
    serves: bool, changes: dict[str, Any], patience: float, start_service: Start
) -> None:
    service = start_service(**changes)
    runtime = service._started()
    if serves:
        service.serve()
    rate_limiter = runtime._tools.client.rate_limiter
    assert rate_limiter.patience == patience
    assert rate_limiter.given_up(1e9) is (patience < math.inf)
    rate_limiter.answered()
    assert not rate_limiter.given_up(1e9)


def test_a_serve_waits_for_a_server_that_was_never_there(
    provider: Provider, start_service: Start, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Ever less often, one video at a time, and it says so once."""
    provider.kill()
    service = start_service()
    service._started()._tools.client.rate_limiter.patience = 0.1  # what a `run` would give it
    service.serve()
    names = ["a", "b", "c"]
    for name in names:
        service.create_batch(videos(*numbered(3, name), id=name))
        service._write(lambda each=name: service._storage.batches.update(each, wanted=True))
    until(lambda: service.waits("a").get(""))
    assert "server unreachable" in service.waits("a")[""].reason
    not_sent = "SELECT count(*) FROM submissions WHERE state='not_sent'"
    until(lambda: rows(tmp_path, not_sent)[0][0] >= 12)  # the first group, and some tries one by one
    said = [record for record in caplog.records if "server unreachable" in record.getMessage()]
    assert [record.levelname for record in said] == ["WARNING"]
    provider.restart()
    for name in names:
        until(lambda each=name: service.get_batch_status(each).finished)
        assert service.get_batch_status(name).status == "completed"
    check_paid_once(provider)


def test_a_server_that_comes_back_in_time_makes_the_videos(provider: Provider, service: BatchService) -> None:
    provider.kill()
    batch = service.create_batch(videos(*numbered(3)))
    running = service.process_batch(batch.id)
    until(lambda: service.waits(batch.id))
    assert "server unreachable" in service.waits(batch.id)[""].reason
    provider.restart()
    assert running.result(PATIENCE).status == "completed"
    assert posts(provider) == dict.fromkeys(numbered(3), 1)


def test_a_server_that_dies_and_comes_back_is_paid_once(provider: Provider, service: BatchService) -> None:
    provider.options(latency=0.3)
    running = service.process_batch(service.create_batch(videos(*numbered(6))).id)
    provider.wait(accepted=3)
    provider.restart()
    batch = running.result(PATIENCE)
    assert batch.status == "completed"
    check_paid_once(provider, limit=3)
    check_files(batch, provider)


# --- what is sent


def test_the_form_has_what_was_asked_for_and_nothing_else(
    provider: Provider, service: BatchService, tmp_path: Path
) -> None:
    batch = service.create_batch(
        {
            "videos": [
                {"prompt": "a bøat", "duration": 8, "size": "1280x720", "model": "sora-2-pro"},
                {"prompt": "a car"},
            ]
        }
    )
    service.process_batch(batch.id).result(PATIENCE)
    first, second = sorted(provider.ledger()["posts"], key=lambda post: post["prompt"])
    assert first["content_type"].startswith("multipart/form-data")
    assert first["fields"] == {"prompt": "a bøat", "seconds": "8", "size": "1280x720", "model": "sora-2-pro"}
    assert second["fields"] == {"prompt": "a car"}
    intents = rows(tmp_path, "SELECT id FROM submissions ORDER BY job_id")
    assert [(first["idempotency_key"],), (second["idempotency_key"],)] == intents


def test_json_is_sent_where_it_is_asked_for(provider: Provider, start_service: Start) -> None:
    service = start_service(sora_request_format="json", sora_model="m")
    batch = service.create_batch({"videos": [{"prompt": "a bøat", "duration": 8}]})
    assert service.process_batch(batch.id).result(PATIENCE).status == "completed"
    (post,) = provider.ledger()["posts"]
    assert post["content_type"].startswith("application/json")
    assert post["fields"] == {"prompt": "a bøat", "seconds": 8, "model": "m"}


def test_a_picture_is_sent_along_even_after_its_file_has_gone(
    provider: Provider, service: BatchService, tmp_path: Path
) -> None:
    picture = tmp_path / "first.png"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64))
    batch = service.create_batch({"videos": [{"prompt": "a boat", "input_reference": str(picture)}]})
    picture.unlink()
    assert service.process_batch(batch.id).result(PATIENCE).status == "completed"
    (post,) = provider.ledger()["posts"]
    assert post["fields"]["input_reference"]["filename"] == "first.png"
    assert post["fields"]["input_reference"]["bytes"] == 72


def test_the_id_of_the_create_is_kept_whatever_a_look_says(provider: Provider, service: BatchService) -> None:
    """LiteLLM gives another id on GET, which nobody can use."""
    provider.fault(on="retrieve", do="answer", set={"id": "video_unusable"}, times=-1)
    batch = make(service, "a boat")
    assert batch.status == "completed"
    assert batch.jobs[0].remote_id == provider.ledger()["videos"][0]["id"]
    check_files(batch, provider)


def test_an_id_that_was_given_to_two_videos_in_the_making_is_not_believed(
    provider: Provider, service: BatchService
) -> None:
    provider.hold()
    first = service.process_batch(service.create_batch(videos("a: first", id="first")).id)
    remote_id = until(lambda: service.get_batch_status("first").jobs[0].remote_id)
    provider.fault(on="create", do="answer", set={"id": remote_id})
    second = service.process_batch(service.create_batch(videos("a: second", id="second")).id)
    until(lambda: [each.adopted for each in service.submissions("second")] == [True])
    provider.release()
    batches = [first.result(PATIENCE), second.result(PATIENCE)]
    assert [batch.status for batch in batches] == ["completed"] * 2
    for batch in batches:
        check_files(batch, provider)
    check_paid_once(provider)


@pytest.mark.parametrize("late", ["window", "lease"])
def test_a_post_whose_time_has_passed_does_not_go_out(
    late: str, provider: Provider, options: Callable[..., dict[str, Any]], storage: Storage, database: Database
) -> None:
    """A process that was suspended may not own the batch any more; and a look at the listing counts on the window."""
    settings, lease, intent = settings_from(options()), LeaseMargin(), an_intent()
    send_before = boottime() + (-0.001 if late == "window" else 60.0)
    lease.trusted_until = boottime() + (-0.001 if late == "lease" else 60.0)
    io, recorder = IOLoop(), Recorder(database)

    async def submit() -> Any:
        async with SoraClient(settings, provider.base_url, RateLimiter(None)) as client:
            submitter = Submitter(
                io, client, storage, recorder, settings, provider=PROVIDER, owner_id="us", lease=lease
            )
            return await submitter.submit(intent, VideoSpec("a lake", None, None, None), send_before)

    try:
        recorder.write(lambda: storage.submissions.intend([intent])).result(PATIENCE)
        outcome = io.submit(submit()).result(PATIENCE)
    finally:
        recorder.close()
        io.close()
    assert isinstance(outcome, NotPaid)
    assert outcome.state is SubmissionState.NOT_SENT
    assert storage.submissions.get(intent.id).state is SubmissionState.NOT_SENT
    assert provider.ledger()["posts"] == []
