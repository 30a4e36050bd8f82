"""A completed video whose file is gone is fetched again when it is named: unpaid, and only the bytes that were recorded."""

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from actors.batch.views import Batch
from actors.cli.app import app
from actors.errors import Conflict, NotFound, SoraError
from actors.service import BatchService
from actors.web.listener import Listener
from tests.integration.support import PATIENCE, check_files, check_journal, check_paid_once, numbered, until, videos
from tests.provider.client import Provider

pytestmark = pytest.mark.integration
FILM = {"Content-Type": "video/mp4"}


@pytest.fixture(autouse=True)
def _no_long_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.video.setbacks._LONGEST_BACKOFF", 0.05)


def made(service: BatchService, count: int = 2) -> Batch:
    service.create_batch(videos(*numbered(count), id="b"))
    return service.process_batch("b").result(PATIENCE)


def lose(batch: Batch, *positions: int) -> None:
    for position in positions:
        video = batch.jobs[position - 1].video
        assert video is not None
        Path(video.path).unlink()


def files(batch: Batch) -> list[str]:
    video = batch.jobs[0].video
    assert video is not None
    return sorted(path.name for path in Path(video.path).parent.iterdir())


@pytest.mark.parametrize("fault", [None, {"do": "short"}, {"do": "answer", "status": 503}], ids=str)
def test_a_file_that_is_gone_is_fetched_again_where_it_is_named(
    fault: dict[str, Any] | None, provider: Provider, service: BatchService
) -> None:
    batch = made(service)
    before = files(batch)
    lose(batch, 2)
    assert service.jobs_without_file("b") == ["b-02"]
    if fault:
        provider.fault(on="content", **fault)
    assert service.retry_batch("b", ["b-02"]).result(PATIENCE) == batch
    check_files(batch, provider)
    assert (files(batch), service.jobs_without_file("b")) == (before, [])
    assert check_journal(service, "b")[-1] == "batch.completed"
    assert check_paid_once(provider)["posts"] == 2


def test_a_folder_that_is_gone_is_made_again(provider: Provider, service: BatchService) -> None:
    batch = made(service)
    lose(batch, 1, 2)
    video = batch.jobs[0].video
    assert video is not None
    Path(video.path).parent.rmdir()
    service.retry_batch("b", service.jobs_without_file("b")).result(PATIENCE)
    check_files(batch, provider)


@pytest.mark.parametrize("way", ["retention", "deletion", "deletion that keeps files"])
def test_a_file_that_comes_back_too_late_is_removed_again(way: str, provider: Provider, service: BatchService) -> None:
    batch = made(service)
    lost = Path(batch.jobs[1].video.path)
    elsewhere = lost.rename(lost.parents[2] / lost.name)
    provider.fault(on="content", do="hang")
    answer = service.retry_batch("b", ["b-02"])
    provider.wait(hanging=1)
    if way == "retention":
        elsewhere.rename(lost)  # a folder where a file is not may be another machine's, so it would be left alone
        assert service.remove_files(timedelta(0)) == 2
    else:
        service.delete_batch("b", keep_files=way.endswith("keeps files"))
    provider.release("requests")
    with pytest.raises(NotFound if "deletion" in way else SoraError, match=r"no batch 'b'|was removed meanwhile"):
        answer.result(PATIENCE)
    folder = service.stores.folder.batch("b")
    if way.endswith("keeps files"):
        assert len(files(batch)) == 2
    else:
        until(lambda: not list(folder.glob("*")))


def test_what_the_server_no_longer_has_stays_completed_and_the_answer_says_why(
    provider: Provider, service: BatchService
) -> None:
    batch = made(service)
    lose(batch, 1)
    provider.forget()
    with pytest.raises(SoraError, match=r"nothing was changed: b-01: .*404"):
        service.retry_batch("b", ["b-01"]).result(PATIENCE)
    assert service.get_batch_status("b") == batch
    assert provider.summary()["posts"] == 2


@pytest.mark.parametrize("body", ["other bytes", "x" * 10_000])
def test_other_bytes_are_not_taken(body: str, provider: Provider, service: BatchService) -> None:
    batch = made(service, 1)
    lose(batch, 1)
    provider.fault(on="content", do="answer", status=200, body=body, headers=FILM, times=-1)
    with pytest.raises(SoraError, match="its SHA-256 does not match the recorded one"):
        service.retry_batch("b", ["b-01"]).result(PATIENCE)
    assert (files(batch), service.get_batch_status("b")) == ([], batch)


def test_another_server_is_not_asked(
    provider: Provider, service: BatchService, start_service: Callable[..., BatchService]
) -> None:
    lose(made(service, 1), 1)
    other = start_service(openai_base_url="http://127.0.0.1:9/v1")
    with pytest.raises(
        SoraError, match=rf"its video is on {provider.base_url}, and this service uses http://127.0.0.1:9/v1"
    ):
        other.retry_batch("b", ["b-01"]).result(PATIENCE)


def test_it_is_fetched_beside_what_is_made_again(provider: Provider, service: BatchService) -> None:
    provider.fault(on="content", do="answer", status=200, body="no film", headers=FILM, match="video 2", times=5)
    batch = made(service)
    assert batch.status == "partial"
    lose(batch, 1)
    final = service.retry_batch("b", ["b-01", "b-02"]).result(PATIENCE)
    assert final.status == "completed"
    check_files(final, provider)
    assert check_paid_once(provider)["posts"] == 2


def test_it_is_fetched_although_the_end_of_its_batch_removes_partial_files(
    provider: Provider, service: BatchService, tmp_path: Path
) -> None:
    batch = made(service)
    lose(batch, 2)
    provider.fault(on="content", do="stall")
    running = service.retry_batch("b", ["b-02"])
    until(lambda: list(tmp_path.rglob("b-02.*.part")))
    service._orphans.clean_soon("b")
    until(lambda: not list(tmp_path.rglob("b-02.*.part")))
    provider.release()
    assert running.result(PATIENCE) == batch
    check_files(batch, provider)
    assert check_paid_once(provider)["posts"] == 2


def test_what_has_its_file_is_not_retried_and_a_retry_of_all_fetches_nothing(
    provider: Provider, service: BatchService
) -> None:
    batch = made(service)
    with pytest.raises(Conflict, match="b-01 is completed"):
        service.retry_batch("b", ["b-01"])
    lose(batch, 1)
    with pytest.raises(Conflict, match="no job failed or was cancelled"):
        service.retry_batch("b")


def test_the_command_fetches_what_is_missing(
    provider: Provider, service: BatchService, options: Callable[..., Any], monkeypatch: Any, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in options().items():
        monkeypatch.setenv(name.upper(), str(value))
    batch = made(service)
    said = CliRunner().invoke(app, ["retry", "b", "--missing"])
    assert (said.exit_code, "no file of a completed video is missing" in said.stderr) == (2, True)
    lose(batch, 1, 2)
    assert CliRunner().invoke(app, ["retry", "b", "--missing"]).exit_code == 0
    check_files(batch, provider)
    lose(batch, 2)
    provider.forget()
    said = CliRunner().invoke(app, ["retry", "b", "--missing"])
    assert said.exit_code == 1
    assert "b-02: " in said.stderr
    assert "404" in said.stderr


def test_files_that_were_removed_on_purpose_are_not_missing(
    service: BatchService, options: Callable[..., Any], monkeypatch: Any
) -> None:
    for name, value in options().items():
        monkeypatch.setenv(name.upper(), str(value))
    made(service)
    service.remove_files(timedelta(0))
    said = CliRunner().invoke(app, ["retry", "b", "--missing"])
    why = "no file of a completed video is missing; 2 were removed on purpose, by VIDEO_KEEP or prune --files"
    assert (said.exit_code, why in " ".join(said.stderr.split())) == (2, True)
    assert retried_over_http(service, {"missing": True})[1]["detail"] == f"batch b: {why}"


# --- through a service


def retried_over_http(service: BatchService, document: dict[str, Any], key: str = "") -> tuple[int, dict[str, Any]]:
    """The answer's status and document."""
    listener = Listener(service, "0", None)
    headers = {"Content-Type": "application/json"} | ({"Idempotency-Key": key} if key else {})
    address = f"{listener.url}/api/v1/batches/b/retry"
    request = urllib.request.Request(address, json.dumps(document).encode(), headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=PATIENCE) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code, json.load(refusal)
    finally:
        listener.close()


def there_again(service: BatchService) -> None:
    until(lambda: service.jobs_without_file("b") == [])


@pytest.mark.parametrize("asked", [{"missing": True}, {"job_ids": ["b-02"]}], ids=["all", "named"])
def test_a_service_fetches_what_is_missing_for_others(
    asked: dict[str, Any], provider: Provider, service: BatchService
) -> None:
    batch = made(service)
    assert retried_over_http(service, asked)[0] == 409
    lose(batch, 2)
    status, told = retried_over_http(service, asked, "k")
    assert (status, told["status"], told["fetching"], told["left_alone"]) == (202, "completed", ["b-02"], [])
    there_again(service)
    check_files(batch, provider)
    assert service.get_batch_status("b") == batch
    fetched = provider.summary()["requests"]["content"]
    assert retried_over_http(service, asked, "k") == (202, told)
    assert (provider.summary()["requests"]["content"], fetched) == (3, 3)
    assert check_journal(service, "b")[-1] == "batch.completed"
    assert check_paid_once(provider)["posts"] == 2


def test_a_service_fetches_beside_what_it_retries_for_others(provider: Provider, service: BatchService) -> None:
    provider.fault(on="content", do="answer", status=200, body="no film", headers=FILM, match="video 2", times=5)
    lose(made(service), 1)
    service.serve()
    budget = {"amount": "9", "unit": "videos"}
    status, told = retried_over_http(service, {"missing": True, "job_ids": ["b-02"], "budget": budget})
    assert (status, told["status"], told["fetching"]) == (202, "pending", ["b-01"])
    until(lambda: service.get_batch_status("b").status == "completed")
    there_again(service)
    check_files(service.get_batch_status("b"), provider)
    assert [each.ceiling_micros for each in service.budgets("b")] == [9_000_000]
    assert check_paid_once(provider)["posts"] == 2


def test_a_budget_counts_where_only_files_are_missing(service: BatchService) -> None:
    lose(made(service), 1)
    service.retry_batch("b", ["b-01"], budget={"amount": 9, "unit": "videos"}).result(PATIENCE)
    assert [each.ceiling_micros for each in service.budgets("b")] == [9_000_000]


def test_what_a_service_can_not_fetch_is_told_in_its_log(
    provider: Provider, service: BatchService, caplog: pytest.LogCaptureFixture
) -> None:
    batch = made(service)
    lose(batch, 1)
    provider.forget()
    assert retried_over_http(service, {"missing": True})[0] == 202
    until(lambda: "could not download all missing files again" in caplog.text)
    (record,) = [each for each in caplog.records if getattr(each, "action", "") == "fetched_again"]
    assert "nothing was changed: b-01: " in record.__dict__["error"]
    assert service.get_batch_status("b") == batch


def test_a_service_fetches_nothing_of_another_store_or_server(
    provider: Provider, service: BatchService, start_service: Callable[..., BatchService], tmp_path: Path
) -> None:
    batch = made(service)
    lose(batch, 1)
    elsewhere = start_service(video_dir=str(tmp_path / "another machine's"))
    status, told = retried_over_http(elsewhere, {"missing": True})
    assert (status, told["detail"]) == (409, "batch b: no file of a completed video is missing")
    moved = start_service(openai_base_url="http://127.0.0.1:9/v1")
    status, told = retried_over_http(moved, {"missing": True})
    assert status == 409
    assert f"b-01: its video is on {provider.base_url}" in told["detail"]
    assert service.jobs_without_file("b") == ["b-01"]
