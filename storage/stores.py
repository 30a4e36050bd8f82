"""The stores of finished files: where a file is put, and how one is had again by the address that is recorded for it.

A file's address, its `uri`, is for good: `file:///...`. What is here blocks; none of it is called on the I/O loop.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol
from urllib.parse import unquote, urlsplit

from storage.videos import VideoFolder, flush_folder

if TYPE_CHECKING:
    from storage.bucket_client import BucketOptions
    from storage.buckets import Bucket
from storage.videos import MARKER, Marker

Reads = Literal["GET", "HEAD"]
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

    def presigned(self, uri: str, lifetime: timedelta, method: Reads = "GET") -> str | None:
        """A URL that gives the file to whoever has it and asks by this method, for some time; None: there is none."""

    def remove(self, uri: str) -> None:
        """Remove a file. One that is not there is as good as removed."""


class Stores:
    """The store that files are put into, and all others that recorded files may be in.

    Args:
        video_dir: `VIDEO_DIR`: the store; with a bucket, where files are while they come.
        target: `VIDEO_STORE`: `file:///folder`, or a bucket; None: VIDEO_DIR.
        options: says how the buckets of a scheme, such as `s3`, are reached, once one is.
    """

    def __init__(
        self, video_dir: str, target: str | None = None, options: Callable[[str], BucketOptions] | None = None
    ) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._buckets: dict[str, Bucket] = {}
        self._folders = Folders()
        in_folder = target is None or target.startswith("file:")
        self.folder = VideoFolder(path_of(target) if target is not None and in_folder else video_dir)
        """The store, or where files are while they come."""
        self.bucket = None if target is None or in_folder else self._bucket(target)
        """The store; None: it is the folder."""

    @property
    def place(self) -> str:
        """Where files are put, for a person."""
        return str(self.folder.root) if self.bucket is None else self.bucket.uri

    @cached_property
    def prefixes(self) -> tuple[str, ...]:
        """What the addresses of files in this process's folder and store begin with; the store's is the last."""
        folder = f"{self.folder.root.as_uri()}/"
        return (folder,) if self.bucket is None else (folder, f"{self.bucket.uri}/")

    def at(self, uri: str) -> Store:
        """The store that has a file."""
        return self._folders if uri.startswith("file:") else self.bucket_of(uri)

    def bucket_of(self, uri: str) -> Bucket:
        """The bucket that has an object."""
        if self.bucket is not None and uri.startswith(f"{self.bucket.uri}/"):
            return self.bucket
        return self._bucket(uri.rsplit("/", 2)[0])  # without the batch and the name

    def _bucket(self, uri: str) -> Bucket:
        from storage.bucket_client import BucketOptions
        from storage.buckets import Bucket

        with self._lock:
            if uri not in self._buckets:
                scheme = uri.partition("://")[0]
                self._buckets[uri] = Bucket(uri, self._options(scheme) if self._options else BucketOptions())
            return self._buckets[uri]

    def size(self, uri: str) -> int | None:
        """As `Store.size`, in whichever store the file is."""
        return self.at(uri).size(uri)

    def read(self, uri: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """As `Store.read`, in whichever store the file is."""
        return self.at(uri).read(uri, start, end)

    def presigned(self, uri: str, lifetime: timedelta, method: Reads = "GET") -> str | None:
        """As `Store.presigned`, in whichever store the file is."""
        return self.at(uri).presigned(uri, lifetime, method)

    def remove(self, uri: str) -> None:
        """As `Store.remove`, in whichever store the file is."""
        self.at(uri).remove(uri)

    def holds(self, batch_id: str) -> bool:
        """Whether there are files of a batch."""
        there = self.folder.batch(batch_id).exists()
        return there or (self.bucket is not None and bool(self.bucket.uris(batch_id)))

    def remove_batch(self, batch_id: str) -> None:
        """Remove all files of a batch from the store that files are put into.

        Raises:
            OSError: some of them may still be there.
        """
        self.folder.remove_batch(batch_id)
        if self.bucket is not None:
            self.bucket.remove_batch(batch_id)


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

    def presigned(self, uri: str, lifetime: timedelta, method: Reads = "GET") -> None:
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


def foreign(marker: Marker | None, database: str, place: str) -> str | None:
    """The warning that a store is another database's; None: it is not."""
    if marker is None or marker.database == database:
        return None
    return (
        f"{place} has the files of another database: give each database a store of its own, or remove the marker "
        f"{MARKER} there if this database has replaced the other"
    )


def scattered(store: str, place: str, living: list[tuple[str, str]]) -> str | None:
    """The warning that processes of one database put files into different stores; None: they don't."""
    others = sorted({other for each, other in living if each != store})
    if not others:
        return None
    return (
        f"processes of this database put files into different stores: here {place}, others {', '.join(others)}; "
        "set VIDEO_DIR or VIDEO_STORE to the same store for all of them"
    )
