"""A file is had by its recorded address, whichever store it is in."""

from datetime import timedelta
from pathlib import Path

import pytest

from storage.stores import Stores, path_of, uri_of


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    return Stores(str(tmp_path / "videos"))


@pytest.fixture
def uri(tmp_path: Path) -> str:
    """Of a file beside the folder, under a name that has to be escaped."""
    path = tmp_path / "moved" / "ü 100%#1?.mp4"
    path.parent.mkdir()
    path.write_bytes(bytes(range(256)) * 9000)
    return path.as_uri()


def test_an_address_leads_back_to_its_path(tmp_path: Path, uri: str) -> None:
    assert path_of(uri) == tmp_path / "moved" / "ü 100%#1?.mp4"
    assert uri_of({"path": str(path_of(uri))}) == uri
    assert uri_of({"path": "/elsewhere", "uri": uri}) == uri


@pytest.mark.parametrize(("start", "end"), [(0, None), (0, 10), (250, 1_500_000), (2_303_990, None), (5, 5), (0, 9**9)])
def test_a_file_is_read_in_pieces_and_in_part(stores: Stores, uri: str, start: int, end: int | None) -> None:
    pieces = list(stores.read(uri, start, end))
    assert b"".join(pieces) == path_of(uri).read_bytes()[start:end]
    assert all(0 < len(piece) <= 1 << 20 for piece in pieces)


def test_a_file_that_is_not_there_is_noticed_before_anything_is_read(stores: Stores, uri: str) -> None:
    path_of(uri).unlink()
    with pytest.raises(FileNotFoundError):
        stores.read(uri)
    assert stores.size(uri) is None
    assert stores.size(f"{uri}/below") is None


def test_a_file_is_measured_and_removed_once(stores: Stores, uri: str) -> None:
    assert stores.size(uri) == 256 * 9000
    stores.remove(uri)
    stores.remove(uri)
    assert stores.size(uri) is None
    path_of(uri).parent.rmdir()
    stores.remove(uri)


def test_no_url_leads_into_a_folder(stores: Stores, uri: str) -> None:
    assert stores.presigned(uri, timedelta(hours=1)) is None
