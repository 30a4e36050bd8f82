from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actors.cli import outputs
from actors.cli.outputs import OutputFolder, file_name
from actors.errors import InvalidRequest
from actors.model import Job


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


@pytest.mark.parametrize(("total", "name"), [(3, "02-a-sunset.mp4"), (100, "002-a-sunset.mp4")])
def test_the_number_is_as_wide_as_the_batch(total: int, name: str) -> None:
    assert file_name(2, total, "A sunset!", ".mp4") == name


def test_a_file_is_linked_under_its_readable_name(tmp_path: Path, folder: OutputFolder, finished: Job) -> None:
    folder.place(finished, 3)
    target = tmp_path / "films" / "01-a-sunset.mp4"
    assert folder.placed == {"nature-01": target}
    assert target.samefile(Path(finished.video.path if finished.video else ""))


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
def test_without_hard_links_it_is_copied(
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
    assert "can't be put into" in folder.problems["nature-01"]
    (tmp_path / "aside").rename(source)
    folder.place(finished, 3)
    assert not folder.problems


def test_what_has_no_file_is_passed_over(folder: OutputFolder, make_job: Callable[..., Job]) -> None:
    folder.place(make_job(1, "failed"), 3)
    assert not folder.placed


def test_a_folder_that_can_not_be_written_to_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidRequest, match="name another folder"):
        OutputFolder(tmp_path / "file").check()
    with pytest.raises(InvalidRequest, match="--output"):
        OutputFolder(tmp_path / "file" / "below").check()
