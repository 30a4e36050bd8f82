"""Downloading a finished video: from the server's content route, from another URL, or from its JSON."""

from __future__ import annotations

import asyncio
import base64
from contextlib import AbstractAsyncContextManager, suppress
from io import FileIO

import aiohttp

from actors.sora.wire import RemoteVideo
from actors.video.files import PendingFile, broken
from actors.video.keeping import CheckedFile
from actors.video.tools import Tools
from storage.records import Document
from storage.videos import PartFile

_BLOCK = 1 << 20
_LARGEST_FILE = 4 << 30
"""Bytes: a server that never stops sending must not fill the disk."""


class FileTooLarge(Exception):
    """The server sends more than the largest allowed file."""


async def fetch(tools: Tools, part: PartFile, remote_id: str, video: RemoteVideo, tries: int) -> Document | CheckedFile:
    """Download a video's file and have the keeper take it, in one attempt.

    Args:
        tools: the shared tools.
        part: the partial file.
        remote_id: the video.
        video: as the server reported it: its other URLs, or the file itself.
        tries: the number of earlier attempts.

    Returns:
        What is recorded for the file, or the file that remains to be put into the bucket.

    Raises:
        SoraError: it can't be downloaded, or is broken.
        FileTooLarge: it exceeds the limit.
        OSError: it can't be written.
    """
    if video.inline is not None:
        try:
            data = base64.b64decode(video.inline)
        except ValueError as error:
            raise broken(f"invalid base64: {error}") from error
        return await _keep(tools, part, [data], "video/mp4", len(data))
    async with _source(tools, remote_id, video, tries) as response:
        return await _receive(tools, part, response)


def _source(
    tools: Tools, remote_id: str, video: RemoteVideo, tries: int
) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
    # Some servers have no content route, or none for this file, but gave another URL.
    if video.urls and tries % 2 == 1:
        return tools.client.content_at(video.urls[0])
    return tools.client.content(remote_id, anew=tries > 0)


async def _receive(tools: Tools, part: PartFile, response: aiohttp.ClientResponse) -> Document | CheckedFile:
    """Receive a file. One that fits into a single block costs only one call to the flushing thread."""
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
                raise FileTooLarge(f"exceeds the {_LARGEST_FILE / (1 << 30):g} GiB limit")
            if size >= _BLOCK:
                file = file or await tools.io.offload(part.open)
                await tools.io.offload(part.write, file, b"".join(block))
                block, size = [], 0
        return await _keep(tools, part, block, response.content_type, expected, file)
    except (aiohttp.ClientError, TimeoutError) as error:
        raise broken(f"the download broke off: {tools.client.words(error)}") from error
    except asyncio.CancelledError:
        file = None  # a thread may still be writing to it, which closes it at its end
        raise
    finally:
        if file is not None:
            with suppress(OSError):
                file.close()


async def _keep(
    tools: Tools,
    part: PartFile,
    block: list[bytes],
    content_type: str,
    expected: int | None,
    file: FileIO | None = None,
) -> Document | CheckedFile:
    return await tools.keeper.take(PendingFile(part, b"".join(block), content_type, expected, file))
