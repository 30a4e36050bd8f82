"""A completed video whose file is gone is fetched again when it is named: unpaid, and only the bytes that were recorded."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from actors.batch.views import Batch
from actors.cli.app import app
from actors.errors import Conflict, SoraError
from actors.service import BatchService
from tests.integration.support import PATIENCE, check_files, check_journal, check_paid_once, numbered, videos
from tests.provider.client import Provider

pytestmark = pytest.mark.integration
FILM = {"Content-Type": "video/mp4"}


@pytest.fixture(autouse=True)
def _no_long_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.video.task._LONGEST_BACKOFF", 0.05)


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
