"""The contents of finished jobs: an MP4 film, a thumbnail and a sprite sheet, made once each, off the event loop.

Owns how they are encoded, the folder that they lie in and the threads that make them. A film takes a good part of a
second of CPU; its MP4 file says in a comment that it is simulated. The folder goes when it is closed.
"""

from __future__ import annotations

import asyncio
import importlib.util
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from actors.simulator.pictures import Canvas, Film, moment, still, writable

if TYPE_CHECKING:
    from threading import Event

    from av.video.codeccontext import VideoCodecContext
    from av.video.stream import VideoStream

    from actors.simulator.jobs import Job

NO_PYAV = "the simulator draws videos with PyAV: pip install 'sora-batch[simulator]', or use --content-bytes"
COMMENT = "SIMULATED by sora-batch: no video model made this film"
FILM_ENCODERS = (
    ("libx264", {"preset": "ultrafast", "crf": "28", "threads": "1"}),
    ("mpeg4", {"qscale": "8"}),
)
DRAWN_SIZE = "720x1280"
"""Of a job that asked for no size, on a server that tells none."""
Variant = Literal["video", "thumbnail", "spritesheet"]
SUFFIXES: dict[Variant, str] = {"video": ".mp4", "thumbnail": ".webp", "spritesheet": ".jpg"}
TYPES: dict[Variant, str] = {"video": "video/mp4", "thumbnail": "image/webp", "spritesheet": "image/jpeg"}
BEGINNINGS: dict[Variant, bytes] = {
    "video": b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isommp41",
    "thumbnail": b"RIFF\x00\x00\x00\x00WEBP",
    "spritesheet": b"\xff\xd8\xff\xe0",
}


class DrawingUnavailableError(ModuleNotFoundError):
    """PyAV is not installed, so nothing can be drawn."""


def require_drawing() -> None:
    """Raise DrawingUnavailableError if PyAV is not installed; nothing is imported."""
    if importlib.util.find_spec("av") is None:
        raise DrawingUnavailableError(NO_PYAV, name="av")


def write_film(film: Film, path: Path, stopped: Event) -> None:
    """Write an MP4 file of exactly the film's size and length, or a shorter one once it is stopped."""
    import av

    name, options = _encoder()
    unmoved = still(film)
    with av.open(path, "w", format="mp4", options={"movflags": "faststart"}) as container:
        container.metadata["comment"] = COMMENT
        container.metadata["title"] = writable(film.prompt)[:200]
        stream = cast("VideoStream", container.add_stream(name, rate=film.rate, options=dict(options)))
        stream.width, stream.height, stream.pix_fmt = film.width, film.height, "yuv420p"
        for number in range(film.seconds * film.rate):
            if stopped.is_set():
                break
            frame = moment(film, unmoved, number / film.rate).frame()
            frame.pts, frame.time_base = number, Fraction(1, film.rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def write_thumbnail(film: Film, path: Path, _stopped: Event) -> None:
    """Write the film's middle as one WebP picture."""
    _write_picture(moment(film, still(film), film.seconds / 2), "libwebp", "yuv420p", path)


def write_spritesheet(film: Film, path: Path, _stopped: Event) -> None:
    """Write ten moments of the film as one JPEG picture, five in a row."""
    width, height = _sprite_size(film)
    sheet = Canvas.blank(5 * width, 2 * height)
    unmoved = still(film)
    for number in range(10):
        frame = moment(film, unmoved, film.seconds * number / 10).frame()
        sprite = Canvas(frame.reformat(width, height, "yuv420p"))
        sheet.paste(sprite, width * (number % 5), height * (number // 5))
    _write_picture(sheet, "mjpeg", "yuvj420p", path)


def _sprite_size(film: Film) -> tuple[int, int]:
    shrink = max(1.0, max(film.width, film.height) / 256)
    return max(16, int(film.width / shrink) & ~1), max(16, int(film.height / shrink) & ~1)


def _write_picture(picture: Canvas, encoder: str, pixels: str, path: Path) -> None:
    import av

    context = cast("VideoCodecContext", av.CodecContext.create(encoder, "w"))
    context.width, context.height, context.pix_fmt = picture.width, picture.height, pixels
    context.time_base = Fraction(1, 1)
    frame = picture.frame().reformat(format=pixels)
    frame.pts = 0
    path.write_bytes(b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)]))


def _encoder() -> tuple[str, dict[str, str]]:
    """Choose H.264 where the encoder is there: every browser and player shows it."""
    import av

    for name, options in FILM_ENCODERS:
        if name in av.codecs_available:
            return name, options
    message = "this build of PyAV has neither the encoder libx264 nor mpeg4"
    raise RuntimeError(message)


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
        """Return the file of a job's content; whoever asks meanwhile waits for the same drawing."""
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
    """Describe a job's film."""
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
