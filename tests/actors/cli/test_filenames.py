from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from actors.batch.job_views import Job
from actors.batch.views import Batch
from actors.cli.filenames import FileNamePattern, file_name
from actors.cli.follow import Follower
from actors.cli.outputs import OutputFolder
from actors.cli.view import Show
from actors.errors import InvalidRequest


@pytest.mark.parametrize(("total", "name"), [(3, "02-a-sunset.mp4"), (100, "002-a-sunset.mp4")])
def test_the_number_is_as_wide_as_the_batch(total: int, name: str) -> None:
    assert file_name(2, total, "A sunset!", ".mp4") == name


@pytest.fixture
def job(make_job: Callable[..., Job]) -> Job:
    metadata = {
        "product": "Tea/cup",
        "shot": 7,
        "on": True,
        "a.b": "x",
        "dots": "../..",
        "long": "é" * 200,
        "none": None,
        "nul": "a\0b",
    }
    return make_job(3, prompt="A lake,\nat dawn", seed=41, take=2, metadata=metadata)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("{index:02} {metadata.product} take {take}", "03 Tea-cup take 2"), ("{id}", "nature-03"), ("{prompt}", "A lake, at dawn"),
        ("{prompt:.6}-{seed:6}", "A lake-    41"), ("{metadata.shot:03}", "007"), ("{metadata.on}", "true"), ("{metadata.product:03}", "Tea-cup"),
        ("{metadata.a.b}{{}}", "x{}"), ("{metadata.product}/{take}", "Tea-cup/2"), ("{metadata.dots}", "-.."),
        ("{metadata.gone}{metadata.none}", "video"), ("x{metadata.gone}", "x"), ("{metadata.nul}", "a b"), (".{take}", "2"),
        ("{metadata.long}{index}", "é" * 60 + "3"),
    ],
)  # fmt: skip
def test_a_pattern_names_a_file(job: Job, pattern: str, name: str) -> None:
    assert FileNamePattern(pattern).name(job, ".mp4") == f"{name}.mp4"


def test_no_part_of_a_name_is_longer_than_file_systems_take(job: Job, tmp_path: Path) -> None:
    name = FileNamePattern("{metadata.long}" * 4 + "/" + "x" * 300).name(job, ".mp4")
    assert [len(part.encode()) for part in name.split("/")] == [200, 204]
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_bytes(b"")


@pytest.mark.parametrize(
    ("pattern", "complaint"),
    [
        ("{}", "empty placeholder: use index, id, prompt, take, seed or metadata.KEY"),
        ("{:02}", "empty placeholder"), ("{0}", "unknown placeholder {0}: use index, id,"),
        ("{promt}", "unknown placeholder {promt}: did you mean {prompt}? use"), ("{metadata.}", "unknown placeholder {metadata.}"),
        ("{metadata}", "unknown placeholder {metadata}"), ("{video.path}", "unknown placeholder {video.path}"), ("{index", "expected '}'"),
        ("a}", "single '}'"), ("{index!r}", "{index!r}: give a width, such as {index:02}"), ("{id:{index}}", "give a width"),
        ("{prompt:.2000}", "give a width"), ("{prompt:999999999}", "give a width"), ("", "give a file name"), (" ", "give a file name"),
        ("/tmp/{id}", "below --output"), ("../{id}", "below --output"), ("a//b", "below --output"), ("{id}/", "below --output"),
        ("{metadata[a]}", "unknown placeholder"), ("{id.__class__}", "unknown placeholder"),
    ],
)  # fmt: skip
def test_a_pattern_that_is_none_is_refused_with_what_is_known(pattern: str, complaint: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        FileNamePattern(pattern)
    assert str(caught.value).startswith(f"--filename {pattern!r}: ")
    assert complaint in str(caught.value)


def test_metadata_that_no_video_has_is_refused() -> None:
    pattern = FileNamePattern("{metadata.a.b} {id} {metadata.c}")
    pattern.check_metadata(["c", "a.b"])
    with pytest.raises(InvalidRequest, match=r"no video has 'c' in its metadata: use a\.b, d"):
        pattern.check_metadata(["a.b", "d", "d"])
    with pytest.raises(InvalidRequest, match="their metadata is empty"):
        pattern.check_metadata([])


def finished(make_job: Callable[..., Job], folder: Path, index: int, content: bytes, **fields: object) -> Job:
    path = folder / f"stored-{index}.mp4"
    path.write_bytes(content)
    video = {"path": str(path), "bytes": len(content), "sha256": "0", "content_type": "video/mp4"}
    return make_job(index, "completed", video=video, **fields)


def test_two_jobs_with_the_same_name_have_a_file_each_also_the_second_time(
    make_job: Callable[..., Job], tmp_path: Path
) -> None:
    jobs = [finished(make_job, tmp_path, index, b"same" if index < 3 else b"other") for index in (1, 2, 3)]
    for _ in range(2):
        folder = OutputFolder(tmp_path / "films", FileNamePattern("all/film v1.5"))
        for job in jobs:
            folder.place(job, 3)
        assert not folder.problems
        assert [path.relative_to(tmp_path / "films").as_posix() for path in folder.placed.values()] == [
            "all/film v1.5.mp4", "all/film v1.5-2.mp4", "all/film v1.5-3.mp4",
        ]  # fmt: skip
    assert len(list((tmp_path / "films" / "all").iterdir())) == 3


def test_the_takes_of_a_request_have_numbers_in_a_row_and_their_own_in_the_name(
    make_job: Callable[..., Job], make_batch: Callable[..., Batch], tmp_path: Path
) -> None:
    takes = [("A lake", 1), ("A lake", 2), ("A sea", 1), ("A lake", 1), ("A lake", 2)]
    jobs = [
        finished(make_job, tmp_path, number, b"%d" % number, prompt=prompt, take=take)
        for number, (prompt, take) in enumerate(takes, 1)
    ]
    folder = OutputFolder(tmp_path / "films")
    folder.check()
    asks_nothing = SimpleNamespace(stores=None)
    Follower(asks_nothing, Show(), folder)._deliver(make_batch(*jobs))  # type: ignore[arg-type]
    names = sorted(path.name for path in (tmp_path / "films").iterdir())
    assert names == [
        "01-a-lake-take-1.mp4", "02-a-lake-take-2.mp4", "03-a-sea.mp4", "04-a-lake-take-1.mp4", "05-a-lake-take-2.mp4",
    ]  # fmt: skip
