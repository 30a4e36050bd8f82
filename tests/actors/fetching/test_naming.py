"""Names of fetched files where a file system has rules of its own."""

import errno
import os
import tempfile
from pathlib import Path

import pytest

from actors.cli.filenames import FileNamePattern
from actors.cli.outputs import OutputFolder
from actors.fetching.fetch import Fetcher
from actors.fetching.naming import Taken, allowed, portable
from actors.settings import Settings
from storage.stores import Stores
from tests.actors.fetching.test_fetch import made, video


@pytest.fixture
def three(tmp_path):
    """A batch of three videos with the same bytes."""
    (tmp_path / "videos").mkdir()
    stored = [tmp_path / "videos" / f"{number}.mp4" for number in (1, 2, 3)]
    for path in stored:
        path.write_bytes(b"the same")
    return made(*(video(path.as_uri(), b"the same", path=str(path)) for path in stored))


@pytest.fixture
def spelled(tmp_path, three):
    """The same batch, and a folder where `b/...` is another spelling of `a/...`."""
    (tmp_path / "films" / "a").mkdir(parents=True)
    (tmp_path / "films" / "b").symlink_to("a")
    prompts = ("a", "b", "b")
    jobs = [job.model_copy(update={"prompt": prompt}) for job, prompt in zip(three.jobs, prompts, strict=True)]
    return three.model_copy(update={"jobs": jobs})


def test_a_file_with_two_spellings_is_one_jobs_of_a_fetch(spelled, tmp_path):
    for _ in range(2):
        fetcher = Fetcher(tmp_path / "films", Settings(_env_file=None), Stores(str(tmp_path / "videos")))
        report = fetcher.fetch(spelled, name_of=lambda job: f"{job.prompt}/film.mp4")
        assert len({Path(file.path).stat().st_ino for file in report.files}) == 3
    assert {path.name for path in (tmp_path / "films" / "a").iterdir()} == {"film-2.mp4", "film-3.mp4", "film.mp4"}


def test_a_file_with_two_spellings_is_one_jobs_of_a_run(spelled, tmp_path):
    for _ in range(2):
        folder = OutputFolder(tmp_path / "films", FileNamePattern("{prompt}/film"))
        for job in spelled.jobs:
            folder.place(job, 3)
        assert len({path.stat().st_ino for path in folder.placed.values()}) == 3
    assert {path.name for path in (tmp_path / "films" / "a").iterdir()} == {"film-2.mp4", "film-3.mp4", "film.mp4"}


def test_files_that_the_user_has_linked_are_two_files(tmp_path):
    one, two, taken = tmp_path / "film.mp4", tmp_path / "film-2.mp4", Taken()
    one.write_bytes(b"the same")
    two.hardlink_to(one)
    taken.add(one)
    assert (one in taken, two in taken, tmp_path / "none" in taken) == (True, False, False)


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("a lake.mp4", "a lake.mp4"), ('What? "a:b" <x|y>*\\.mp4', "What- -a-b- -x-y---.mp4"), ("a./b /c.mp4", "a/b/c.mp4"),
        ("con.mp4", "con-.mp4"), ("AUX.tar.mp4", "AUX-.tar.mp4"), ("lpt9 .mp4", "lpt9- .mp4"), ("com1/x.mp4", "com1-/x.mp4"),
        ("console.mp4", "console.mp4"), ("com10.mp4", "com10.mp4"), ("été.mp4", "été.mp4"), ("?/x.mp4", "-/x.mp4"), ("./x.mp4", "-/x.mp4"),
    ],
)  # fmt: skip
def test_a_portable_name_is_one_that_windows_takes(name, written):
    assert portable(name) == written
    assert portable(written) == written


def test_names_are_made_portable_only_where_they_must_be(tmp_path, monkeypatch):
    assert allowed("a: b?.mp4", tmp_path) == "a: b?.mp4"
    assert list(tmp_path.iterdir()) == []
    refusal = errno.EINVAL

    def refuse(**_):
        raise OSError(refusal, os.strerror(refusal))

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", refuse)  # as NTFS and FAT do
    assert allowed("a: b?.mp4", tmp_path) == "a- b-.mp4"
    refusal = errno.ENOSPC
    with pytest.raises(OSError, match="No space"):
        allowed("a: b?.mp4", tmp_path)
    assert allowed("plain.mp4", tmp_path) == "plain.mp4"
