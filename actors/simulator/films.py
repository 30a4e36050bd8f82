"""The simulated videos as files: an MP4 film, a thumbnail, a sprite sheet.

Owns how a film looks and how it is encoded. Decides nothing about jobs and never runs on the event loop: the
functions take a good part of a second of CPU and are called in a thread.

Every picture says SIMULATED, and so does the comment in the MP4 file.
"""

from __future__ import annotations

import importlib.util
import math
import zlib
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, cast

from actors.simulator.pictures import (
    BLACK,
    GREY,
    MARGIN,
    WHITE,
    Canvas,
    backdrop,
    lettering,
    paragraph,
    writable,
)

if TYPE_CHECKING:
    from pathlib import Path
    from threading import Event

    from av.video.codeccontext import VideoCodecContext
    from av.video.stream import VideoStream

MARK = "SIMULATED"
NO_PYAV = "the simulator draws videos with PyAV: pip install 'sora-batch[simulator]', or use --content-bytes"
COMMENT = "SIMULATED by sora-batch: no video model made this film"
FILM_ENCODERS = (
    ("libx264", {"preset": "ultrafast", "crf": "28", "threads": "1"}),
    ("mpeg4", {"qscale": "8"}),
)
SMOOTH, COARSE = 10, 4
"""Frames a second: of a film of up to LONG seconds, and of a longer one."""
LONG = 30


class DrawingUnavailableError(ModuleNotFoundError):
    """PyAV is not installed, so nothing can be drawn."""


def require_drawing() -> None:
    """Raise DrawingUnavailableError if PyAV is not installed; nothing is imported."""
    if importlib.util.find_spec("av") is None:
        raise DrawingUnavailableError(NO_PYAV, name="av")


@dataclass(frozen=True, kw_only=True)
class Film:
    """What is to be drawn."""

    prompt: str
    caption: str
    """A line of facts under the prompt."""
    width: int
    height: int
    """Both even: H.264 halves them for the colours."""
    seconds: int

    @property
    def rate(self) -> int:
        """Frames a second."""
        return SMOOTH if self.seconds <= LONG else COARSE


def write_film(film: Film, path: Path, stopped: Event) -> None:
    """Write an MP4 file of exactly the film's size and length, or a shorter one once it is stopped."""
    import av

    name, options = _encoder()
    still = _still(film)
    with av.open(path, "w", format="mp4", options={"movflags": "faststart"}) as container:
        container.metadata["comment"] = COMMENT
        container.metadata["title"] = writable(film.prompt)[:200]
        stream = cast("VideoStream", container.add_stream(name, rate=film.rate, options=dict(options)))
        stream.width, stream.height, stream.pix_fmt = film.width, film.height, "yuv420p"
        for number in range(film.seconds * film.rate):
            if stopped.is_set():
                break
            frame = _moment(film, still, number / film.rate).frame()
            frame.pts, frame.time_base = number, Fraction(1, film.rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def write_thumbnail(film: Film, path: Path, _stopped: Event) -> None:
    """Write the film's middle as one WebP picture."""
    _write_picture(_moment(film, _still(film), film.seconds / 2), "libwebp", "yuv420p", path)


def write_spritesheet(film: Film, path: Path, _stopped: Event) -> None:
    """Write ten moments of the film as one JPEG picture, five in a row."""
    width, height = _sprite_size(film)
    sheet = Canvas.blank(5 * width, 2 * height)
    still = _still(film)
    for number in range(10):
        frame = _moment(film, still, film.seconds * number / 10).frame()
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


def _still(film: Film) -> Canvas:
    """Draw what does not move, once a film."""
    width, height = film.width, film.height
    digest = zlib.crc32(film.prompt.encode("utf-8", "replace"))
    picture = backdrop(width, height, (96 + digest % 64, 96 + digest // 64 % 64))
    letter = max(1, min(width, height) // 240)
    mark_width = min(width * 9 // 10, (len(MARK) + MARGIN) * 16 * letter) & ~1
    mark = lettering([MARK], mark_width, min(32 * letter, height // 4) & ~1)
    text = paragraph(writable(film.prompt), width * 9 // 10, height // 2, letter)
    caption = paragraph(writable(film.caption), width * 9 // 10, height // 12, max(1, letter - 1))
    for part, top in ((text, height // 5), (caption, height * 29 // 40), (mark, height // 20)):
        picture.paste(part, (width - part.width) // 2 & ~1, top & ~1)
    picture.rectangle(0, _bar(film), width, film.height - _bar(film), BLACK)
    return picture


def _bar(film: Film) -> int:
    """Give the upper edge of the bar that shows how much of the film has been seen."""
    return film.height * 39 // 40 & ~1


def _moment(film: Film, still: Canvas, time: float) -> Canvas:
    """Draw what moves: a ball that bounces from side to side once in four seconds, and the bar."""
    picture = still.copy()
    radius = max(2, min(film.width, film.height) // 16)
    lane = film.width - 2 * radius
    across = abs((time / 2) % 2 - 1)
    up = abs(math.sin(math.pi * time)) * film.height / 20
    floor = _bar(film) - radius
    picture.disc(radius + int(lane * across) & ~1, int(floor - up), radius, WHITE)
    picture.disc(radius + int(lane * across) & ~1, int(floor - up), radius // 2, GREY)
    done = film.width * (time + 1 / film.rate) / film.seconds
    picture.rectangle(0, _bar(film), int(done) & ~1, film.height - _bar(film), WHITE)
    return picture
