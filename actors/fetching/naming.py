"""Names in a folder of the user's, on any file system: which are taken, and which are allowed."""

from __future__ import annotations

import errno
import re
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

_NOT_EVERYWHERE = re.compile(r'[<>:"|?*\\\x00-\x1f]')
_DEVICE = re.compile(r"(?i)(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(?= *(?:\.|$))")


class Taken:
    """The files that jobs have in a folder. Some file systems find one of them by several spellings of its name."""

    def __init__(self) -> None:
        self._paths = set[Path]()
        self._files = set[tuple[int, int]]()

    def add(self, path: Path) -> None:
        """Note that a job has the file with this name."""
        self._paths.add(path)
        found = path.stat()
        self._files.add((found.st_dev, found.st_ino))

    def __contains__(self, path: Path) -> bool:
        if path in self._paths:
            return True
        try:
            found = path.lstat()
        except OSError:
            return False
        # One name in the folder, so both spellings are that one. Files that were linked with each other have several.
        return found.st_nlink == 1 and (found.st_dev, found.st_ino) in self._files


def names(first: Path) -> Iterator[Path]:
    """A name, and what it becomes where other files have it: `film.mp4`, `film-2.mp4` and so on."""
    yield first
    for number in count(2):
        yield first.with_name(f"{first.stem}-{number}{first.suffix}")


def allowed(name: str, folder: Path) -> str:
    """A name as it can be written below a folder; the same where its file system takes any name.

    Args:
        name: with `/` between folders.
        folder: of the user's.

    Raises:
        OSError: nothing can be written there.
    """
    if portable(name) == name or _takes_any(folder):
        return name
    return portable(name)


def portable(name: str) -> str:
    """A name that Windows takes too, with `/` between folders."""
    parts = (_NOT_EVERYWHERE.sub("-", part).rstrip(". ") or "-" for part in name.split("/"))
    return "/".join(_DEVICE.sub(r"\1-", part, count=1) if _DEVICE.match(part) else part for part in parts)


def _takes_any(folder: Path) -> bool:
    """Whether names are free here; they are not on FAT, NTFS as Windows has it, and some shares."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".:?", suffix="."):
            return True
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOENT, errno.EILSEQ}:
            raise
        return not folder.is_dir()
