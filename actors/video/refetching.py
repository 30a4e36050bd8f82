"""Downloads the missing file of a completed video again: free, and only if the bytes are the recorded ones."""

from __future__ import annotations

import asyncio
import uuid

import aiohttp

from actors.errors import SoraError
from actors.video.tools import Tools
from storage.records import JobRecord, SubmissionRecord
from storage.stores import path_of, uri_of
from storage.timing import backoff
from storage.videos import PartFile, flush_folder

_TRIES = 3
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
_PIECE = 1 << 20


async def fetch_again(tools: Tools, job: JobRecord, submission: SubmissionRecord) -> str | None:
    """Restore a completed job's file at its recorded path; no record changes.

    Returns:
        Why that failed; None: the file is there.
    """
    assert job.video is not None
    assert submission.remote_id is not None
    place = _Place(tools, job)
    why: str | None = None
    for tries in range(_TRIES):
        if tries:
            await asyncio.sleep(backoff(tries, _FIRST_PAUSE, _LONGEST_PAUSE))
        part = place.part()
        try:
            await _receive(tools, part, submission.remote_id, job.video["bytes"])
            if part.sha256 != job.video["sha256"]:
                return "the server's file is a different one: its SHA-256 does not match the recorded one"
            if not await tools.io.offload(place.put, part):
                return f"{place.shown} now holds a different file"
        except (SoraError, aiohttp.ClientError, TimeoutError, OSError) as error:
            why, passes = _reason(error, tools, place)
            if not passes:
                return why
        else:
            return None
        finally:
            await tools.io.offload(part.discard)
    return why


def _reason(error: Exception, tools: Tools, place: _Place) -> tuple[str, bool]:
    """Why a try failed, and whether another one may succeed."""
    if isinstance(error, SoraError):
        return error.message, error.retryable
    if isinstance(error, aiohttp.ClientError | TimeoutError):
        return f"the download broke off: {tools.client.words(error)}", True
    reason = error.strerror if isinstance(error, OSError) else None
    # The batch may have ended meanwhile: then its partial files were removed.
    return f"the video can't be written to {place.shown}: {reason or error}", isinstance(error, FileNotFoundError)


class _Place:
    """Where a recorded file was, in whichever store."""

    def __init__(self, tools: Tools, job: JobRecord) -> None:
        assert job.video is not None
        self._job, self._video, self._uri = job, job.video, uri_of(job.video)
        self._stores = tools.stores
        self._path = path_of(self._uri) if self._uri.startswith("file:") else None
        self.shown = self._uri if self._path is None else str(self._path)

    def part(self) -> PartFile:
        folder = self._stores.folder.batch(self._job.batch_id) if self._path is None else self._path.parent
        return PartFile(folder / f"{self._job.id}.{uuid.uuid4().hex}.part")

    def put(self, part: PartFile) -> bool:
        """Put the file there; False: other bytes are there."""
        if self._path is None:
            kind, size, sha256 = self._video["content_type"], self._video["bytes"], self._video["sha256"]
            return self._stores.bucket_of(self._uri).restore(part.path, self._uri, kind, size, sha256)
        done = part.put(self._path)
        flush_folder(self._path.parent)
        return done


async def _receive(tools: Tools, part: PartFile, remote_id: str, most: int) -> None:
    async with tools.client.content(remote_id) as response:
        file = await tools.io.offload(part.open)
        try:
            async for piece in response.content.iter_chunked(_PIECE):
                await tools.io.offload(part.write, file, piece)
                if part.bytes > most:
                    return  # it is a different file
            await tools.io.offload(part.flush, file)
        finally:
            await tools.io.offload(file.close)
