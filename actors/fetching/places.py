"""Where a fetched file is put: written aside, checked, flushed, and then given its name. No other file is replaced."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from actors.batch.job_views import Job, VideoFile
from actors.errors import InvalidRequest, StorageError
from storage.videos import EXTENSIONS, flush_folder

_PIECE = 1 << 20
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")


def stored_name(job: Job) -> str:
    """The name that a file has in its store, whoever tells of it: made of harmless characters, and not hidden."""
    assert job.video is not None
    told = PurePosixPath(unquote(urlsplit(job.video.uri).path)).stem
    return (_UNSAFE.sub("-", told).lstrip(".-") or job.id) + extension_of(job.video)


def extension_of(video: VideoFile) -> str:
    """The extension that fits a file's type."""
    return EXTENSIONS.get(video.content_type, ".bin")


def fetched_again(job: Job) -> str:
    """What brings a file back that is gone."""
    return f"`sora-batch retry {job.id.rpartition('-')[0]} --missing` fetches it again, if the server still has it"


def prepare(folder: Path) -> None:
    """Create a folder, and check that files can be written there.

    Raises:
        InvalidRequest: they can't.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidRequest(f"the folder {str(folder)!r} is not writable: {reason}; name another one") from None


class CantWrite(StorageError):
    """The folder takes no more."""


class Incoming:
    """The bytes of a file as they come. What an interrupted fetch has left is gone on with.

    Its part is locked: who fetches the same file at the same time writes a part of its own.
    """

    def __init__(self, path: Path, file: FileIO, size: int) -> None:
        """Go on with an open part; `size`: of the whole file."""
        self.path, self._file, self._size = path, file, size
        self._sha256, self.bytes = hashlib.sha256(), 0
        while piece := file.read(_PIECE):
            self._sha256.update(piece)
            self.bytes += len(piece)
        self.resumed = self.bytes > 0
        """Whether some of it was there before."""
        if self.bytes > size:
            self.restart()

    def write(self, piece: bytes) -> None:
        """Add bytes.

        Raises:
            CantWrite: the folder takes no more.
        """
        view = memoryview(piece)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            raise CantWrite(f"can't write to {self.path.parent}: {error.strerror or error}") from error
        self.bytes += len(piece)
        self._sha256.update(piece)

    def restart(self) -> None:
        """Discard what there is."""
        self._file.seek(0)
        self._file.truncate()
        self._sha256, self.bytes, self.resumed = hashlib.sha256(), 0, False

    def is_whole(self, sha256: str) -> bool:
        """Whether it has all bytes of the file, and its checksum."""
        return self.bytes == self._size and self._sha256.hexdigest() == sha256

    def put(self, target: Path) -> None:
        """Give it its name, for good.

        Raises:
            FileExistsError: another file has it.
            OSError: it can't be written.
        """
        os.fsync(self._file.fileno())
        rename_new(self.path, target)
        flush_folder(target.parent)


@contextmanager
def incoming(folder: Path, name: str, size: int) -> Iterator[Incoming]:
    """The part of a file in a folder; it stays there if it is neither put nor discarded, so that the rest can follow.

    Args:
        folder: an existing one.
        name: of the file, for the part's name.
        size: bytes of the whole file.

    Raises:
        OSError: it can't be written there.
    """
    path, file, own = _opened(folder, name)
    with file:
        part = Incoming(path, file, size)
        try:
            yield part
        finally:
            if own or part.bytes == 0:
                with suppress(OSError):
                    path.unlink(missing_ok=True)


def _opened(folder: Path, name: str) -> tuple[Path, FileIO, bool]:
    """The part of a file, locked; or one that nobody goes on with, while the other one is locked."""
    path = folder / f".{name}.part"
    while True:
        file = _open(path)
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # somebody fetches it just now, or this file system has no locks
            file.close()
            path = folder / f".{name}.{os.getpid()}.{threading.get_ident()}.part"
            return path, _open(path), True
        if _is_at(path, file):
            return path, file, False
        file.close()  # its writer has just put it into place


def _open(path: Path) -> FileIO:
    return FileIO(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666), "r+")


def _is_at(path: Path, file: FileIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def rename_new(aside: Path, target: Path) -> None:
    """Rename a file to a name that no other one has.

    Raises:
        FileExistsError: one has.
    """
    try:
        os.link(aside, target)
    except FileExistsError:
        raise
    except OSError:  # this file system has no links
        if target.exists():
            raise FileExistsError(target) from None
        aside.replace(target)
    else:
        aside.unlink(missing_ok=True)


def is_there(path: Path, size: int, sha256: str) -> bool:
    """Whether a file with these bytes has this name."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode) or found.st_size != size:
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except OSError:
        return False
