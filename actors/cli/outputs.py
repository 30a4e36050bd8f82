"""Copies finished files to the user's folder, under readable names."""

from __future__ import annotations

import fcntl
import filecmp
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from actors.batch.job_views import Job, VideoFile
from actors.cli.filenames import FileNamePattern, file_name
from actors.cli.text import clean
from actors.errors import InvalidRequest
from actors.fetching.naming import Taken, allowed, names
from actors.fetching.places import rename_new
from storage.stores import Stores

_FICLONE = 0x40049409
"""Linux's `ioctl` for it: the module `fcntl` names it from Python 3.12 on."""


class OutputFolder:
    """A folder of the user's. Other people's files in it are never overwritten."""

    def __init__(self, folder: Path, pattern: FileNamePattern | None = None) -> None:
        """`pattern`: of file names; None: number and prompt."""
        self.folder, self.pattern = folder, pattern
        self.stores: Stores | None = None
        """Whence files are brought that are in no folder."""
        self.placed: dict[str, Path] = {}
        """The path of each job's file, by job id."""
        self.problems: dict[str, str] = {}
        self._taken = Taken()

    def check(self) -> None:
        """Create the folder, and check that files can be written there.

        Raises:
            InvalidRequest: they can't.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise InvalidRequest(
                f"--output {clean(self.folder)!r} is not writable: {reason}; name another folder"
            ) from None

    def place(self, job: Job, total: int, *, of_takes: bool = False) -> None:
        """Copy a completed job's file there, once; errors are kept in `problems`.

        `of_takes`: its request asks for several takes.
        """
        if job.video is None or job.video.removed_at is not None or job.id in self.placed:
            return
        name = self._name(job, total, PurePosixPath(job.video.uri).suffix, of_takes=of_takes)
        try:
            with self._at_hand(job.video) as source:
                self.placed[job.id] = self._put(source, name)
            self._taken.add(self.placed[job.id])
            self.problems.pop(job.id, None)
        except (OSError, ValueError) as error:  # a name that can't be written is a ValueError
            reason = getattr(error, "strerror", None) or str(error)
            self.problems[job.id] = f"can't copy {job.video.path or job.video.uri} to {self.folder}: {reason}"

    @contextmanager
    def _at_hand(self, video: VideoFile) -> Iterator[Path]:
        """The file itself; one in a bucket is brought here first."""
        if video.path is not None or self.stores is None:
            yield Path(video.path or video.uri)
            return
        with tempfile.NamedTemporaryFile(dir=self.folder, prefix=".", suffix=".part") as part:
            for piece in self.stores.read(video.uri):
                part.write(piece)
            part.flush()
            yield Path(part.name)

    def _name(self, job: Job, total: int, extension: str, *, of_takes: bool) -> str:
        if self.pattern is not None:
            return self.pattern.name(job, extension)
        return file_name(job.index, total, job.prompt, extension, job.take if of_takes else None)

    def _put(self, source: Path, name: str) -> Path:
        first = self.folder / allowed(name, self.folder)
        if self.pattern is not None:
            first.parent.mkdir(parents=True, exist_ok=True)
        for target in names(first):
            if target in self._taken:  # another job's, with the same name by the pattern
                continue
            if target.exists() and filecmp.cmp(source, target, shallow=False):
                if target.samefile(source) and not target.is_symlink():
                    _copy(source, target, over=True)  # a hard link, made by an earlier version
                return target
            try:
                _copy(source, target)
            except FileExistsError:
                continue
            return target
        raise AssertionError


def _copy(source: Path, target: Path, *, over: bool = False) -> None:
    """Copy a file, so that changes to it don't reach ours. Written aside first, so it is never there incomplete.

    Raises:
        FileExistsError: it exists already, and `over` is false.
    """
    aside = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        if not _cloned(source, aside):
            shutil.copyfile(source, aside)
        if over:
            aside.replace(target)
        else:
            rename_new(aside, target)
    finally:
        aside.unlink(missing_ok=True)


def _cloned(source: Path, target: Path) -> bool:
    """Whether the file system made a copy-on-write clone."""
    if sys.platform != "linux":
        return False
    with source.open("rb") as reading, target.open("wb") as writing:
        try:
            fcntl.ioctl(writing.fileno(), _FICLONE, reading.fileno())
        except OSError:  # this file system can't clone, or the files are on different ones
            return False
    return True
