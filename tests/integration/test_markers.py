"""A store shows whose it is: processes of one database that put files into different ones are told, and so is doctor."""

from collections.abc import Callable
from pathlib import Path

import pytest

from actors.cli.checks import video_dir
from actors.service import BatchService
from storage.videos import MARKER, Marker, mark_folder, marker_in
from tests.integration.support import PATIENCE, until, videos

pytestmark = pytest.mark.integration
Start = Callable[..., BatchService]


def said(caplog: pytest.LogCaptureFixture, action: str) -> list[str]:
    return [record.error for record in caplog.records if getattr(record, "action", "") == action]  # type: ignore[attr-defined]


def test_a_folder_keeps_the_marker_of_the_database_that_used_it_first(
    service: BatchService, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    service.create_batch(videos("a lake", id="b"))
    service.process_batch("b").result(PATIENCE)
    marker = marker_in(tmp_path / "videos")
    assert marker is not None
    assert marker.database == service._read(service._storage.stores.database_id)
    assert mark_folder(tmp_path / "videos", "another") == marker
    assert said(caplog, "foreign_store") == []
    assert [path.name for path in (tmp_path / "videos").iterdir() if path.is_file()] == [MARKER]


@pytest.mark.parametrize("content", [b"", b"x" * 1000, b"[]", b'{"database": 1}', b"\xff\xfe"])
def test_a_damaged_marker_is_replaced(tmp_path: Path, content: bytes) -> None:
    (tmp_path / MARKER).write_bytes(content)
    assert mark_folder(tmp_path, "mine").database == "mine"
    assert Marker.parse((tmp_path / MARKER).read_bytes()) == marker_in(tmp_path)


def test_a_folder_of_another_database_is_named_with_the_way_out(
    start_service: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    mark_folder(folder, "another")
    service = start_service()
    service.create_batch(videos("a lake", id="b"))
    assert service.process_batch("b").result(PATIENCE).status == "completed"
    words = f"{folder} has the files of another database: give each database a store of its own, or remove the marker"
    assert [text.startswith(words) for text in said(caplog, "foreign_store")] == [True]
    assert words in video_dir(service.settings).message
    assert video_dir(service.settings).ok


def test_processes_of_one_database_that_use_different_folders_are_told(
    start_service: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = start_service(), start_service(video_dir=str(tmp_path / "elsewhere"))
    one.serve()
    until(lambda: one._read(one._storage.stores.of_living))
    assert said(caplog, "stores_differ") == []
    two.serve()
    (text,) = until(lambda: said(caplog, "stores_differ"))
    assert text.startswith("processes of this database put files into different stores: here ")
    assert str(tmp_path / "videos") in text
    assert "set VIDEO_DIR or VIDEO_STORE to the same store for all of them" in text
    until(lambda: len(one._read(one._storage.stores.of_living)) == 2)
    for service in (one, two):
        assert "put files into different stores" in video_dir(service.settings).message
    two.close()
    until(lambda: "different stores" not in video_dir(one.settings).message)


def test_one_folder_by_two_paths_is_one_store(
    start_service: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "mounted").symlink_to(tmp_path / "videos")
    one, two = start_service(), start_service(video_dir=str(tmp_path / "mounted"))
    one.serve()
    two.serve()
    until(lambda: len(one._read(one._storage.stores.of_living)) == 2)
    assert said(caplog, "stores_differ") == []
    assert "different" not in video_dir(two.settings).message
