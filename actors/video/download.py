"""Gets the file of a finished video: from the server's content route, from another URL, or from its JSON."""

from __future__ import annotations

import asyncio
import base64
import errno
import random
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from io import FileIO
from pathlib import Path

import aiohttp

from actors.errors import ErrorCode, Failure, SoraError
from actors.messages import Generate
from actors.sora.wire import Phase, RemoteVideo
from actors.video.comparison import Measured, can_measure, measure
from actors.video.keeping import CheckedFile, PendingFile, broken
from actors.video.setbacks import Ended, Setbacks, is_account
from actors.video.tools import Tools
from storage.bucket_errors import StoreFault
from storage.records import Document
from storage.videos import PartFile

_DOWNLOADS = 5
_PASSING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
"""What a person fixes while a video waits: a full disk or quota, a file system that became read-only."""
_BLOCK = 1 << 20
_LARGEST_FILE = 4 << 30
"""Bytes: a server that never stops sending must not fill the disk."""


class Download:
    """The download of one run's video."""

    def __init__(self, tools: Tools, order: Generate, setbacks: Setbacks, remote_id: str) -> None:
        self._tools, self._order, self._setbacks, self._remote_id = tools, order, setbacks, remote_id
        self._measured_before: Measured | None = None
        """Of a file that has gone into a bucket since."""

    async def fetch(self, video: RemoteVideo, *, by_listing: bool) -> Document | None:
        """Download until the file is complete; broken files are downloaded again, temporary errors waited out.

        Args:
            video: as the server reported it: its other URLs, or the file itself.
            by_listing: whether only the listing said that it is ready.

        Returns:
            What is recorded for the file; None: the video was reported ready, but is not.

        Raises:
            Ended: it can't be obtained or kept.
        """
        job, setbacks = self._order.job, self._setbacks
        tries = broken_files = full = 0
        while True:
            part = self._tools.stores.folder.part(job.batch_id, job.id, self._order.epoch)
            try:
                taken = await self._fetch_once(part, video, tries)
                return taken if isinstance(taken, dict) else await self._store(taken)
            except SoraError as error:
                setbacks.no_room = None
                part.discard()
                # At another URL, our key does not matter.
                elsewhere = bool(video.urls) and tries % 2 == 1 and is_account(error)
                tries += 1
                broken_files += not (error.passes or error.status == 404 or elsewhere)
                if broken_files == _DOWNLOADS or (setbacks.refuses_us(error) and not elsewhere):
                    code = error.code if is_account(error) else ErrorCode.DOWNLOAD_FAILED
                    raise self._ended(code, error.message, error) from error
                await setbacks.back_off(error, tries)
                # Not after each 404: of two alternating replicas, one would get all polls and the other all downloads.
                unknown = error.status == 404 and tries > 1 and random.random() < 0.5  # noqa: S311
                if unknown or (by_listing and tries == 1):
                    video = await self._itself() or video
                    if video.phase is not Phase.READY:
                        if by_listing:
                            self._tools.watcher.listing.refute(f"it shows {self._remote_id} as ready, but it is not")
                        return None
            except OSError as error:
                part.discard()  # its space is free for others
                text = f"the video can't be written to {part.path.parent}: {error.strerror or error}"
                if error.errno not in _PASSING:
                    raise self._ended(ErrorCode.STORAGE, text) from error
                await setbacks.wait_for_room(text, full)
                full += 1
            except (Ended, asyncio.CancelledError):
                part.discard()
                raise

    async def measured(self, file: Document) -> Measured | None:
        """The file's own length and size, if requested and readable."""
        return self._measured_before if file["path"] is None else await self._measure(file["path"])

    async def _measure(self, path: str | Path) -> Measured | None:
        if (self._order.job.duration is None and self._order.job.size is None) or not can_measure():
            return None
        return await self._tools.io.offload(measure, Path(path))

    def _ended(self, code: ErrorCode, text: str, error: SoraError | None = None) -> Ended:
        detail = {} if error is None else error.failure.detail
        return Ended(Failure(code, text, {**detail, "remote_id": self._remote_id}))

    async def _store(self, file: CheckedFile) -> Document:
        """Put a file into the bucket. What passes is waited out: the file is here, and not downloaded again."""
        self._measured_before = await self._measure(file.part.path)
        doomed_of = partial(self._tools.storage.doomed.of_batch, self._order.job.batch_id)
        doomed = await self._tools.io.outcome(self._tools.recorder.read(doomed_of))
        tries = 0
        while True:
            try:
                kept = await self._tools.keeper.put(file, doomed)
            except StoreFault as fault:
                text = f"the video can't be stored: {fault}"
                if not fault.passing:
                    raise self._ended(ErrorCode.STORAGE, text) from fault
                await self._setbacks.wait_for_room(text, tries)
                tries += 1
            else:
                file.part.discard(and_folder=True)
                self._setbacks.no_room = None
                return kept

    async def _itself(self) -> RemoteVideo | None:
        """Poll the video itself: it may say more than the listing. If it does not answer, the download tells."""
        try:
            video, _ = await self._tools.client.retrieve(self._remote_id, anew=True)
        except SoraError as error:
            await self._setbacks.end_if_lost(error, self._remote_id)
            return None
        self._setbacks.absence = None
        return video

    async def _fetch_once(self, part: PartFile, video: RemoteVideo, tries: int) -> Document | CheckedFile:
        """What is recorded for the file, or the file that remains to be put into the bucket."""
        if video.inline is not None:
            try:
                data = base64.b64decode(video.inline)
            except ValueError as error:
                raise broken(f"invalid base64: {error}") from error
            return await self._tools.keeper.take(PendingFile(part, data, "video/mp4", len(data), None))
        async with self._source(video, tries) as response:
            return await self._receive(part, response)

    def _source(self, video: RemoteVideo, tries: int) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        # Some servers have no content route, or none for this file, but gave another URL.
        if video.urls and tries % 2 == 1:
            return self._tools.client.content_at(video.urls[0])
        return self._tools.client.content(self._remote_id, anew=tries > 0)

    async def _receive(self, part: PartFile, response: aiohttp.ClientResponse) -> Document | CheckedFile:
        """Receive a file. One that fits into a single block costs only one call to the flushing thread."""
        offload = self._tools.io.offload
        expected = None if "Content-Encoding" in response.headers else response.content_length
        block: list[bytes] = []
        size = total = 0
        file: FileIO | None = None
        try:
            async for chunk in response.content.iter_any():
                block.append(chunk)
                size += len(chunk)
                total += len(chunk)
                if max(total, expected or 0) > _LARGEST_FILE:
                    text = f"exceeds the {_LARGEST_FILE / (1 << 30):g} GiB limit"
                    raise self._ended(ErrorCode.DOWNLOAD_FAILED, text)
                if size >= _BLOCK:
                    file = file or await offload(part.open)
                    await offload(part.write, file, b"".join(block))
                    block, size = [], 0
            return await self._tools.keeper.take(
                PendingFile(part, b"".join(block), response.content_type, expected, file)
            )
        except (aiohttp.ClientError, TimeoutError) as error:
            raise broken(f"the download broke off: {self._tools.client.words(error)}") from error
        except asyncio.CancelledError:
            file = None  # a thread may still be writing to it, which closes it at its end
            raise
        finally:
            if file is not None:
                with suppress(OSError):
                    file.close()
