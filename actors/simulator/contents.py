"""The contents of finished jobs: files in a temporary folder, made once each, off the event loop.

Owns the folder and the threads that draw. The folder goes when it is closed.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from actors.simulator.films import Film, write_film, write_spritesheet, write_thumbnail

if TYPE_CHECKING:
    from actors.simulator.jobs import Job
    from actors.simulator.profiles import Variant

DRAWN_SIZE = "720x1280"
"""Of a job that asked for no size, on a server that tells none."""
SUFFIXES: dict[Variant, str] = {"video": ".mp4", "thumbnail": ".webp", "spritesheet": ".jpg"}
TYPES: dict[Variant, str] = {"video": "video/mp4", "thumbnail": "image/webp", "spritesheet": "image/jpeg"}
BEGINNINGS: dict[Variant, bytes] = {
    "video": b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isommp41",
    "thumbnail": b"RIFF\x00\x00\x00\x00WEBP",
    "spritesheet": b"\xff\xd8\xff\xe0",
}
WRITERS = {"video": write_film, "thumbnail": write_thumbnail, "spritesheet": write_spritesheet}


class Contents:
    """Files of videos, thumbnails and sprite sheets."""

    def __init__(self, content_bytes: int | None) -> None:
        """Draw the contents, or fill them up to a number of bytes."""
        self._content_bytes = content_bytes
        self._folder = tempfile.TemporaryDirectory(prefix="sora-simulator-")
        self._stopped = threading.Event()
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="simulator-drawing")
        self._files: dict[tuple[str, Variant], asyncio.Future[Path]] = {}

    async def file(self, job: Job, variant: Variant) -> Path:
        """Give the file of a job's content; whoever asks meanwhile waits for the same drawing."""
        key = (job.id, variant)
        if key not in self._files:
            loop = asyncio.get_running_loop()
            self._files[key] = loop.run_in_executor(self._threads, self._make, job, variant)
        try:
            # A client that hangs up must not spoil the drawing for the others.
            return await asyncio.shield(self._files[key])
        except Exception:
            self._files.pop(key, None)
            raise

    def discard(self, job: Job) -> None:
        """Remove the files of a job."""
        for variant in SUFFIXES:
            if self._files.pop((job.id, variant), None) is not None:
                self._path(job, variant).unlink(missing_ok=True)

    def close(self) -> None:
        """Remove all files, after giving up what is being drawn: minutes of film take seconds to draw."""
        self._stopped.set()
        self._threads.shutdown(cancel_futures=True)
        self._folder.cleanup()

    def _path(self, job: Job, variant: Variant) -> Path:
        return Path(self._folder.name) / f"{job.number}{SUFFIXES[variant]}"

    def _make(self, job: Job, variant: Variant) -> Path:
        path = self._path(job, variant)
        if self._content_bytes is None:
            WRITERS[variant](film_of(job), path, self._stopped)
        else:
            _fill(path, variant, job, self._content_bytes)
        return path


def film_of(job: Job) -> Film:
    """Tell what a job's film looks like."""
    size = job.size or DRAWN_SIZE
    width, height = map(int, size.split("x"))
    caption = f"{job.model}  {size}  {job.seconds} s"
    return Film(prompt=job.prompt, caption=caption, width=width, height=height, seconds=job.seconds)


def _fill(path: Path, variant: Variant, job: Job, size: int) -> None:
    """Write a file of a size without writing most of it; the id in it tells one job's file from another's."""
    begin = BEGINNINGS[variant]
    if variant == "video":
        begin += b"\x00\x00\x00\x00free"  # a box of length 0 goes to the end of the file
    begin += f"SIMULATED {job.id}".encode()
    with path.open("wb") as file:
        file.write(begin[:size])
        file.truncate(size)
