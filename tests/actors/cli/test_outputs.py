from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actors.batch.job_views import Job
from actors.cli import outputs
from actors.cli.outputs import OutputFolder
from actors.errors import InvalidRequest


@pytest.fixture
def finished(tmp_path: Path, make_job: Callable[..., Job]) -> Job:
    """A completed job whose file is there."""
    source = tmp_path / "stored" / "nature-01.mp4"
    source.parent.mkdir()
    source.write_bytes(b"film")
    video = {"path": str(source), "bytes": 4, "sha256": "0", "content_type": "video/mp4"}
    return make_job(1, "completed", prompt="A sunset", video=video)


@pytest.fixture
def folder(tmp_path: Path) -> OutputFolder:
    folder = OutputFolder(tmp_path / "films")
    folder.check()
    return folder


def stored(tmp_path: Path) -> Path:
    return tmp_path / "stored" / "nature-01.mp4"


def test_a_file_is_copied_under_its_readable_name(tmp_path: Path, folder: OutputFolder, finished: Job) -> None:
    folder.place(finished, 3)
    target = tmp_path / "films" / "01-a-sunset.mp4"
    assert folder.placed == {"nature-01": target}
    assert target.read_bytes() == b"film"
    assert [path.name for path in target.parent.iterdir()] == ["01-a-sunset.mp4"]


def test_what_is_done_to_the_copy_is_not_done_to_the_stored_file(
    tmp_path: Path, folder: OutputFolder, finished: Job
) -> None:
    folder.place(finished, 3)
    with folder.placed["nature-01"].open("r+b") as file:
        file.truncate(0)
    assert stored(tmp_path).read_bytes() == b"film"


def test_a_hard_link_of_an_earlier_version_becomes_a_copy(tmp_path: Path, folder: OutputFolder, finished: Job) -> None:
    target = tmp_path / "films" / "01-a-sunset.mp4"
    target.hardlink_to(stored(tmp_path))
    folder.place(finished, 3)
    assert folder.placed == {"nature-01": target}
    assert (target.read_bytes(), stored(tmp_path).stat().st_nlink) == (b"film", 1)


def test_a_name_that_can_not_be_written_is_told(tmp_path: Path, finished: Job) -> None:
    folder = OutputFolder(tmp_path / "\ud800")
    folder.place(finished, 3)
    assert "can't copy" in folder.problems["nature-01"]


def test_placing_again_changes_nothing(tmp_path: Path, folder: OutputFolder, finished: Job) -> None:
    folder.place(finished, 3)
    folder.place(finished, 3)
    again = OutputFolder(tmp_path / "films")
    again.place(finished, 3)
    assert [path.name for path in (tmp_path / "films").iterdir()] == ["01-a-sunset.mp4"]


def test_what_somebody_else_has_there_is_left_alone(tmp_path: Path, folder: OutputFolder, finished: Job) -> None:
    theirs = tmp_path / "films" / "01-a-sunset.mp4"
    theirs.write_bytes(b"theirs")
    folder.place(finished, 3)
    assert theirs.read_bytes() == b"theirs"
    assert folder.placed["nature-01"].name == "01-a-sunset-2.mp4"


@pytest.mark.parametrize("taken", [False, True])
def test_without_hard_links_nothing_is_overwritten_either(
    tmp_path: Path, folder: OutputFolder, finished: Job, monkeypatch: pytest.MonkeyPatch, taken: bool
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(outputs.os, "link", refuse)
    if taken:
        (tmp_path / "films" / "01-a-sunset.mp4").write_bytes(b"theirs")
    folder.place(finished, 3)
    assert folder.placed["nature-01"].read_bytes() == b"film"
    assert folder.placed["nature-01"].name == ("01-a-sunset-2.mp4" if taken else "01-a-sunset.mp4")
    assert not list((tmp_path / "films").glob("*.part"))
    assert not list((tmp_path / "films").glob(".*"))


def test_a_file_that_can_not_be_put_there_is_told_and_tried_again(
    folder: OutputFolder, finished: Job, tmp_path: Path
) -> None:
    source = tmp_path / "stored" / "nature-01.mp4"
    source.rename(tmp_path / "aside")
    folder.place(finished, 3)
    assert "can't copy" in folder.problems["nature-01"]
    (tmp_path / "aside").rename(source)
    folder.place(finished, 3)
    assert not folder.problems


@pytest.mark.usefixtures("server")
def test_a_prompt_that_the_locale_can_not_write_ends_no_batch(home: Path) -> None:
    (home / "prompts.txt").write_text("富士山 at dawn\n富士山\nA lake\n", encoding="utf-8")
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "actors.cli", "run", "prompts.txt", "--output", "films"]
    result = subprocess.run(command, env=os.environ | ascii_only, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "3 of 3 videos" in result.stdout
    names = sorted(path.name for path in (home / "films").iterdir())
    assert names == ["01-at-dawn.mp4", "02-video.mp4", "03-a-lake.mp4"]


def test_what_has_no_file_is_passed_over(folder: OutputFolder, make_job: Callable[..., Job]) -> None:
    folder.place(make_job(1, "failed"), 3)
    assert not folder.placed


def test_a_folder_that_can_not_be_written_to_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidRequest, match="name another folder"):
        OutputFolder(tmp_path / "file").check()
    with pytest.raises(InvalidRequest, match="--output"):
        OutputFolder(tmp_path / "file" / "below").check()
