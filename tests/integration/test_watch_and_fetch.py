"""From a video's acceptance to its file, on servers that answer as they please."""

import base64
import http.server
import json
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic, time
from typing import Any

import pytest

from actors.batch.views import Batch
from actors.errors import SettingsError
from actors.service import BatchService
from tests.integration.support import (
    PATIENCE,
    check_files,
    check_journal,
    check_paid_once,
    numbered,
    rows,
    until,
    videos,
)
from tests.provider.client import Provider

pytestmark = pytest.mark.integration

Start = Callable[..., BatchService]


@pytest.fixture(autouse=True)
def _no_long_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.video.setbacks._LONGEST_BACKOFF", 0.05)
    monkeypatch.setattr("actors.video.setbacks._LOST_AFTER", 0.5)


def make(service: BatchService, *prompts: str, **more: Any) -> Batch:
    batch = service.create_batch(videos(*prompts, **more))
    return service.process_batch(batch.id).result(PATIENCE)


def codes(batch: Batch) -> list[str | None]:
    return [job.error.code if job.error else None for job in batch.jobs]


@pytest.mark.parametrize("hours", [-2, 2])
def test_a_videos_time_is_not_counted_by_another_machines_clock(
    hours: int, provider: Provider, start_service: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.hold()
    first = start_service()
    first.create_batch(videos("a lake", id="b"))
    first.process_batch("b")
    until(lambda: first.get_batch_status("b").jobs[0].status == "generating")
    first.close()
    monkeypatch.setattr("time.time", lambda: time() + hours * 3600)  # beyond SORA_VIDEO_TIMEOUT
    (running,) = start_service().resume_batches(["b"])
    provider.release()
    batch = running.result(PATIENCE)
    assert codes(batch) == [None]
    (job,) = batch.jobs
    assert job.started_at is not None
    assert job.completed_at is not None
    assert 0 <= (job.completed_at - job.started_at).total_seconds() < PATIENCE


# --- how a video ends


def test_a_failed_video_that_is_told_as_an_http_500_is_no_error_of_the_server(
    provider: Provider, service: BatchService
) -> None:
    """vLLM-Omni: the whole job is the body, and the code is a number."""
    failed = {"status": "failed", "error": {"code": 500, "message": "CUDA out of memory"}}
    provider.hold()
    provider.fault(on="retrieve", do="answer", status=500, set=failed, match="video 2", times=-1)
    provider.fault(on="retrieve", do="answer", set={"status": "completed"}, match="video 1", times=-1)
    batch = service.create_batch(videos(*numbered(2), id="b"))
    running = service.process_batch(batch.id)
    until(lambda: service.get_batch_status("b").jobs[1].status == "failed")
    provider.finish()
    final = running.result(PATIENCE)
    assert codes(final) == [None, "generation_failed"]
    error = final.jobs[1].error
    assert error is not None
    assert "CUDA out of memory" in error.message
    assert error.retryable
    (video,) = [video for video in provider.ledger()["videos"] if video["prompt"] == "a: video 2"]
    assert video["polls"] == 1


@pytest.mark.parametrize(
    ("status", "before", "after"),
    [
        (
            500,
            "litellm.InternalServerError: InternalServerError: Hosted_vllmException - ",
            "\n\nLiteLLM: retried 2 times",
        ),
        (400, "upstream said {oops} ", ""),
        (404, "", ""),
    ],
)
def test_a_failed_video_that_a_gateway_quotes_in_an_error_has_failed(
    status: int, before: str, after: str, provider: Provider, service: BatchService
) -> None:
    provider.hold()
    running = service.process_batch(service.create_batch(videos("a boat", id="b")).id)
    provider.wait(accepted=1)
    (video,) = provider.ledger()["videos"]
    failed = {"id": video["id"], "object": "video", "status": "failed", "error": {"message": "CUDA out of memory"}}
    message = f"{before}{json.dumps(failed)}{after}"
    provider.fault(on="retrieve", do="answer", status=status, body={"error": {"message": message}}, match="boat")
    provider.finish(status="failed")
    final = running.result(PATIENCE)
    assert codes(final) == ["generation_failed"]
    assert final.jobs[0].error is not None
    assert final.jobs[0].error.message == "CUDA out of memory"
    provider.release("videos")
    assert service.retry_batch("b").result(PATIENCE).status == "completed"
    assert provider.summary()["accepted"] == 2


@pytest.mark.parametrize(
    "error",
    ["out of memory", {"message": "out of memory"}, {"code": "oom", "message": "out of memory"},
     {"code": 7, "message": "out of memory"}],
    ids=str,
)  # fmt: skip
def test_an_error_of_any_shape_is_told(error: Any, provider: Provider, service: BatchService) -> None:
    provider.fault(on="retrieve", do="answer", set={"status": "failed", "error": error})
    batch = make(service, "a boat")
    assert codes(batch) == ["generation_failed"]
    assert batch.jobs[0].error is not None
    assert "out of memory" in batch.jobs[0].error.message


@pytest.mark.parametrize("status", ["expired", "cancelled", "canceled", "error", "rejected", "deleted", "FAILED"])
def test_a_status_of_the_terminal_words_ends_the_video(status: str, provider: Provider, service: BatchService) -> None:
    provider.fault(on="retrieve", do="answer", set={"status": status, "error": None})
    batch = make(service, "a boat")
    assert codes(batch) == ["generation_failed"]
    assert batch.jobs[0].error is not None
    assert status in batch.jobs[0].error.message


def test_statuses_that_nobody_knows_mean_not_finished(provider: Provider, service: BatchService) -> None:
    for status in ("NOT_START", "pending", "generating", "postprocessing", "unknown", "a new word"):
        provider.fault(on="retrieve", do="answer", set={"status": status, "progress": None})
    batch = make(service, "a boat")
    assert batch.status == "completed"
    assert provider.ledger()["videos"][0]["polls"] >= 7


@pytest.mark.parametrize("status", ["succeeded", "Success", "done"])
def test_other_words_for_completed_are_known(status: str, provider: Provider, service: BatchService) -> None:
    provider.fault(on="retrieve", do="answer", when="completed", set={"status": status}, times=-1)
    batch = make(service, "a boat")
    assert batch.status == "completed"
    check_files(batch, provider)


def test_a_create_that_answers_with_the_finished_video_needs_no_look(provider: Provider, service: BatchService) -> None:
    provider.options(latency=0)
    provider.fault(on="create", do="answer", set={"status": "completed"})
    provider.fault(on="content", do="answer", status=404)  # it may not be there at once
    batch = make(service, "a boat")
    assert batch.status == "completed"
    assert provider.ledger()["videos"][0]["polls"] == 0


# --- a video that is not found


def test_a_404_once_after_the_create_is_a_replica_that_lags(provider: Provider, service: BatchService) -> None:
    provider.fault(on="retrieve", do="answer", status=404, times=2)
    assert make(service, "a boat").status == "completed"
    check_paid_once(provider)


def test_a_404_for_ever_is_a_lost_video(provider: Provider, service: BatchService) -> None:
    provider.hold()
    batch = service.create_batch(videos(*numbered(2), id="b"))
    running = service.process_batch(batch.id)
    provider.wait(requests_retrieve=4)
    provider.forget()
    final = running.result(PATIENCE)
    assert codes(final) == ["not_found"] * 2
    assert all(job.remote_id for job in final.jobs)
    error = final.jobs[0].error
    assert error is not None
    assert final.jobs[0].remote_id in error.message
    assert provider.summary()["posts"] == 2
    provider.release("videos")
    assert codes(service.retry_batch("b").result(PATIENCE)) == ["not_found"] * 2  # it is looked for, not paid anew
    assert provider.summary()["posts"] == 2
    assert service.retry_batch("b", pay_again=True).result(PATIENCE).status == "completed"
    assert provider.summary()["posts"] == 4


@pytest.mark.parametrize("choice", ["random", "round_robin", "sticky"])
@pytest.mark.parametrize("replicas", [2, 3])
def test_every_video_is_made_behind_replicas_that_know_their_own_only(
    replicas: int, choice: str, provider: Provider, start_service: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.video.setbacks._LOST_LOOKS", 100)  # chance has its way in no test
    provider.options(replicas=replicas, replica_choice=choice, latency=0.2)
    batch = make(start_service(batch_max_size=40), *numbered(40), concurrency=10)  # so many that no replica gets none
    assert codes(batch) == [None] * 40
    assert {video["replica"] for video in provider.ledger()["videos"]} == set(range(replicas))
    check_files(batch, provider)
    check_paid_once(provider)


def test_a_finished_video_is_fetched_however_late_somebody_takes_over(provider: Provider, start_service: Start) -> None:
    provider.hold()
    first = start_service()
    running = first.process_batch(first.create_batch(videos("a boat", id="b")).id)
    until(lambda: first.get_batch_status("b").jobs[0].status == "generating")
    first.close()
    assert running.exception(PATIENCE) is not None
    second = start_service()
    long_ago = "UPDATE jobs SET started_at=started_at-86400"
    second._recorder.write(lambda: second._database.execute(long_ago)).result(PATIENCE)
    provider.release()
    (resumed,) = second.resume_batches()
    assert resumed.result(PATIENCE).status == "completed"


def test_a_file_that_another_place_refuses_is_fetched_from_the_server(
    provider: Provider, service: BatchService
) -> None:
    """An object store answers 403 for what is not there yet; our key is nobody's there."""

    class Store(http.server.BaseHTTPRequestHandler):
        asked = 0

        def do_GET(self) -> None:
            Store.asked += 1
            self.send_error(403)

        def log_message(self, *_: Any) -> None:
            """It would go to standard error."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Store) as store:
        threading.Thread(target=store.serve_forever, daemon=True).start()
        place = f"http://127.0.0.1:{store.server_address[1]}/film.mp4"
        provider.fault(on="retrieve", do="answer", set={"url": place}, times=-1)
        provider.fault(on="list", do="answer", status=404, times=-1)
        provider.fault(on="content", do="answer", status=404)
        batch = make(service, "a boat", "a lake")
        store.shutdown()
    assert batch.status == "completed"
    assert Store.asked >= 1


def test_a_video_that_was_made_with_another_key_is_never_lost(
    provider: Provider, start_service: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.video.task._made_with", lambda _submission: "another key")
    provider.hold()
    service = start_service(sora_video_timeout=2000)
    running = service.process_batch(service.create_batch(videos("a boat")).id)
    provider.wait(accepted=1)
    provider.forget()
    assert codes(running.result(PATIENCE)) == ["timeout"]
    assert provider.summary()["requests"]["retrieve"] > 20


# --- looking


def test_the_servers_hint_is_followed_each_time(provider: Provider, start_service: Start) -> None:
    provider.options(latency=0.6)
    provider.fault(on="retrieve", do="answer", headers={"openai-poll-after-ms": "50"}, times=3)
    provider.fault(on="retrieve", do="answer", headers={"openai-poll-after-ms": "450"})
    provider.fault(on="retrieve", do="answer", headers={"openai-poll-after-ms": "20"}, times=-1)
    service = start_service(sora_poll_interval=100)
    assert make(service, "a boat").status == "completed"
    polls = provider.ledger()["videos"][0]["polls"]
    assert 5 <= polls <= 8


def test_many_videos_are_watched_by_the_listing(provider: Provider, start_service: Start) -> None:
    provider.options(latency=0.6)
    service = start_service(sora_poll_interval=100, batch_max_size=20)
    batch = make(service, *numbered(20), concurrency=20)
    assert batch.status == "completed"
    check_files(batch, provider)
    requests = check_paid_once(provider)["requests"]
    assert requests["list"] + requests.get("retrieve", 0) <= 30  # where 20 looks an interval would be 120


def test_a_retry_by_a_machine_whose_clock_is_behind_has_its_time(
    provider: Provider, start_service: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.hold()
    first = start_service(sora_delete_on_cancel="never")
    first.create_batch(videos("a lake", id="b"))
    first.process_batch("b")
    until(lambda: first.get_batch_status("b").jobs[0].status == "generating")
    first.cancel_batch("b")
    first.close()
    provider.release()
    monkeypatch.setattr("time.time", lambda: time() - 2 * 3600)
    assert start_service().retry_batch("b").result(PATIENCE).status == "completed"
    check_paid_once(provider)


@pytest.mark.parametrize(
    "fault",
    [
        {"set": {"status": "completed"}},  # none of them is
        {"set": {"status": "in_progress"}},
        {"set": {"id": "video_of_another_name"}},
        {"status": 500},
        {"status": 405},
        {"body": {"object": "list", "data": []}},
        {"body": "<html>"},
        {"paging": False},
        {"lag": 5.0},
    ],
    ids=str,
)
def test_a_listing_that_lies_or_fails_only_costs_requests(
    fault: dict[str, Any], provider: Provider, start_service: Start
) -> None:
    provider.options(latency=0.3)
    provider.fault(on="list", do="answer", times=-1, **fault)
    service = start_service(batch_max_size=20)
    batch = make(service, *numbered(20), concurrency=20)
    assert codes(batch) == [None] * 20
    check_files(batch, provider)
    check_paid_once(provider)


def test_a_video_that_failed_is_told_by_the_listing_and_says_why_itself(
    provider: Provider, start_service: Start
) -> None:
    provider.fault(on="list", do="answer", times=-1, set={"error": None})
    batch = make(start_service(batch_max_size=20), *numbered(9), "[fail] a boat", concurrency=10)
    assert codes(batch) == [None] * 9 + ["generation_failed"]
    assert batch.jobs[9].error is not None
    assert "could not be generated" in batch.jobs[9].error.message


@pytest.mark.parametrize(
    "fault",
    [
        {"do": "answer", "status": 500},
        {"do": "answer", "status": 503, "body": {"error": "warming up"}},
        {"do": "answer", "status": 502, "body": "<html>Bad gateway</html>"},
        {"do": "answer", "body": "this is no JSON"},
        {"do": "answer", "body": None},
        {"do": "answer", "status": 429, "headers": {"Retry-After-Ms": "60"}},
        {"do": "lose_request"},
        {"do": "lose_response"},
        {"do": "reset"},
    ],
    ids=str,
)
def test_errors_in_looks_are_waited_out(fault: dict[str, Any], provider: Provider, service: BatchService) -> None:
    provider.fault(on="retrieve", times=4, **fault)
    batch = make(service, *numbered(2))
    assert batch.status == "completed"
    assert set(check_paid_once(provider)["posts_per_prompt"].values()) == {1}
    check_files(batch, provider)


@pytest.mark.parametrize(("status", "code"), [(401, "authentication"), (403, "permission"), (400, "invalid_request")])
def test_a_look_that_is_refused_ends_the_job_and_keeps_its_id(
    status: int, code: str, provider: Provider, service: BatchService
) -> None:
    provider.fault(on="retrieve", do="answer", status=status, match="video 1", body={"error": "no"})
    batch = make(service, *numbered(2), id="b")
    assert codes(batch) == [code, None]
    assert batch.jobs[0].remote_id
    final = service.retry_batch("b", job_ids=["b-01"]).result(PATIENCE)
    assert final.status == "completed"
    check_paid_once(provider)
    check_files(final, provider)


# --- the file


@pytest.mark.parametrize(
    "fault",
    [
        {"do": "short"},
        {"do": "short", "bytes": 0},
        {"do": "stall", "seconds": 0.2, "then": "close"},
        {"do": "stall", "seconds": 0.2, "then": "reset"},
        {"do": "stall", "seconds": 0.3},
        {"do": "answer", "status": 404},
        {"do": "answer", "status": 500},
        {"do": "answer", "status": 400, "body": {"detail": "not ready"}},
        {"do": "answer", "status": 200, "body": {"path": "/somewhere/else.mp4"}},
        {"do": "answer", "status": 200, "body": "no film", "headers": {"Content-Type": "video/mp4"}},
        {"do": "answer", "status": 200, "body": "", "headers": {"Content-Type": "video/mp4"}},
        {"do": "answer", "status": 429, "headers": {"Retry-After-Ms": "60"}},
        {"do": "lose_request"},
        {"do": "reset"},
    ],
    ids=str,
)
def test_a_download_that_fails_starts_anew(fault: dict[str, Any], provider: Provider, service: BatchService) -> None:
    provider.fault(on="content", match="video 2", times=2, **fault)
    batch = make(service, *numbered(3))
    assert batch.status == "completed"
    assert set(check_paid_once(provider)["posts_per_prompt"].values()) == {1}
    check_files(batch, provider)


def test_a_file_that_never_comes_whole_is_no_file(provider: Provider, service: BatchService, tmp_path: Path) -> None:
    provider.fault(on="content", do="short", match="video 2", times=-1)
    batch = make(service, *numbered(3), id="b")
    assert codes(batch) == [None, "download_failed", None]
    made = [job.video.path for job in batch.jobs if job.video]
    assert sorted(str(path) for path in (tmp_path / "videos" / "b").iterdir()) == sorted(made)
    provider.clear_faults()
    final = service.retry_batch("b").result(PATIENCE)
    assert final.status == "completed"
    check_files(final, provider)
    assert set(check_paid_once(provider)["posts_per_prompt"].values()) == {1}


@pytest.mark.parametrize(
    "fault",
    [
        {"do": "answer", "status": 404},
        {"do": "answer", "status": 502, "body": "<html>Bad gateway</html>"},
        {"do": "answer", "status": 503},
        {"do": "answer", "status": 429, "headers": {"Retry-After-Ms": "60"}},
        {"do": "lose_request"},
        {"do": "reset"},
    ],
    ids=str,
)
def test_what_passes_is_waited_out_while_a_file_is_fetched(
    fault: dict[str, Any], provider: Provider, service: BatchService
) -> None:
    provider.fault(on="content", times=12, **fault)
    batch = make(service, "a boat")
    assert codes(batch) == [None]
    check_files(batch, provider)
    check_paid_once(provider)


def test_a_server_that_is_away_while_a_file_is_fetched_is_waited_for(provider: Provider, service: BatchService) -> None:
    provider.fault(on="content", do="answer", status=503, times=-1)
    running = service.process_batch(service.create_batch(videos("a boat", id="b")).id)
    provider.wait(requests_content=2)
    provider.clear_faults()
    provider.kill()
    until(lambda: "Cannot connect" in next((wait.reason for wait in service.waits("b").values()), ""))
    provider.restart()
    batch = running.result(PATIENCE)
    assert codes(batch) == [None]
    check_files(batch, provider)


def test_a_video_whose_file_never_comes_says_why_when_its_time_is_up(provider: Provider, start_service: Start) -> None:
    provider.fault(on="content", do="answer", status=404, times=-1, body={"error": "it is being copied"})
    batch = make(start_service(sora_video_timeout=1000), "a boat", id="b")
    assert codes(batch) == ["timeout"]
    assert batch.jobs[0].error is not None
    assert "SORA_VIDEO_TIMEOUT" in batch.jobs[0].error.message
    assert "it is being copied" in batch.jobs[0].error.message
    provider.clear_faults()
    retried = start_service().retry_batch("b").result(PATIENCE)
    assert retried.status == "completed"
    check_files(retried, provider)
    check_paid_once(provider)


def test_a_server_that_forgets_a_finished_video_has_lost_it(provider: Provider, service: BatchService) -> None:
    provider.fault(on="content", do="answer", status=503, times=-1)
    running = service.process_batch(service.create_batch(videos("a boat", id="b")).id)
    provider.wait(requests_content=2)
    provider.forget()
    provider.clear_faults()
    assert codes(running.result(PATIENCE)) == ["not_found"]


def test_a_redirect_is_followed_without_the_key(provider: Provider, start_service: Start) -> None:
    provider.options(api_key="sk-secret")
    provider.fault(on="content", do="redirect", times=-1)
    batch = make(start_service(openai_api_key="sk-secret"), *numbered(2))
    assert batch.status == "completed"
    check_files(batch, provider)
    summary = provider.summary()
    assert (summary["elsewhere"], summary["leaked_authorizations"]) == (2, 0)


def test_a_file_is_fetched_from_where_the_server_says_without_the_key(provider: Provider, start_service: Start) -> None:
    provider.options(api_key="sk-secret")
    batch = start_service(openai_api_key="sk-secret").create_batch(videos("a boat", id="b"))
    provider.fault(on="content", do="answer", status=400, body={"detail": "it lies elsewhere"}, times=-1)
    provider.hold()
    service = start_service(openai_api_key="sk-secret")
    running = service.process_batch(batch.id)
    provider.wait(accepted=1)
    (video,) = provider.ledger()["videos"]
    provider.fault(on="retrieve", do="answer", set={"urls": [f"{provider.other_url}/{video['id']}"]}, times=-1)
    provider.release("videos")
    final = running.result(PATIENCE)
    assert final.status == "completed"
    check_files(final, provider)
    assert provider.summary()["leaked_authorizations"] == 0
    assert provider.summary()["elsewhere"] >= 1


def test_where_a_file_lies_is_asked_of_the_video_itself(provider: Provider, start_service: Start) -> None:
    """The listing may be shorter: it told that they are ready, and not where they are."""
    provider.options(latency=1.0)
    provider.fault(on="content", do="answer", status=400, body={"detail": "it lies elsewhere"}, times=-1)
    service = start_service(sora_poll_interval=100, batch_max_size=20)
    running = service.process_batch(service.create_batch(videos(*numbered(9), concurrency=9)).id)
    provider.wait(accepted=9)
    for video in provider.ledger()["videos"]:
        urls = {"urls": [f"{provider.other_url}/{video['id']}"]}
        provider.fault(on="retrieve", do="answer", match=video["prompt"], set=urls, times=-1)
    final = running.result(PATIENCE)
    assert final.status == "completed"
    check_files(final, provider)


def test_a_file_inside_the_answer_is_taken_from_there(provider: Provider, service: BatchService) -> None:
    """Dynamo: the create answers when the video is made, and has no other route."""
    film = b"\0\0\0\x18ftypmp42" + bytes(1000)
    data = [{"b64_json": base64.b64encode(film).decode()}]
    provider.fault(on="create", do="answer", set={"status": "completed", "data": data})
    batch = make(service, "a boat")
    assert batch.status == "completed"
    assert batch.jobs[0].video is not None
    assert Path(batch.jobs[0].video.path).read_bytes() == film
    assert "content" not in provider.summary()["requests"]


@pytest.mark.parametrize(("content_type", "extension"), [("video/x-msvideo", ".avi"), ("video/webm", ".webm")])
def test_the_extension_follows_the_content_type(
    content_type: str, extension: str, provider: Provider, service: BatchService
) -> None:
    provider.fault(on="content", do="answer", body="RIFF....AVI ", headers={"Content-Type": content_type})
    (job,) = make(service, "a boat").jobs
    assert job.video is not None
    assert (Path(job.video.path).name, job.video.content_type) == (
        f"{job.id}-{job.video.sha256[:8]}{extension}",
        content_type,
    )


def test_a_large_file_is_whole(provider: Provider, service: BatchService) -> None:
    provider.options(content_bytes=8 * 1024 * 1024 + 1)
    batch = make(service, *numbered(3))
    assert batch.status == "completed"
    assert {job.video.bytes for job in batch.jobs if job.video} == {8 * 1024 * 1024 + 1}
    check_files(batch, provider)


def test_a_folder_that_can_not_be_written_is_told_before_anything_is_paid(
    provider: Provider, service: BatchService, tmp_path: Path
) -> None:
    (tmp_path / "videos").write_text("I am a file")
    with pytest.raises(SettingsError, match=str(tmp_path / "videos")):
        make(service, "a boat", id="b")
    assert provider.summary()["posts"] == 0
    (tmp_path / "videos").unlink()
    assert service.process_batch("b").result(PATIENCE).status == "completed"


def test_a_file_that_can_not_be_written_is_fetched_by_a_retry(
    provider: Provider, service: BatchService, tmp_path: Path
) -> None:
    folder = tmp_path / "videos" / "b"
    folder.parent.mkdir()
    folder.write_text("I am a file")
    batch = make(service, *numbered(2), id="b")
    assert codes(batch) == ["storage"] * 2
    error = batch.jobs[0].error
    assert error is not None
    assert str(folder) in error.message
    assert error.retryable
    folder.unlink()
    final = service.retry_batch("b").result(PATIENCE)
    assert final.status == "completed"
    check_files(final, provider)
    assert provider.summary()["posts"] == 2


# --- time limits


def test_a_video_that_takes_too_long_is_attached_to_by_a_retry(provider: Provider, start_service: Start) -> None:
    provider.hold()
    service = start_service(sora_video_timeout=500)
    batch = make(service, *numbered(2), id="b")
    assert batch.status == "failed"
    assert codes(batch) == ["timeout"] * 2
    assert {job.remote_id for job in batch.jobs} == {video["id"] for video in provider.ledger()["videos"]}
    assert "delete" not in provider.summary()["requests"]
    provider.release("videos")
    final = service.retry_batch("b").result(PATIENCE)
    assert final.status == "completed"
    check_files(final, provider)
    assert set(check_paid_once(provider)["posts_per_prompt"].values()) == {1}
    check_journal(service, "b")


def test_a_batch_whose_time_is_up_starts_nothing_and_fetches_what_the_server_has(
    provider: Provider, service: BatchService
) -> None:
    provider.hold()
    service.create_batch(videos(*numbered(4), id="b", concurrency=2, timeout_ms=300))
    running = service.process_batch("b")
    until(lambda: service.get_batch_status("b").progress.failed == 2)
    assert [job.status for job in service.get_batch_status("b").jobs[:2]] == ["generating"] * 2
    provider.release("videos")
    batch = running.result(PATIENCE)
    assert batch.status == "partial"
    assert codes(batch) == [None, None, "batch_timeout", "batch_timeout"]
    assert batch.jobs[2].error is not None
    assert batch.jobs[2].error.message == "not submitted within 0.6 s (BATCH_TIMEOUT x 2 rounds)"
    assert provider.summary()["posts"] == 2
    assert "delete" not in provider.summary()["requests"]
    check_files(batch, provider)
    provider.options(latency=0.01)
    final = service.retry_batch("b").result(PATIENCE)
    assert final.status == "completed"
    check_files(final, provider)
    assert set(check_paid_once(provider, limit=2)["posts_per_prompt"].values()) == {1}
    check_journal(service, "b")


def test_only_the_time_for_which_a_batch_is_owned_counts(
    provider: Provider, start_service: Start, tmp_path: Path
) -> None:
    service = start_service()
    provider.hold()
    service.create_batch(videos(*numbered(2), id="b", concurrency=1, timeout_ms=PATIENCE * 1000))
    service.process_batch("b")
    provider.wait(accepted=1)
    service.close()
    (spent,) = rows(tmp_path, "SELECT spent FROM batches")[0]
    left_at = monotonic()
    until(lambda: monotonic() > left_at + 1.0)
    (running,) = start_service().resume_batches(["b"])
    provider.release("videos")
    assert running.result(PATIENCE).status == "completed"
    (in_all,) = rows(tmp_path, "SELECT spent FROM batches")[0]
    assert 0 < spent < in_all < spent + monotonic() - left_at - 1.0


@pytest.mark.parametrize("outage", ["away", "rate limited"])
def test_the_batchs_time_stands_while_the_server_gives_no_answer_or_asks_to_wait(
    outage: str, provider: Provider, start_service: Start
) -> None:
    service, seconds = start_service(batch_timeout=800), 1.5
    if outage == "away":
        provider.kill()
    else:
        provider.fault(on="create", do="answer", status=429, headers={"Retry-After": str(seconds)})
    service.create_batch(videos("a boat", id="b"))
    began = monotonic()
    running = service.process_batch("b")
    until(lambda: service.waits("b"))
    until(lambda: monotonic() > began + seconds)
    if outage == "away":
        provider.restart()
    assert codes(running.result(PATIENCE)) == [None]
