"""Where finished files lie, and that they are whole before they lie there."""

import hashlib
from io import FileIO

import pytest

from storage.videos import EXTENSIONS, VideoFolder, flush_folder


@pytest.fixture
def folder(tmp_path):
    return VideoFolder(tmp_path / "videos")


def written(part, *chunks):
    with part.open() as file:
        for chunk in chunks:
            part.write(file, chunk)
        part.flush(file)
    return part


def names(folder, batch_id="nature"):
    return sorted(path.name for path in folder.batch(batch_id).iterdir())


def test_a_file_is_written_aside_and_put_into_its_place(folder):
    part = written(folder.part("nature", "nature-01", 3), b"one", b"two")
    assert part.path == folder.root / "nature" / "nature-01.3.part"
    final = part.publish(".mp4")
    assert final == folder.root / "nature" / f"nature-01-{hashlib.sha256(b'onetwo').hexdigest()[:8]}.mp4"
    assert final.read_bytes() == b"onetwo"
    assert not part.path.exists()


def test_a_file_knows_its_size_its_sum_and_its_first_bytes(folder):
    part = written(folder.part("nature", "nature-01", 1), b"\0\0\0\x18ft", b"ypmp42", b"rest" * 999)
    data = b"\0\0\0\x18ftypmp42" + b"rest" * 999
    assert (part.bytes, part.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert part.head == data[:12]


def test_naming_a_part_makes_nothing(folder):
    folder.part("nature", "nature-01", 1)
    assert not folder.root.exists()


def test_writing_begins_anew_over_what_was_there(folder):
    written(folder.part("nature", "nature-01", 1), b"a longer first try")
    assert written(folder.part("nature", "nature-01", 1), b"short").publish(".mp4").read_bytes() == b"short"


def test_owners_of_different_epochs_do_not_write_into_one_file(folder):
    assert folder.part("nature", "nature-01", 1).path != folder.part("nature", "nature-01", 2).path


def test_a_file_that_is_made_again_replaces_none(folder):
    old = written(folder.part("nature", "nature-01", 1), b"old").publish(".mp4")
    new = written(folder.part("nature", "nature-01", 2), b"new").publish(".mp4")
    late = written(folder.part("nature", "nature-01", 1), b"old").publish(".mp4")
    assert (old.read_bytes(), new.read_bytes(), late) == (b"old", b"new", old)
    assert names(folder) == sorted([old.name, new.name])


def test_other_bytes_under_its_name_stay_and_it_gets_a_longer_one(folder):
    digest = hashlib.sha256(b"film").hexdigest()
    first = written(folder.part("nature", "nature-01", 1), b"film").publish(".mp4")
    first.write_bytes(b"damaged")
    again = written(folder.part("nature", "nature-01", 2), b"film").publish(".mp4")
    assert (first.read_bytes(), again.read_bytes()) == (b"damaged", b"film")
    assert names(folder) == [f"nature-01-{digest[:8]}.mp4", f"nature-01-{digest[:16]}.mp4"]


def test_a_discarded_part_is_gone_and_may_be_discarded_again(folder):
    part = written(folder.part("nature", "nature-01", 1), b"x")
    part.discard()
    part.discard()
    assert list(folder.batch("nature").iterdir()) == []


def test_what_is_discarded_while_it_is_made_is_not_left(folder, mocker):
    part = folder.part("nature", "nature-01", 1)
    make = mocker.patch("storage.videos.FileIO", side_effect=lambda *given: part.discard() or FileIO(*given))
    part.open().close()
    assert make.call_count == 2  # the first made the folder
    assert list(folder.batch("nature").iterdir()) == []


def test_discarding_after_publishing_leaves_the_file(folder):
    part = written(folder.part("nature", "nature-01", 1), b"x")
    final = part.publish(".webm")
    part.discard()
    assert final.exists()


def test_sweeping_removes_parts_and_nothing_else(folder):
    written(folder.part("nature", "nature-01", 1), b"x")
    final = written(folder.part("nature", "nature-02", 1), b"x").publish(".mp4")
    written(folder.part("other", "other-01", 1), b"x")
    folder.sweep("nature", 2)
    assert list(folder.batch("nature").iterdir()) == [final]
    assert len(list(folder.batch("other").iterdir())) == 1
    folder.sweep("nowhere", 2)


def test_a_late_sweep_leaves_what_a_newer_owner_writes(folder):
    newer = [written(folder.part("nature", f"nature-0{epoch}", epoch), b"x").path for epoch in (2, 3)]
    (folder.batch("nature") / "notes.part").write_bytes(b"somebody else's")
    folder.sweep("nature", 2)
    assert sorted(folder.batch("nature").iterdir()) == [*newer, folder.batch("nature") / "notes.part"]


def test_what_can_not_be_removed_keeps_nothing_else(folder, caplog):
    written(folder.part("nature", "nature-02", 1), b"x").publish(".mp4")
    (folder.batch("nature") / "nature-01.frames").mkdir()
    folder.clear("nature", {"nature-01", "nature-02"})
    assert [path.name for path in folder.batch("nature").iterdir()] == ["nature-01.frames"]
    assert "could not remove a file" in caplog.text


def test_clearing_removes_what_is_of_the_jobs_named_or_unfinished_and_nothing_else(folder):
    final = written(folder.part("nature", "nature-01", 1), b"x").publish(".mp4")
    written(folder.part("nature", "nature-02", 1), b"x").publish(".mp4")
    written(folder.part("nature", "nature-01", 2), b"x")
    theirs = folder.batch("nature") / "notes.txt"
    theirs.write_text("mine")
    folder.clear("nature", {"nature-02"})
    assert sorted(folder.batch("nature").iterdir()) == [final, theirs]
    folder.clear("nowhere", set())


def test_clearing_keeps_what_is_recorded_and_removes_the_same_jobs_other_files(folder):
    late = written(folder.part("nature", "nature-01", 1), b"late").publish(".mp4")
    kept = written(folder.part("nature", "nature-01", 2), b"kept").publish(".mp4")
    before = folder.batch("nature") / "nature-02.mp4"  # as versions before named it
    before.write_bytes(b"kept, too")
    theirs = folder.batch("nature") / "nature-01-final.mp4"
    theirs.write_bytes(b"a person's")
    folder.clear("nature", {"nature-01", "nature-02"}, {kept.name, before.name})
    assert names(folder) == sorted([kept.name, before.name, theirs.name])
    assert not late.exists()
    folder.clear("nature", {"nature-02"})
    assert names(folder) == sorted([kept.name, theirs.name])


def test_a_batchs_files_are_removed(folder):
    written(folder.part("nature", "nature-01", 1), b"x").publish(".mp4")
    folder.remove_batch("nature")
    folder.remove_batch("nature")
    assert list(folder.root.iterdir()) == []


def test_extensions_follow_the_content_type():
    assert (EXTENSIONS["video/mp4"], EXTENSIONS["video/x-msvideo"]) == (".mp4", ".avi")


def test_a_folder_is_made_and_tried_before_anything_is_paid_for(folder):
    marker = folder.prepare("mine")
    assert folder.prepare("another") == marker
    assert marker.database == "mine"
    assert [path.name for path in folder.root.iterdir()] == [".sora-batch"]


def test_a_folder_in_which_nothing_can_be_made_is_noticed(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        VideoFolder(tmp_path / "file" / "videos").prepare("mine")


def test_the_names_in_a_folder_can_be_flushed(folder):
    folder.prepare("mine")
    flush_folder(folder.root)
    with pytest.raises(FileNotFoundError):
        flush_folder(folder.root / "gone")
