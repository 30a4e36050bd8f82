"""The stores of finished files: where a file is put, and how one is had again by the address that is recorded for it.

A file's address, its `uri`, is for good: `file:///...`. What is here blocks; none of it is called on the I/O loop.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from storage.videos import VideoFolder, flush_folder

PIECE = 1 << 20
"""Bytes: files are read in pieces of at most this size."""


class Store(Protocol):
    """What files are had from. Its errors are OSErrors; `FileNotFoundError` means that there is no such file."""

    def size(self, uri: str) -> int | None:
        """How many bytes a file has; None: there is none."""

    def read(self, uri: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes of a file, in pieces: from `start` up to, but without, `end`.

        The first piece is read at once, so that a file that is not there is noticed before anything is answered.
        """

    def presigned(self, uri: str, lifetime: timedelta) -> str | None:
        """A URL that gives the file to whoever has it, for some time; None: this store has no such thing."""

    def remove(self, uri: str) -> None:
        """Remove a file. One that is not there is as good as removed."""


class Stores:
    """The store that files are put into, and all others that recorded files may be in."""

    def __init__(self, video_dir: str) -> None:
        self.folder = VideoFolder(video_dir)
        self._folders = Folders()

    def at(self, uri: str) -> Store:
        """The store that has a file."""
        assert uri.startswith("file:"), uri
        return self._folders

    def size(self, uri: str) -> int | None:
        """As `Store.size`, in whichever store the file is."""
        return self.at(uri).size(uri)

    def read(self, uri: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """As `Store.read`, in whichever store the file is."""
        return self.at(uri).read(uri, start, end)

    def presigned(self, uri: str, lifetime: timedelta) -> str | None:
        """As `Store.presigned`, in whichever store the file is."""
        return self.at(uri).presigned(uri, lifetime)

    def remove(self, uri: str) -> None:
        """As `Store.remove`, in whichever store the file is."""
        self.at(uri).remove(uri)


class Folders:
    """The files of this machine, in whichever folder they were put."""

    def size(self, uri: str) -> int | None:
        """How many bytes a file has; None: there is none."""
        try:
            return path_of(uri).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None

    def read(self, uri: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes of a file, in pieces."""
        return begun(_pieces(path_of(uri), start, end))

    def presigned(self, uri: str, lifetime: timedelta) -> None:
        """None: no URL leads into a folder."""

    def remove(self, uri: str) -> None:
        """Remove a file, for good: also after a power cut."""
        path = path_of(uri)
        path.unlink(missing_ok=True)
        if path.parent.is_dir():
            flush_folder(path.parent)


def _pieces(path: Path, start: int, end: int | None) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(start)
        left = os.fstat(file.fileno()).st_size if end is None else end - start
        while left > 0 and (piece := file.read(min(PIECE, left))):
            left -= len(piece)
            yield piece


def begun(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The same pieces, the first of them already read."""
    first = next(pieces, None)
    return iter(()) if first is None else chain([first], pieces)


def uri_of(video: Mapping[str, Any]) -> str:
    """The address of a recorded file. Earlier versions recorded its path alone."""
    recorded = video.get("uri")
    return str(recorded) if recorded else Path(video["path"]).absolute().as_uri()


def path_of(uri: str) -> Path:
    """The path of a file in a folder, from its address."""
    return Path(unquote(urlsplit(uri).path))
