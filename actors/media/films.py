"""A stored film as a stream that can be sought in: only the parts that are needed are read from its store."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO, cast

from actors.batch.views import Job
from actors.errors import StorageError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    from storage.stores import Stores

_AHEAD = 1 << 18
"""Bytes that are read at a time: a request to a bucket costs more than these."""


def film_of(stores: Stores) -> Callable[[Job], BinaryIO]:
    """What opens the film of a completed job; it raises StorageError or OSError if there is none."""

    def opened(job: Job) -> BinaryIO:
        video = job.video
        if video is None:
            raise StorageError("no file is recorded")
        if video.removed_at is not None:
            raise StorageError(f"its file was removed on {video.removed_at:%Y-%m-%d}")
        return cast("BinaryIO", io.BufferedReader(_Film(stores, video.uri, video.bytes), _AHEAD))

    return opened


class _Film(io.RawIOBase):
    def __init__(self, stores: Stores, uri: str, size: int) -> None:
        self._stores, self._uri, self._size, self._at = stores, uri, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        end = min(self._at + len(view), self._size)
        filled = 0
        if self._at < end:
            try:
                for piece in self._stores.read(self._uri, self._at, end):
                    view[filled : filled + len(piece)] = piece
                    filled += len(piece)
            except (FileNotFoundError, NotADirectoryError):
                raise StorageError("its file is gone") from None
        self._at += filled
        return filled
