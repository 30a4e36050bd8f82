"""`sora-batch sheet`: one picture of a batch, from its real files."""

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from actors.cli.app import app
from actors.media import frames
from actors.service import BatchService
from actors.settings import Settings
from actors.simulator import SimulatorOptions
from tests.servers.simulator import simulator_in_thread

VIDEOS = [
    {"prompt": "A boat", "seconds": 1, "size": "64x64", "takes": 2},
    {"prompt": "The sea", "seconds": 1, "size": "64x64"},
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    places = {"database_url": f"sqlite:///{folder}/batches.db", "video_dir": str(folder / "videos")}
    with (
        simulator_in_thread(SimulatorOptions(latency=(0.0, 0.05))) as (_, url),
        BatchService(Settings(_env_file=None, openai_base_url=url, sora_poll_interval="20", **places)) as service,
    ):
        service.create_batch({"id": "nature", "videos": VIDEOS})
        batch = service.process_batch("nature").result(60)
    return folder, batch


@pytest.fixture
def call(made, tmp_path, monkeypatch):
    folder, _ = made
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{folder}/batches.db")
    monkeypatch.setenv("VIDEO_DIR", str(folder / "videos"))
    return lambda *arguments: CliRunner().invoke(app, arguments)


def test_a_batch_becomes_one_picture(call, tmp_path):
    result = call("sheet", "nature")
    assert (result.exit_code, result.stdout) == (0, "nature-sheet.png\n"), result.stderr
    with Image.open(tmp_path / "nature-sheet.png") as image:
        assert image.format == "PNG"
        image.load()
    assert [path.name for path in tmp_path.iterdir()] == ["nature-sheet.png"]


def test_the_suffix_says_the_kind_and_json_the_files(call, tmp_path):
    result = call("sheet", "nature", "-o", "sheets.webp", "--json")
    assert json.loads(result.stdout) == {"batch_id": "nature", "files": ["sheets.webp"], "videos": 3, "pages": 1}
    with Image.open(tmp_path / "sheets.webp") as image:
        assert image.format == "WEBP"


def test_a_file_that_is_gone_is_told_in_its_tile(call, made, tmp_path):
    path = Path(made[1].jobs[0].video.path)
    kept = path.read_bytes()
    path.unlink()
    try:
        assert call("sheet", "nature", "-o", "one.png").exit_code == 0
    finally:
        path.write_bytes(kept)
    assert call("sheet", "nature", "-o", "two.png").exit_code == 0
    assert (tmp_path / "one.png").read_bytes() != (tmp_path / "two.png").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("nothing",), "nothing"),
        (("nature", "-o", "sheet.gif"), "must end with .png"),
        (("nature", "-o", "no/such/folder/sheet.png"), "can't write"),
        (("nature", "--page", "2"), "page: must be from 1 to 1"),
    ],
)
def test_what_can_not_be_drawn_is_told(call, arguments, told, tmp_path):
    result = call("sheet", *arguments)
    assert (result.exit_code, told in result.stderr) == (2, True), result.stderr
    assert list(tmp_path.iterdir()) == []


def test_without_the_extra_the_way_to_it_is_told(call, monkeypatch):
    monkeypatch.setattr(frames.importlib.util, "find_spec", lambda name: None)
    result = call("sheet", "nature")
    assert (result.exit_code, "pip install 'sora-batch[media]'" in result.stderr) == (2, True)
