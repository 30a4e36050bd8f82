"""The audit against a server that keeps its own count: it finds what is planted, and nothing else."""

import base64
import json
import urllib.request
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from actors.cli.app import app
from actors.service import BatchService
from storage.charges import ToldPrice
from tests.integration.support import PATIENCE, numbered, until, videos
from tests.provider.client import Provider

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def _no_long_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.video.setbacks._LONGEST_BACKOFF", 0.05)


def made(service: BatchService, count: int = 3, **more: Any) -> Any:
    batch = service.create_batch(videos(*numbered(count), **more))
    return service.process_batch(batch.id).result(PATIENCE)


def post(provider: Provider, prompt: str) -> str:
    """Somebody else's video at the same server."""
    request = urllib.request.Request(
        f"{provider.base_url}/videos", json.dumps({"prompt": prompt}).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        return str(json.load(answer)["id"])


def test_where_everything_fits_nothing_is_found(service: BatchService) -> None:
    made(service)
    report = service.audit(checksums=True)
    assert report.clean
    assert (report.videos_listed, report.listing_problem) == (3, None)


def test_a_flagged_price_is_listed_and_is_no_difference(service: BatchService) -> None:
    made(service, 1)
    (entry,) = service.submissions(service.list_batches()[0].id)
    price = ToldPrice("USD", Decimal(-1))
    service._write(lambda: service._storage.submissions.tell(entry.id, {"usage.cost": -1}, price))
    report = service.audit()
    assert [(each.submission_id, each.doubt) for each in report.flagged_prices] == [
        (entry.id, "reported -1 USD, which is not a price")
    ]
    assert report.clean


def test_what_nobody_submitted_is_told_with_its_price_and_their_sum(
    service: BatchService, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.options(prices={"*": "0.1700000301"}, tells_price="cost")
    strangers = {post(provider, f"a stranger's {number}") for number in range(3)}
    until(lambda: provider.summary()["completed"] == 3)
    report = service.audit()
    assert {video.remote_id for video in report.unknown_videos} == strangers
    bill = Decimal(provider.summary()["billed"])
    assert [(each.currency, each.micros) for each in report.unknown_cost] == [("USD", round(bill * 10**6))]
    each = round(bill / 3 * 10**6)
    assert [video.price and video.price.micros for video in report.unknown_videos] == [each] * 3
    monkeypatch.setenv("DATABASE_URL", service.settings.database_url)
    monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", "a-key")
    said = CliRunner().invoke(app, ["audit", "--all"], env={"COLUMNS": "200"}).output
    assert f"the server charged {Decimal(round(bill * 10**6)).scaleb(-6).normalize()} USD for 3 unknown videos" in said
    assert f" old, {Decimal(each).scaleb(-6).normalize()} USD)" in said


@pytest.mark.parametrize("told", ["-1", "NaN", "1e300", "a lot"])
def test_an_absurd_price_of_a_video_that_nobody_submitted_is_not_added_up(
    told: str, service: BatchService, provider: Provider
) -> None:
    entry = {"id": "video_1", "object": "video", "status": "completed", "usage": {"cost": told}}
    provider.fault(on="list", do="answer", body={"object": "list", "data": [entry]}, times=-1)
    report = service.audit()
    assert [(video.remote_id, video.price) for video in report.unknown_videos] == [("video_1", None)]
    assert report.unknown_cost == []


def test_all_pages_of_the_listing_are_read(service: BatchService, provider: Provider) -> None:
    made(service)
    strangers = {post(provider, f"a stranger's {number}") for number in range(205)}
    report = service.audit()
    assert {video.remote_id for video in report.unknown_videos} == strangers
    assert report.videos_listed == 208


def test_a_listing_without_pages_is_not_taken_for_the_whole(service: BatchService, provider: Provider) -> None:
    provider.fault(on="content", do="answer", status=400, times=-1)
    made(service, 1)
    page = {"object": "list", "data": [{"id": "video_1", "object": "video", "status": "completed"}]}
    provider.fault(on="list", do="answer", body=page, times=-1)  # whatever `after` says
    report = service.audit()
    assert "these 1 videos may not be all" in str(report.listing_problem)
    assert [video.remote_id for video in report.unknown_videos] == ["video_1"]
    assert report.missing_videos == []


def test_a_video_whose_post_was_never_answered_is_named_with_its_job(service: BatchService, provider: Provider) -> None:
    provider.fault(on="create", do="lose_response", match="video 2")
    provider.fault(on="list", do="answer", status=500, accept=False, times=-1)
    batch = made(service, id="nature")
    assert [job.status for job in batch.jobs] == ["completed", "failed", "completed"]
    assert service.audit().listing_problem is not None
    provider.clear_faults()
    (unknown,) = service.audit().unknown_videos
    assert unknown.may_be_of == ["nature-02"]
    assert unknown.prompt == "a: video 2"
    assert unknown.age_seconds is not None


def test_a_job_whose_video_the_server_lost_is_found(service: BatchService, provider: Provider) -> None:
    provider.fault(on="content", do="answer", status=400, match="video 1", times=-1)
    batch = made(service, 1, id="nature")
    assert batch.status == "failed"
    assert service.audit().missing_videos == []
    provider.forget()
    (missing,) = service.audit().missing_videos
    assert (missing.job_id, missing.remote_id, missing.status) == ("nature-01", batch.jobs[0].remote_id, "failed")


def test_files_are_compared(service: BatchService, tmp_path: Path) -> None:
    batch = made(service, 4, id="nature")
    gone, cut, changed, _ = (Path(job.video.path) for job in batch.jobs)
    gone.unlink()
    cut.write_bytes(cut.read_bytes()[:-1])
    changed.write_bytes(b"x" + changed.read_bytes()[1:])
    stray = tmp_path / "videos" / "old" / "old-01.mp4"
    stray.parent.mkdir()
    stray.write_bytes(b"film")
    report = service.audit()
    assert [each.job_id for each in report.jobs_without_file] == ["nature-01", "nature-02"]
    assert report.files_without_job == [str(stray)]
    assert [each.job_id for each in service.audit(checksums=True).jobs_without_file] == [
        "nature-01",
        "nature-02",
        "nature-03",
    ]


def test_what_a_running_batch_is_writing_is_no_stray(service: BatchService, provider: Provider, tmp_path: Path) -> None:
    provider.options(latency=60.0)
    part = tmp_path / "videos" / "nature" / "nature-01.1.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"half a film")
    service.create_batch(videos("A lake", id="nature"))
    assert service.audit().files_without_job == []
    service.cancel_batch("nature")
    until(lambda: not part.exists())  # whoever cancels tidies up
    part.write_bytes(b"half a film")
    assert service.audit().files_without_job == [str(part)]


def test_the_command_says_it_in_sentences_and_in_json(
    options: Callable[..., dict[str, Any]], service: BatchService, provider: Provider, monkeypatch: Any, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in options().items():
        monkeypatch.setenv(name.upper(), str(value))
    made(service)
    told = CliRunner().invoke(app, ["audit"])
    assert told.exit_code == 0
    assert told.stdout == "3 server videos compared: 0 unknown to this database, 0 files missing\n"
    stranger = post(provider, "A stranger's\x1b[2J video")
    told = CliRunner().invoke(app, ["audit"])
    assert told.exit_code == 1
    assert told.stdout.endswith("4 server videos compared: 1 unknown to this database, 0 files missing\n")
    assert stranger not in told.stdout
    told = CliRunner().invoke(app, ["audit", "--all"])
    assert told.exit_code == 1
    assert f"no job for video {stranger} (" in told.stdout
    assert "\x1b" not in told.stdout
    document = json.loads(CliRunner().invoke(app, ["audit", "--json"]).stdout)
    assert document["unknown_videos"][0]["remote_id"] == stranger


def test_without_a_server_the_files_are_compared(start_service: Callable[..., BatchService]) -> None:
    service = start_service(openai_base_url=None)
    report = service.audit()
    assert report.clean
    assert "OPENAI_BASE_URL is not set" in str(report.listing_problem)


def test_a_command_that_compared_nothing_says_so(
    options: Callable[..., dict[str, Any]], service: BatchService, monkeypatch: Any, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in options().items():
        monkeypatch.setenv(name.upper(), str(value))
    place = service.database_place
    said = CliRunner().invoke(app, ["audit"]).stdout
    assert said == f"nothing to compare: the server listed no videos, and {place} records no files\n"
    batch = made(service, 1)
    monkeypatch.delenv("OPENAI_BASE_URL")
    said = CliRunner().invoke(app, ["audit"]).stdout
    assert said.endswith("\nno server videos compared; 0 files missing of 1\n")
    assert "OPENAI_BASE_URL is not set" in said
    service.delete_batch(batch.id, keep_files=True)
    said = CliRunner().invoke(app, ["audit"]).stdout
    assert "no job for file" in said
    assert said.endswith("\nno server videos compared; 0 files missing of 0\n")


def test_a_shared_server_s_videos_are_counted_and_those_that_may_be_ours_are_named(
    options: Callable[..., dict[str, Any]], service: BatchService, provider: Provider, monkeypatch: Any, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in options().items():
        monkeypatch.setenv(name.upper(), str(value))
    provider.fault(on="create", do="lose_response", match="video 2")
    provider.fault(on="list", do="answer", status=500, accept=False, times=-1)
    made(service, 2, id="nature")
    provider.clear_faults()
    for number in range(20):
        post(provider, f"a stranger's {number}")
    lines = CliRunner().invoke(app, ["audit"]).stdout.splitlines()
    assert [line.startswith("20 server videos unknown to this database") for line in lines] == [True, False, False]
    assert "it may belong to nature-02" in lines[1]
    assert lines[2] == "22 server videos compared: 21 unknown to this database, 0 files missing"


def test_ids_that_a_proxy_lists_otherwise_than_it_gave_them_are_the_same(
    service: BatchService, provider: Provider
) -> None:
    provider.fault(on="content", do="answer", status=400, match="video 1", times=-1)
    batch = made(service, 1, id="nature")
    told = "litellm:custom_llm_provider:hosted_vllm;model_id:films;video_id:video_gen_1"
    given, listed = (
        f"video_{base64.b64encode(text.encode()).decode()}" for text in (f"{told};deployment_id:0af3", told)
    )
    storage = service._storage
    (entry,) = service.submissions("nature")
    service._write(lambda: storage.database.execute("UPDATE submissions SET remote_id=? WHERE id=?", (given, entry.id)))
    page = {"object": "list", "data": [{"id": listed, "status": "completed"}], "has_more": False}
    provider.fault(on="list", do="answer", body=page, times=-1)
    report = service.audit()
    assert batch.status == "failed"
    assert (report.videos_listed, report.unknown_videos, report.missing_videos) == (1, [], [])
