"""The folder of finished files, `VIDEO_DIR/<batch id>/<job id>-<8 hex of its SHA-256>.<extension>`, and its marker.

Written as partial files, then put into place; a file in place is never replaced. Earlier versions omitted the checksum.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Collection, Iterator
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import NamedTuple, Self

logger = logging.getLogger(__name__)
MARKER = ".sora-batch"
EXTENSIONS = {
    "video/mp4": ".mp4", "video/webm": ".webm", "video/quicktime": ".mov", "video/x-msvideo": ".avi",
    "image/gif": ".gif",
}  # fmt: skip
_PART = ".part"
_TRIES = 5
_NAMED_BY = (8, 16, 64)
"""How many digits of the checksum a name has: more if other bytes have the shorter name."""
_CHECKSUM = re.compile(r"-[0-9a-f]{8,64}\Z")


class VideoFolder:
    """The folder of all finished videos. Ids consist of letters, digits, `-` and `_`, so paths can't leave it."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root).absolute()

    def prepare(self, database: str) -> Marker:  # crash point: prepare
        """Create the folder, and check that it is writable, before anything is paid for.

        Returns:
            Its marker. One without any is the database's from now on.

        Raises:
            OSError: it is not.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self.root):
            pass
        return mark_folder(self.root, database)

    def batch(self, batch_id: str) -> Path:
        """The folder of a batch's files."""
        return self.root / batch_id

    def part(self, batch_id: str, job_id: str, epoch: int) -> PartFile:
        """A new partial file, created when it is opened."""
        return PartFile(self.batch(batch_id) / f"{job_id}.{epoch}{_PART}")

    def parts(self) -> Iterator[Path]:
        """All partial files."""
        return self.root.glob(f"[!.]*/*{_PART}")

    def sweep(self, batch_id: str, epoch: int) -> None:  # crash point: sweep
        """Remove the partial files of a batch's owners before this epoch."""
        for part in self.batch(batch_id).glob(f"*{_PART}"):
            written_at = part.stem.rpartition(".")[2]
            if written_at.isdecimal() and int(written_at) < epoch:
                _remove(part)

    def clear(self, batch_id: str, job_ids: Collection[str], kept: Collection[str] = ()) -> None:  # crash point: clear
        """Remove the files of these jobs, and all partial files. Other files there are not ours.

        `kept`: the names of files that stay. Names, not paths: the folder may have been moved.
        """
        for path in self.batch(batch_id).glob("*"):
            of_one = path.stem in job_ids or _CHECKSUM.sub("", path.stem) in job_ids
            if path.suffix == _PART or (of_one and path.name not in kept):
                _remove(path)

    def remove_batch(self, batch_id: str) -> None:
        """Delete a batch's files."""
        shutil.rmtree(self.batch(batch_id), ignore_errors=True)


class PartFile:
    """A file that is being written. Not on the I/O loop: its methods block."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bytes = 0
        self._sha256 = hashlib.sha256()
        self.head = b""
        """The first bytes, which show its type."""
        self._discarded = False

    def open(self) -> FileIO:  # crash point: open
        """Open it for writing from the start, creating its folder. Unbuffered: it is written in whole blocks."""
        for tries in range(_TRIES):
            try:
                file = FileIO(self.path, "w")
                break
            except FileNotFoundError:  # the folder may be removed again, with another partial file
                if tries == _TRIES - 1:
                    raise
                self.path.parent.mkdir(parents=True, exist_ok=True)
                flush_folder(self.path.parent.parent)
        if self._discarded:  # in another thread, meanwhile
            self.discard()
        return file

    def write(self, file: FileIO, chunk: bytes) -> None:  # crash point: write
        """Add bytes."""
        if len(self.head) < 12:
            self.head = (self.head + chunk)[:12]
        written = file.write(chunk)
        while written < len(chunk):  # a system call may write only a part
            written += file.write(memoryview(chunk)[written:])
        self.bytes += len(chunk)
        self._sha256.update(chunk)

    @property
    def job_id(self) -> str:
        """The job that it is of."""
        # Not `with_suffix`, which would misread our dots; ids have none.
        return self.path.name.split(".", 1)[0]

    @property
    def sha256(self) -> str:
        """The checksum of what was written, in hexadecimal."""
        return self._sha256.hexdigest()

    def flush(self, file: FileIO) -> None:  # crash point: flush
        """Flush the bytes to the disk."""
        os.fsync(file.fileno())

    def publish(self, extension: str) -> Path:  # crash point: rename
        """Put it into place. It survives a power cut only once its folder is flushed too.

        Nothing is replaced: a file with the same bytes stays, and other bytes keep their name.
        """
        for name in names_of(self.job_id, self.sha256, extension):
            final = self.path.with_name(name)
            if self.put(final):
                return final
        raise FileExistsError(errno.EEXIST, "a damaged file already has its name", str(final))

    def put(self, final: Path) -> bool:
        """Give it this name in its folder; False: other bytes have it."""
        if final.exists():
            if not self._is_in(final):
                return False
            self.path.unlink(missing_ok=True)  # a newer owner may have swept it
        else:
            # A file that appears between the two steps has the same checksum. A link would be one step, but is slower.
            os.rename(self.path, final)  # noqa: PTH104
        return True

    def _is_in(self, place: Path) -> bool:
        """Whether a file has the bytes that were written here."""
        with place.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == self.sha256

    def discard(self, *, and_folder: bool = False) -> None:  # crash point: discard
        """Remove the partial file, or prevent it. `and_folder`: also its folder, if nothing else is in it."""
        self._discarded = True
        with suppress(OSError):
            self.path.unlink(missing_ok=True)
            if and_folder:
                self.path.parent.rmdir()


def names_of(job_id: str, sha256: str, extension: str) -> Iterator[str]:
    """The names that a finished file may have: the shortest that no other bytes have."""
    for digits in _NAMED_BY:
        yield f"{job_id}-{sha256[:digits]}{extension}"


def _remove(path: Path) -> None:
    """Remove an orphan file. One that can't be removed does no harm."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        logger.warning("could not remove a file", extra={"action": "tidy", "path": str(path), "error": repr(error)})


def flush_folder(folder: Path) -> None:  # crash point: flush folder
    """Flush a folder to the disk: files renamed into it then survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Marker(NamedTuple):
    """What the marker in a store says: whose it is, and which one. Two paths lead to one store if they show one."""

    database: str
    store: str

    @classmethod
    def new(cls, database: str) -> Self:
        """The marker of a store that is this database's from now on."""
        return cls(database, uuid.uuid4().hex)

    @classmethod
    def parse(cls, content: bytes | None) -> Self | None:
        """Read one; None: there is none, or nothing that was written here."""
        with suppress(ValueError, TypeError, KeyError):
            read = json.loads(content or b"")
            return cls(str(read["database"]), str(read["store"]))
        return None

    @property
    def content(self) -> bytes:
        """The bytes of the marker's file."""
        return json.dumps(self._asdict()).encode() + b"\n"


def marker_in(folder: Path) -> Marker | None:
    """The marker of a folder; None: it has none."""
    with suppress(OSError):
        return Marker.parse((folder / MARKER).read_bytes())
    return None


def mark_folder(folder: Path, database: str) -> Marker:
    """The marker of a folder. One without a marker gets that of a database.

    Raises:
        OSError: it can't be written.
    """
    found = marker_in(folder)
    if found is not None:
        return found
    mine = Marker.new(database)
    aside = folder / f"{MARKER}.{mine.store}"
    aside.write_bytes(mine.content)
    try:
        aside.rename(folder / MARKER)  # two at once: the last one's counts, and is read by both below
    finally:
        aside.unlink(missing_ok=True)
    return marker_in(folder) or mine
