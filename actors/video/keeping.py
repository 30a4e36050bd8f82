"""The keeper: puts received files into the store, and knows when it failed for a while only."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

from actors.loop import Coalescer, DaemonThreads, IOLoop
from actors.video.files import PendingFile
from storage.records import Document
from storage.stores import Stores
from storage.videos import PartFile

_UPLOADS = 8
"""At a time; each takes up to 16 MiB of memory."""
_GIVEN_UP = 5.0
"""Seconds in which an ending process has its uploads aborted."""


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
        return {
            "uri": uri, "path": None, "url": None,
            "bytes": part.bytes, "sha256": part.sha256, "content_type": file.kind,
        }  # fmt: skip

    def _late(self, part: PartFile) -> None:
        part.discard(and_folder=True)
        self._clean_up(part.path.parent.name)

    async def close(self) -> None:
        """Have uploads aborted, and wait for that, some seconds at most."""
        for stop in self._uploads.values():
            stop.set()
        if self._uploads:
            await asyncio.wait([asyncio.wrap_future(upload) for upload in self._uploads], timeout=_GIVEN_UP)
        if self._threads is not None:
            self._threads.shutdown()
