"""A disk that is full, read-only or damaged: what can pass is waited for, what can't ends with a sentence."""

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from io import FileIO
from pathlib import Path
from typing import Any

import pytest
from pytest_mock import MockerFixture

from actors.errors import SoraBatchError, StorageError
from actors.service import BatchService
from storage.videos import PartFile
from tests.integration.support import (
    PATIENCE,
    ROOT,
    check_files,
    check_journal,
    check_paid_once,
    numbered,
    rows,
    settings_from,
    until,
    videos,
)
from tests.provider.client import Provider

pytestmark = pytest.mark.integration

Start = Callable[..., BatchService]
Options = Callable[..., dict[str, Any]]
_DAC_OVERRIDE, _CAPBSET_DROP = 1, 24
ORDINARY = f"""
import ctypes, os, sys
ctypes.CDLL(None).prctl({_CAPBSET_DROP}, {_DAC_OVERRIDE}, 0, 0, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
"""Runs Python as a user for whom a read-only folder is read-only: root writes wherever it likes. (Others are refused
the call, and need none.)"""


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is logged of it is what these tests are about."""
    caplog.set_level("CRITICAL")
    monkeypatch.setattr("actors.video.setbacks._LONGEST_BACKOFF", 0.05)


def generating(service: BatchService, count: int) -> Callable[[], bool]:
    return lambda: sum(job.status == "generating" for job in service.get_batch_status("b").jobs) == count


def sora_batch(options: dict[str, Any], folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Call the command line, as a user who is not root."""
    settings = {name.upper(): str(value) for name, value in options.items()}
    return subprocess.run(
        [sys.executable, "-c", ORDINARY, "-m", "actors.cli", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT), **settings},
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def told_in_a_sentence(done: subprocess.CompletedProcess[str]) -> str:
    """What the command line said of an error of configuration: one line, and no more."""
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert done.stderr.startswith("sora-batch: ")
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


# --- no room for the database


class Full:
    """A database that may not grow: SQLite itself says that it is full, to every connection."""

    def __init__(self, service: BatchService) -> None:
        database, self._service = service._database, service
        # Whatever is free inside its pages is taken, so that the next step finds no room.
        self._pragmas = database.peewee._pragmas

        def fill() -> None:
            (pages,) = database.execute("PRAGMA page_count").fetchone()
            self._pragmas.append(("max_page_count", pages))
            database.execute(f"PRAGMA max_page_count = {pages}")

        service._recorder.read(fill).result(PATIENCE)

    def found(self) -> bool:
        return self._service._recorder.away is not None

    def make_room(self) -> None:
        """As root's `rm` would: the next connection may write again."""
        self._pragmas.pop()


def check_no_post_without_its_intent(provider: Provider, folder: Path) -> None:
    intended = {prompt for (prompt,) in rows(folder, "SELECT prompt FROM jobs JOIN submissions ON job_id = jobs.id")}
    assert {post["prompt"] for post in provider.ledger()["posts"]} <= intended


def test_a_batch_goes_on_when_there_is_room_for_its_records_again(
    provider: Provider, service: BatchService, tmp_path: Path
) -> None:
    provider.hold()
    service.create_batch(videos(*numbered(8), id="b", concurrency=2))
    running = service.process_batch("b")
    until(generating(service, 2))
    full = Full(service)
    provider.release("videos")
    until(full.found)
    wait = service.waits("b")[""]
    assert str(tmp_path / "batches.db") in wait.reason
    assert "full; free space on its disk" in wait.reason
    assert service.get_batch_status("b").status == "processing"  # it is read all the same
    check_no_post_without_its_intent(provider, tmp_path)
    full.make_room()
    final = running.result(PATIENCE)
    assert final.status == "completed"
    assert service.waits("b") == {}
    assert set(check_paid_once(provider, limit=2)["posts_per_prompt"].values()) == {1}
    check_files(final, provider)
    check_journal(service, "b")


def test_a_post_that_is_answered_while_there_is_no_room_is_bound(provider: Provider, service: BatchService) -> None:
    provider.fault(on="create", do="hang", accept=True, times=2)
    service.create_batch(videos(*numbered(6), id="b", concurrency=2))
    running = service.process_batch("b")
    provider.wait(hanging=2)
    full = Full(service)
    provider.release("requests")
    provider.wait(answered=2)
    until(full.found)
    full.make_room()
    final = running.result(PATIENCE)
    assert final.status == "completed"
    summary = check_paid_once(provider, limit=2)
    assert set(summary["posts_per_prompt"].values()) == {1}
    assert "list" not in summary["requests"]
    check_journal(service, "b")


def test_a_batch_that_finds_no_room_is_not_created(
    service: BatchService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.service.opening.ANSWER_SECONDS", 0.2)
    full, request = Full(service), videos("a cat", id="b", metadata={"notes": "x" * 60_000})
    with pytest.raises(StorageError, match="free space on its disk") as caught:
        service.create_batch(request)
    assert caught.value.code == "storage"
    assert rows(tmp_path, "SELECT id FROM batches") == []
    full.make_room()
    assert service.create_batch(request).status == "pending"


# --- no room for the videos


class NoRoom:
    """The disk takes a part of each file and no more, for the reason that the kernel has, until there is room."""

    def __init__(self, mocker: MockerFixture, reason: int = errno.ENOSPC, method: str = "write") -> None:
        self.full, self.refused = True, 0
        original = getattr(PartFile, method)

        def taking(part: PartFile, file: FileIO, *chunks: bytes) -> None:
            if self.full:
                self.refused += 1
                file.write(b"a part")
                if reason != errno.ENOSPC:
                    raise OSError(reason, os.strerror(reason))
                with FileIO("/dev/full", "w") as device:  # what it says is what a full disk says
                    device.write(b"the rest")
            original(part, file, *chunks)

        mocker.patch.object(PartFile, method, taking)


def parts(folder: Path) -> list[Path]:
    return list((folder / "videos").rglob("*.part"))


@pytest.mark.parametrize("method", ["write", "flush"])
@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EDQUOT, errno.EROFS], ids=os.strerror)
def test_a_video_waits_for_room(
    reason: int, method: str, provider: Provider, service: BatchService, mocker: MockerFixture, tmp_path: Path
) -> None:
    disk = NoRoom(mocker, reason, method)
    service.create_batch(videos(*numbered(3), id="b", concurrency=2))
    running = service.process_batch("b")
    until(lambda: disk.refused > 12)  # more often than a broken download is tried again
    wait = until(lambda: service.waits("b").get("b-01"))
    assert f"can't be written to {tmp_path}/videos/b: {os.strerror(reason)}" in wait.reason
    until(lambda: parts(tmp_path) == [])  # each gives back what it took before it waits
    batch = service.get_batch_status("b")
    assert [job.status for job in batch.jobs] == ["downloading", "downloading", "pending"]
    assert batch.progress.completed == 0
    disk.full = False
    final = running.result(PATIENCE)
    assert final.status == "completed"
    check_files(final, provider)
    assert set(check_paid_once(provider, limit=2)["posts_per_prompt"].values()) == {1}
    check_journal(service, "b")


def test_a_disk_that_stays_full_fails_the_video_and_a_retry_fetches_it(
    provider: Provider, start_service: Start, mocker: MockerFixture, tmp_path: Path
) -> None:
    disk = NoRoom(mocker)
    service = start_service(sora_video_timeout=3000)
    service.create_batch(videos(*numbered(2), id="b"))
    failed = service.process_batch("b").result(PATIENCE)
    assert failed.status == "failed"
    for job in failed.jobs:
        assert job.remote_id
        assert job.error is not None
        assert (job.error.code, job.error.retryable) == ("storage", True)
        assert f"{tmp_path}/videos/b: No space left on device; " in job.error.message
        assert "SORA_VIDEO_TIMEOUT" in job.error.message
    assert parts(tmp_path) == []
    disk.full = False
    final = service.retry_batch("b").result(PATIENCE)
    assert final.status == "completed"
    check_files(final, provider)
    assert set(check_paid_once(provider)["posts_per_prompt"].values()) == {1}


def test_a_batch_that_waits_for_room_is_cancelled_at_once(
    provider: Provider, service: BatchService, mocker: MockerFixture, tmp_path: Path
) -> None:
    disk = NoRoom(mocker)
    service.create_batch(videos(*numbered(2), id="b"))
    running = service.process_batch("b")
    until(lambda: disk.refused >= 2)
    service.cancel_batch("b")
    assert running.result(PATIENCE).status == "cancelled"
    until(lambda: parts(tmp_path) == [])
    assert provider.summary()["posts"] == 2


@pytest.mark.parametrize("reason", [errno.EACCES, errno.EIO, errno.EFBIG], ids=os.strerror)
def test_what_does_not_pass_by_itself_is_not_waited_for(
    reason: int, provider: Provider, service: BatchService, mocker: MockerFixture, tmp_path: Path
) -> None:
    disk = NoRoom(mocker, reason)
    service.create_batch(videos("a cat", id="b"))
    (job,) = service.process_batch("b").result(PATIENCE).jobs
    assert job.error is not None
    assert (job.error.code, disk.refused) == ("storage", 1)
    assert parts(tmp_path) == []


# --- both, on a disk of their own, where one may be had


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if (
        os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], check=False).returncode
    ):
        pytest.skip("only who may mount has a disk to fill")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(disk: Path) -> Path:
    """Take all the room that there is."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(b"\0" * 4096):
            pass
    assert shutil.disk_usage(disk).free == 0
    return ballast


def test_a_real_disk_that_is_full_is_waited_for(provider: Provider, options: Options, disk: Path) -> None:
    provider.hold()
    with BatchService(
        settings_from(options(database_url=f"sqlite:///{disk}/batches.db", video_dir=str(disk)))
    ) as service:
        service.create_batch(videos(*numbered(4), id="b", concurrency=2))
        running = service.process_batch("b")
        until(generating(service, 2))
        ballast = fill(disk)
        provider.release("videos")
        assert "free space on its disk" in until(lambda: service.waits("b").get("")).reason
        check_no_post_without_its_intent(provider, disk)
        ballast.unlink()
        final = running.result(PATIENCE)
        assert final.status == "completed"
        assert set(check_paid_once(provider, limit=2)["posts_per_prompt"].values()) == {1}
        check_files(final, provider)
        check_journal(service, "b")


# --- a damaged database


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"no database" * 10)


def checkpoint(folder: Path) -> Path:
    """Have all that is recorded in the database's file itself."""
    connection = sqlite3.connect(folder / "batches.db")
    assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    connection.close()
    return folder / "batches.db"


@pytest.mark.parametrize("damage", [cut, overwrite])
@pytest.mark.parametrize("words", [("status", "b"), ("list",), ("run", "-p", "a dog"), ("resume",)], ids=" ".join)
def test_a_damaged_database_is_named_and_left_alone(
    words: tuple[str, ...],
    damage: Callable[[Path], None],
    provider: Provider,
    options: Options,
    tmp_path: Path,
) -> None:
    with BatchService(settings_from(options())) as service:
        service.create_batch(videos(*numbered(10), id="b"))
    path = tmp_path / "batches.db"
    damage(path)
    found = path.read_bytes()
    sentence = told_in_a_sentence(sora_batch(options(), tmp_path, *words))
    assert f"the database {path} can't be used: " in sentence
    assert "is damaged or not a SQLite database: restore it, or set DATABASE_URL to another file" in sentence
    assert path.read_bytes() == found
    assert provider.summary()["posts"] == 0


def test_a_database_that_is_damaged_while_it_is_used_ends_the_batch_and_once_restored_it_goes_on(
    provider: Provider, start_service: Start, tmp_path: Path
) -> None:
    service = start_service()
    provider.hold()
    for number in range(20):  # so that half of the file is more than the first tables
        service.create_batch(videos(*numbered(10), id=f"filling-{number}"))
    service.create_batch(videos(*numbered(4), id="b", concurrency=2))
    running = service.process_batch("b")
    until(generating(service, 2))
    path = checkpoint(tmp_path)
    shutil.copy(path, tmp_path / "backup.db")
    cut(path)
    provider.release("videos")
    with pytest.raises(SoraBatchError, match=f"the database {path} can't be used: .* the file is damaged"):
        running.result(PATIENCE)
    with pytest.raises(StorageError, match="the file is damaged"):
        service.get_batch_status("b")
    service.close()
    for old in tmp_path.glob("batches.db*"):
        old.unlink()
    shutil.copy(tmp_path / "backup.db", path)
    with closing(sqlite3.connect(path)) as restored, restored:
        restored.execute("UPDATE owners SET lease_until = 0")  # its owner is this very process, and would be waited for
    heir = start_service()
    (resumed,) = heir.resume_batches(["b"])
    final = resumed.result(PATIENCE)
    assert final.status == "completed"
    check_files(final, provider)
    assert set(check_paid_once(provider, limit=2)["posts_per_prompt"].values()) == {1}


# --- what may not be written


@pytest.fixture
def read_only() -> Iterator[Callable[[Path], Path]]:
    """Make a file or a folder read-only until the test has ended."""
    made: list[Path] = []

    def make(path: Path) -> Path:
        path.chmod(path.stat().st_mode & ~0o222)
        made.append(path)
        return path

    yield make
    for path in made:
        path.chmod(path.stat().st_mode | 0o200)


@pytest.mark.parametrize("words", [("status", "b"), ("run", "-p", "a dog"), ("resume",)], ids=" ".join)
@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_database_that_may_not_be_written_is_named(
    what: str,
    words: tuple[str, ...],
    provider: Provider,
    options: Options,
    tmp_path: Path,
    read_only: Callable[[Path], Path],
) -> None:
    folder = tmp_path / "records"
    folder.mkdir()
    here = options(database_url=f"sqlite:///{folder}/batches.db")
    with BatchService(settings_from(here)) as service:
        service.create_batch(videos("a cat", id="b"))
    place = read_only(folder if what == "folder" else folder / "batches.db")
    sentence = told_in_a_sentence(sora_batch(here, tmp_path, *words))
    assert f"the database {folder}/batches.db can't be used: the {what} {place} is not writable" in sentence
    assert provider.summary()["posts"] == 0


def test_a_folder_that_takes_no_videos_is_named_before_anything_is_paid(
    provider: Provider, options: Options, tmp_path: Path, read_only: Callable[[Path], Path]
) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    read_only(folder)
    done = sora_batch(options(), tmp_path, "run", "-p", "a dog", "--quiet")
    sentence = told_in_a_sentence(done)
    assert f"VIDEO_DIR={str(folder)!r}: videos can't be written to {folder}: Permission denied" in sentence
    assert provider.summary()["posts"] == 0
