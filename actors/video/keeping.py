"""The end of a download: the file is checked, flushed and put into the store, many small files at once."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Collection
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from io import FileIO
from pathlib import Path
from typing import TypeVar

from actors.coalescer import Coalescer
from actors.errors import ErrorCode, Failure, SoraError
from actors.loop import DaemonThreads, IOLoop
from storage.records import Document
from storage.stores import Stores
from storage.videos import EXTENSIONS, PartFile, flush_folder

T = TypeVar("T")
_KIND = re.compile(r"[\w.+-]{1,63}/[\w.+-]{1,63}", re.ASCII)
_VIDEO_TYPES = ("video/", "image/gif", "application/octet-stream", "application/binary", "binary/octet-stream")
_UPLOADS = 8
"""At a time; each takes up to 16 MiB of memory."""
_GIVEN_UP = 5.0
"""Seconds in which an ending process has its uploads aborted."""


@dataclass(frozen=True, slots=True)
class PendingFile:
    """A received file that remains to be checked, flushed and put into place."""

    part: PartFile
    block: bytes
    content_type: str
    expected: int | None
    file: FileIO | None
    """Open, if earlier blocks have been written."""

    def write(self) -> tuple[Path, Document]:
        """Write the last block, check that the file is complete, flush it, and put it into place.

        Returns:
            Its folder, which remains to be flushed, and what is recorded for the file.
        """
        part = self.part
        kind = self.check(flush=True)
        path = part.publish(EXTENSIONS.get(kind, ".bin"))
        return part.path.parent, _recorded(part, path.as_uri(), str(path), kind)

    def check(self, *, flush: bool = False) -> str:  # crash point: check
        """Write the last block, check that the file is complete, and perhaps flush it.

        Returns:
            Its content type.
        """
        part = self.part
        with self.file or part.open() as opened:
            part.write(opened, self.block)
            if part.bytes == 0 or (self.expected is not None and part.bytes != self.expected):
                of = "an unknown number of" if self.expected is None else self.expected
                raise broken(f"received {part.bytes} of {of} bytes")
            is_mp4 = part.head[4:8] == b"ftyp"
            if not is_mp4 and (self.content_type == "video/mp4" or not self.content_type.startswith(_VIDEO_TYPES)):
                raise broken(f"declared as {self.content_type}, but not an MP4 file")
            if flush:
                part.flush(opened)
        told = self.content_type if _KIND.fullmatch(self.content_type) else "application/octet-stream"
        return "video/mp4" if is_mp4 else told


def finish(group: list[PendingFile]) -> list[Document | Exception]:
    """Finish files, each with its result or error. Blocks.

    A folder is flushed once for all of its files, and the loop is woken once: each system call releases the GIL and has
    to win it back from the loop.
    """
    written = [_outcome(rest.write) for rest in group]
    folders = {outcome[0] for outcome in written if not isinstance(outcome, Exception)}
    flushed = {folder: _outcome(partial(flush_folder, folder)) for folder in folders}
    results: list[Document | Exception] = []
    for outcome in written:
        if isinstance(outcome, Exception):
            results.append(outcome)
        else:
            folder, video = outcome
            results.append(flushed[folder] or video)
    return results


def _outcome(function: Callable[[], T]) -> T | Exception:
    try:
        return function()
    except Exception as error:  # noqa: BLE001  (it is raised where the file is waited for)
        return error


def _recorded(part: PartFile, uri: str, path: str | None, kind: str) -> Document:
    """What is recorded for a file."""
    return {
        "uri": uri, "path": path, "url": None,
        "bytes": part.bytes, "sha256": part.sha256, "content_type": kind,
    }  # fmt: skip


def broken(what: str) -> SoraError:
    """The error for a download that did not yield a complete video."""
    return SoraError(Failure(ErrorCode.DOWNLOAD_FAILED, f"the downloaded file is broken: {what}"))


@dataclass(frozen=True, slots=True)
class CheckedFile:
    """A whole file that remains to be put into the bucket. It stays where it is until it is discarded."""

    part: PartFile
    kind: str


class Keeper:
    """Keeps the files that a process received, on its I/O loop: the work is done in threads beside it."""

    def __init__(
        self, io: IOLoop, stores: Stores, files: Coalescer[PendingFile, Document], clean_up: Callable[[str], object]
    ) -> None:
        """`clean_up`: removes the orphans of a batch: called for files that nobody waited for any more."""
        self._io, self._stores, self._files, self._clean_up = io, stores, files, clean_up
        self._threads: DaemonThreads | None = None
        self._uploads: dict[Future[str], threading.Event] = {}

    async def take(self, rest: PendingFile) -> Document | CheckedFile:
        """Take over a received file: check it, and put it into the folder, where that is the store.

        Returns:
            What is recorded for it; with a bucket, the file that remains to be put there.

        Raises:
            SoraError: it is broken.
            OSError: it can't be written.
        """
        if self._stores.bucket is not None:
            return CheckedFile(rest.part, await self._io.offload(rest.check))
        # A large file takes long to flush.
        return await (self._files.do if rest.file is None else self._files.do_alone)(rest)

    async def put(self, file: CheckedFile, doomed: Collection[str]) -> Document:
        """Put a file into the bucket, at none of the doomed addresses; whoever stops waiting for it has it stopped.

        Returns:
            What is recorded for it.

        Raises:
            StoreFault: it is not there. `passing`: another attempt may succeed.
        """
        bucket, part = self._stores.bucket, file.part
        assert bucket is not None
        if self._threads is None:
            self._threads = DaemonThreads(_UPLOADS)
        stop = threading.Event()
        put = partial(bucket.put, part.path, part.job_id, file.kind, part.sha256, doomed, stop.is_set)
        upload = self._threads.submit(put)
        self._uploads[upload] = stop
        upload.add_done_callback(lambda done: self._io.call(self._uploads.pop, done, None))
        try:
            uri = await self._io.outcome(upload)
        except asyncio.CancelledError:
            stop.set()
            upload.cancel()  # if it has not begun
            # It may be there by then, or come there at this moment.
            upload.add_done_callback(lambda _: self._io.call(self._late, part))
            raise
        return _recorded(part, uri, None, file.kind)

    def _late(self, part: PartFile) -> None:
        part.discard(and_folder=True)
        self._clean_up(part.path.parent.name)

    async def close(self) -> None:
        """Have uploads aborted, and wait for that, some seconds at most."""
        for stop in self._uploads.values():
            stop.set()
        ended = asyncio.gather(*map(asyncio.wrap_future, self._uploads), return_exceptions=True)
        with suppress(TimeoutError):
            await asyncio.wait_for(ended, _GIVEN_UP)
        if self._threads is not None:
            self._threads.shutdown()
