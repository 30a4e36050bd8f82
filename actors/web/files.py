"""The files of finished videos over HTTP, read in pieces and sent at the reader's pace."""

from __future__ import annotations

import asyncio
import logging
import math
import re
import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, NamedTuple, TypeVar
from urllib.parse import urlsplit

from aiohttp import web

from actors.errors import Conflict, ErrorCode, NotFound
from actors.fetching.places import fetched_again
from actors.web.handlers import BINARY, TEXT, operation
from actors.web.parameters import batch_id_of, expected_versions, index_of, is_current, query_of, quoted
from actors.web.problems import Problem, Refused, refused
from storage.states import FINAL_JOB

if TYPE_CHECKING:
    from actors.batch.job_views import Job, VideoFile
    from actors.web.handlers import Site
    from storage.stores import Reads

T = TypeVar("T")
logger = logging.getLogger(__name__)
_PRESIGNED = timedelta(hours=1)
_PIECE_OF_A_FOLDER, _PIECE_OF_A_BUCKET = 1 << 17, 1 << 20
"""Bytes that are read at a time: what a slow reader holds in memory, and what a request to a bucket is worth."""
_MANY = 32
"""Readers at the same time: of more, each holds as little as one of a folder."""
_READS = 3
"""Reads at the same time: of the threads for files two are left for pictures."""
_UNSIGNED = 60.0
"""Seconds for which a store that signs no URL is not asked for one again: to learn it may take longer than the file."""
_STALLED = 300.0
"""Seconds after which a reader that took nothing is given up."""
_RANGE = re.compile(r"bytes=(?:(\d{1,19})-(\d{0,19})|-(\d{1,19}))", re.ASCII | re.IGNORECASE)
VERSION = {"v": {"type": "string", "description": "Anything that names the file: the answer may be kept for a year."}}


def routes(site: Site) -> Iterable[web.RouteDef]:
    """The route of files."""
    return [web.get("/api/v1/batches/{id}/jobs/{index}/video", Files(site).video)]


class _Part(NamedTuple):
    """The bytes of a file that are asked for: from `start` up to, but without, `end`."""

    start: int
    end: int
    whole: bool


class Files:
    """`GET` and `HEAD` of videos."""

    def __init__(self, site: Site) -> None:
        self._site, self._stores = site, site.service.stores
        self._reads = asyncio.Semaphore(_READS)
        self._unsigned_at = -math.inf
        self._sending = 0

    @operation(
        {200: {"video/mp4": BINARY, "*/*": BINARY}, 206: {"*/*": BINARY}, 302: {}, 304: {}}, 409, 412, 416,
        query=VERSION, headers={"Range": TEXT, "If-Range": TEXT, "If-Match": TEXT, "If-None-Match": TEXT},
        told=("ETag", "Content-Range", "Location"),
    )  # fmt: skip
    async def video(self, request: web.Request) -> web.StreamResponse:
        """The file of a job, or a part of it; from a bucket, a redirect to it."""
        job, video = await finished(self._site, request)
        headers = lasting(request, video.sha256)
        await self._check(job, video)  # first: a condition counts only where the file could be sent
        expected = expected_versions(request)
        if expected is not None and video.sha256 not in expected:
            raise refused(412, "the file is another one than If-Match names", headers={"ETag": headers["ETag"]})
        if is_current(request, video.sha256):
            return web.Response(status=304, headers=headers)
        elsewhere = await self._elsewhere(request, video)
        if elsewhere is not None:
            return web.Response(status=302, headers={"Location": elsewhere, "ETag": headers["ETag"]})
        part = _part(request, headers["ETag"], video.bytes)
        extension = PurePosixPath(urlsplit(video.uri).path).suffix
        headers |= {"Accept-Ranges": "bytes", "Content-Disposition": f'inline; filename="{job.id}{extension}"'}
        if not part.whole:
            headers["Content-Range"] = f"bytes {part.start}-{part.end - 1}/{video.bytes}"
        response = web.StreamResponse(status=200 if part.whole else 206, headers=headers)
        response.content_type, response.content_length = video.content_type, part.end - part.start
        self._sending += 1
        try:
            await self._send(request, response, video.uri, part)
        finally:
            self._sending -= 1
        return response

    async def _elsewhere(self, request: web.Request, video: VideoFile) -> str | None:
        """Where a program gets a file of a bucket; None: it is sent from here, as to a browser, which stays here."""
        asks_with_a_token = "Authorization" in request.headers
        is_browser = "Sec-Fetch-Site" in request.headers or self._site.access.has_session(request)
        if video.uri.startswith("file:") or (is_browser and not asks_with_a_token):
            return None
        if time.monotonic() - self._unsigned_at < _UNSIGNED:
            return None
        try:
            async with self._reads:
                method: Reads = "HEAD" if request.method == "HEAD" else "GET"  # a signature holds for one
                return await self._site.work(self._stores.presigned, video.uri, _PRESIGNED, method)
        except OSError as error:  # some credentials can't sign: files are sent from here
            self._unsigned_at = time.monotonic()
            logger.warning("the store signs no URLs", extra={"action": "web_unsigned", "error": str(error)})
            return None

    async def _check(self, job: Job, video: VideoFile) -> None:
        """Check that the file is there.

        Raises:
            NotFound: it is not.
            Conflict: somebody has overwritten it.
        """
        size = await self._read(lambda: self._stores.size(video.uri))
        if size is None:
            raise NotFound(f"the file is gone; {fetched_again(job)}")
        if size != video.bytes:
            overwritten = f"the file has {size} bytes, and {video.bytes} were recorded: somebody has overwritten it"
            raise Conflict(f"{overwritten}; remove it, and {fetched_again(job)}")

    async def _send(self, request: web.Request, response: web.StreamResponse, uri: str, part: _Part) -> None:
        """Send bytes at the reader's pace. What fails after the beginning ends the connection."""
        at = part.start
        # Before the beginning, an error can still be told.
        piece = b"" if request.method == "HEAD" else await self._piece(uri, at, part.end)
        try:
            await response.prepare(request)
            while piece:
                async with asyncio.timeout(_STALLED):
                    await response.write(piece)
                at += len(piece)
                piece = await self._piece(uri, at, part.end)
            await response.write_eof()
        except (OSError, TimeoutError, Refused, NotFound) as error:  # ConnectionResetError is one
            if not isinstance(error, ConnectionError):
                what = {"batch_id": request.match_info["id"], "index": request.match_info["index"]}
                about = {"action": "web_file", **what, "error": str(error)}
                logger.warning("a file could not be sent whole", extra=about)
            if request.transport is not None:
                request.transport.abort()

    async def _piece(self, uri: str, start: int, last: int) -> bytes:
        """The next bytes of a file; none at `last`."""
        little = uri.startswith("file:") or self._sending > _MANY
        end = min(start + (_PIECE_OF_A_FOLDER if little else _PIECE_OF_A_BUCKET), last)
        if start == end:
            return b""
        piece = await self._read(lambda: b"".join(self._stores.read(uri, start, end)))
        if len(piece) != end - start:
            raise Refused(_unreadable("the store ended a file early"))
        return piece

    async def _read(self, function: Callable[[], T]) -> T:
        """Ask the store, beside the loop.

        Raises:
            NotFound: it does not have the file.
            Refused: it can't be read.
        """
        try:
            async with self._reads:
                return await self._site.work(function)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound("the file is gone") from None
        except OSError as error:
            raise Refused(_unreadable(str(error))) from error


async def finished(site: Site, request: web.Request) -> tuple[Job, VideoFile]:
    """The job that is asked for, and its file.

    Raises:
        NotFound: there is no such batch or job.
        Conflict: it has no file (yet).
        Refused: the file was removed on purpose.
    """
    query_of(request, ("v",))
    batch_id, index = batch_id_of(request), index_of(request)
    found = await site.call(site.service.list_jobs, batch_id, None, 1, index - 1)
    if not found:
        raise NotFound(f"there is no job {index} in batch {batch_id!r}")
    job, video = found[0], found[0].video
    if video is None:
        way_out = "it has no file; retry it" if job.status in FINAL_JOB else "ask again when it is completed"
        raise Conflict(f"video {index} of batch {batch_id!r} is {job.status.value}: {way_out}")
    if video.removed_at is not None:
        raise refused(
            410, f"the file of video {index} of batch {batch_id!r} was removed on {video.removed_at:%Y-%m-%d}"
        )
    return job, video


def _unreadable(why: str) -> Problem:
    logger.warning("the store can't be read", extra={"action": "web_file", "error": why})
    text = "the store of the files can't be read at the moment; the service's log says why. Try again"
    return Problem(503, ErrorCode.STORAGE, text, headers={"Retry-After": "5"})


def lasting(request: web.Request, version: str) -> dict[str, str]:
    """How long an answer is good for: a finished video stays what it is, unless its batch is deleted and made anew."""
    seconds = 31_536_000 if "v" in request.query else 86_400
    return {"ETag": quoted(version), "Cache-Control": f"private, max-age={seconds}, immutable"}


def _part(request: web.Request, etag: str, size: int) -> _Part:
    """The bytes that `Range` asks for; all of them if it has several ranges, is none, or comes with a HEAD.

    Raises:
        Refused: 416, the file does not have them.
    """
    given = request.headers.getall("Range", [])
    found = _RANGE.fullmatch(given[0].strip()) if request.method == "GET" and len(given) == 1 else None
    if found is None or request.headers.get("If-Range", etag) != etag:
        return _Part(0, size, whole=True)
    first, last, suffix = found.groups()
    if suffix is not None:
        start, end = max(0, size - int(suffix)), size
    else:
        start, end = int(first), min(int(last) + 1, size) if last else size
    if start >= end:
        text = f"Range {found.group()[:60]!r} is outside the file, which has {size} bytes"
        raise refused(416, text, headers={"Content-Range": f"bytes */{size}"})
    return _Part(start, end, whole=False)
