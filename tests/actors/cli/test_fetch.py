"""`sora-batch fetch`, and the library's own `fetch`."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from actors.aio import AsyncBatchService
from actors.cli.app import app
from actors.errors import NotFound
from actors.service import BatchService
from actors.settings import Settings
from actors.simulator import SimulatorOptions
from tests.servers.simulator import simulator_in_thread

VIDEO = {"seconds": 1, "size": "64x64"}
REQUESTS = {
    "nature": [{"prompt": "A boat", "takes": 2, **VIDEO}, {"prompt": "The sea", "metadata": {"shop": "a/b"}, **VIDEO}],
    "water": [{"prompt": "A boat", **VIDEO}],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    places = {"database_url": f"sqlite:///{folder}/batches.db", "video_dir": str(folder / "videos")}
    with (
        simulator_in_thread(SimulatorOptions(latency=(0.0, 0.05))) as (_, url),
        BatchService(Settings(_env_file=None, openai_base_url=url, sora_poll_interval="20", **places)) as service,
    ):
        for batch_id, videos in REQUESTS.items():
            service.create_batch({"id": batch_id, "videos": videos})
        service.create_batch({"id": "later", "videos": [{"prompt": "Later"}]})
        return folder, {batch_id: service.process_batch(batch_id).result(60) for batch_id in REQUESTS}


@pytest.fixture
def call(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{made[0]}/batches.db")
    monkeypatch.setenv("VIDEO_DIR", str(made[0] / "videos"))
    return lambda *arguments: CliRunner().invoke(app, arguments)


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_the_files_of_a_batch_are_named_as_output_names_them(call, made, tmp_path):
    result = call("fetch", "nature", "--output", "films")
    assert result.exit_code == 0, result.stderr
    assert names(tmp_path) == [
        "films/01-a-boat-take-1.mp4", "films/02-a-boat-take-2.mp4", "films/03-the-sea.mp4",
    ]  # fmt: skip
    assert result.stdout.split() == names(tmp_path)
    for job, name in zip(made[1]["nature"].jobs, names(tmp_path), strict=True):
        assert (tmp_path / name).read_bytes() == Path(job.video.path).read_bytes()
    assert "3 already there" in call("fetch", "nature", "--output", "films").stderr
    assert len(names(tmp_path)) == 3


def test_several_batches_and_a_pattern(call, tmp_path):
    result = call("fetch", "nature", "water", "-o", "films", "--filename", "{id} {metadata.shop}")
    assert (result.exit_code, "no video has 'shop'" in result.stderr) == (2, True)
    result = call("fetch", "nature", "water", "-o", "all", "--filename", "{id}/{prompt}", "--json")
    assert result.exit_code == 0
    assert names(tmp_path / "all") == [
        "nature-01/A boat.mp4", "nature-02/A boat.mp4", "nature-03/The sea.mp4", "water-01/A boat.mp4",
    ]  # fmt: skip
    reports = json.loads(result.stdout)
    assert [(report["batch_id"], len(report["files"]), report["problems"]) for report in reports] == [
        ("nature", 3, []), ("water", 1, []),
    ]  # fmt: skip


def test_without_a_folder_they_come_here(call, tmp_path):
    assert call("fetch", "water").stdout == "01-a-boat.mp4\n"
    assert names(tmp_path) == ["01-a-boat.mp4"]


def test_a_file_that_is_gone_is_named_and_the_rest_is_fetched(call, made, tmp_path):
    source = made[0] / "videos" / "nature"
    gone = next(source.glob("nature-02*"))
    kept = gone.read_bytes()
    gone.unlink()
    try:
        result = call("fetch", "nature", "--json")
    finally:
        gone.write_bytes(kept)
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert [problem["job_id"] for problem in report["problems"]] == ["nature-02"]
    assert "nature-02" in result.stderr
    assert len(report["files"]) == 2


def test_what_is_not_there_is_told(call, tmp_path):
    unknown = call("fetch", "nothing", "water")
    assert (unknown.exit_code, "nothing" in unknown.stderr) == (2, True)
    assert names(tmp_path) == ["01-a-boat.mp4"]
    unfinished = call("fetch", "later")
    assert (unfinished.exit_code, "1 video without a file" in unfinished.stderr) == (0, True)
    (tmp_path / "file").write_text("")
    assert "not writable" in call("fetch", "water", "-o", "file/films").stderr


def test_submit_fetches_only_what_it_watches(call):
    for arguments in (("--output", "films"), ("--watch", "--filename", "{id}")):
        result = call("submit", "-p", "A boat", *arguments)
        assert (result.exit_code, "--output" in result.stderr) == (2, True)


@pytest.mark.asyncio
async def test_the_library_names_them_as_the_store_does(made, tmp_path):
    folder, batches = made
    places = {"database_url": f"sqlite:///{folder}/batches.db", "video_dir": str(folder / "videos")}
    async with AsyncBatchService(Settings(_env_file=None, **places)) as service:
        report = await service.fetch("nature", tmp_path / "films")
        with pytest.raises(NotFound):
            await service.fetch("nothing", tmp_path)
    assert report.complete
    assert names(tmp_path / "films") == sorted(job.video.path.rpartition("/")[2] for job in batches["nature"].jobs)
