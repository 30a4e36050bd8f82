"""The end of a download: the file is checked, flushed and put into place, many small files at once."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Any, TypeVar

from actors.errors import ErrorCode, Failure, SoraError
from storage.videos import EXTENSIONS, PartFile, flush_folder

T = TypeVar("T")
_KIND = re.compile(r"[\w.+-]{1,63}/[\w.+-]{1,63}", re.ASCII)
_VIDEO_TYPES = ("video/", "image/gif", "application/octet-stream", "application/binary", "binary/octet-stream")


@dataclass(frozen=True, slots=True)
class PendingFile:
    """A received file that remains to be checked, flushed and put into place."""

    part: PartFile
    block: bytes
    content_type: str
    expected: int | None
    file: FileIO | None
    """Open, if earlier blocks have been written."""

    def write(self) -> tuple[Path, dict[str, Any]]:
        """Write the last block, check that the file is complete, flush it, and put it into place.

        Returns:
            Its folder, which remains to be flushed, and what is recorded for the file.
        """
        part = self.part
        kind = self.check(flush=True)
        path = part.publish(EXTENSIONS.get(kind, ".bin"))
        video = {
            "uri": path.as_uri(), "path": str(path), "url": None,
            "bytes": part.bytes, "sha256": part.sha256, "content_type": kind,
        }  # fmt: skip
        return part.path.parent, video

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


def finish(group: list[PendingFile]) -> list[dict[str, Any] | Exception]:
    """Finish files, each with its result or error. Blocks.

    A folder is flushed once for all of its files, and the loop is woken once: each system call releases the GIL and has
    to win it back from the loop.
    """
    written = [_outcome(rest.write) for rest in group]
    folders = {outcome[0] for outcome in written if not isinstance(outcome, Exception)}
    flushed = {folder: _outcome(partial(flush_folder, folder)) for folder in folders}
    results: list[dict[str, Any] | Exception] = []
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


def broken(what: str) -> SoraError:
    """The error for a download that did not yield a complete video."""
    return SoraError(Failure(ErrorCode.DOWNLOAD_FAILED, f"the downloaded file is broken: {what}"))
