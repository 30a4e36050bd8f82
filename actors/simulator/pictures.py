"""Pictures in memory: shapes, lettering, and what a simulated film looks like. Each says SIMULATED.

Owns pixels; knows nothing of jobs, files or encoders. The letters come from FFmpeg's own decoder of ANSI
text (the 8x16 letters of a text terminal, code page 437), because the FFmpeg that PyAV brings has no
`drawtext`, and a second drawing library would be one more thing to install.

PyAV is imported inside the functions: importing the simulator must not need it.
"""

from __future__ import annotations

import math
import textwrap
import unicodedata
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Sequence

    import av
    from av.video.codeccontext import VideoCodecContext

MARK = "SIMULATED"
SMOOTH, COARSE = 10, 4
"""Frames a second: of a film of up to LONG seconds, and of a longer one."""
LONG = 30
LETTER_WIDTH, LETTER_HEIGHT = 8, 16
MARGIN = 2
"""Letters that a line of text is widened by: one at its left, and one at its right, where the decoder would
begin a new line by itself."""
WHITE, GREY, BLACK = (235, 128, 128), (90, 128, 128), (16, 128, 128)
TYPEWRITER = str.maketrans({"\u2013": "-", "\u2014": "-", "\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"'})
"""What word processors make of dashes and quotes, for letters that have only the plain ones."""


class Canvas:
    """A yuv420p picture: one byte array a plane, its rows as long as FFmpeg has them."""

    def __init__(self, frame: av.VideoFrame) -> None:
        """Take over the pixels of a yuv420p frame."""
        self.width, self.height = frame.width, frame.height
        self.strides = [plane.line_size for plane in frame.planes]
        self.planes = [bytearray(plane) for plane in frame.planes]

    @classmethod
    def blank(cls, width: int, height: int) -> Canvas:
        """Return an even-sided picture with nothing drawn yet."""
        import av

        return cls(av.VideoFrame(width, height, "yuv420p"))

    def copy(self) -> Canvas:
        """Return a picture of its own with the same pixels."""
        twin = object.__new__(Canvas)
        twin.width, twin.height, twin.strides = self.width, self.height, self.strides
        twin.planes = [bytearray(plane) for plane in self.planes]
        return twin

    def frame(self) -> av.VideoFrame:
        """Return the picture as a frame for an encoder."""
        import av

        frame = av.VideoFrame(self.width, self.height, "yuv420p")
        for plane, pixels in zip(frame.planes, self.planes, strict=True):
            plane.update(bytes(pixels))
        return frame

    def line(self, x: int, y: int, length: int, colour: tuple[int, int, int]) -> None:
        """Colour a part of one row; what lies outside the picture is left out."""
        left, right = max(0, x), min(self.width, x + length)
        if right <= left or not 0 <= y < self.height:
            return
        for plane, value in enumerate(colour):
            half = 1 if plane else 0
            start = (y >> half) * self.strides[plane] + (left >> half)
            width = (right >> half) - (left >> half)
            self.planes[plane][start : start + width] = bytes([value]) * width

    def rectangle(self, x: int, y: int, width: int, height: int, colour: tuple[int, int, int]) -> None:
        """Fill a rectangle."""
        for row in range(y, y + height):
            self.line(x, row, width, colour)

    def disc(self, x: int, y: int, radius: int, colour: tuple[int, int, int]) -> None:
        """Fill a circle around (x, y)."""
        for row in range(-radius, radius + 1):
            half = int((radius * radius - row * row) ** 0.5)
            self.line(x - half, y + row, 2 * half, colour)

    def paste(self, other: Canvas, x: int, y: int) -> None:
        """Copy another picture into this one; even offsets, cut at the right and lower edges."""
        for plane, pixels in enumerate(other.planes):
            half = 1 if plane else 0
            width = (min(other.width, self.width - x)) >> half
            for row in range(min(other.height, self.height - y) >> half):
                source = row * other.strides[plane]
                target = ((y >> half) + row) * self.strides[plane] + (x >> half)
                self.planes[plane][target : target + width] = pixels[source : source + width]


def backdrop(width: int, height: int, tint: tuple[int, int]) -> Canvas:
    """Return a picture that grows lighter from top to bottom, in one tint (its two chroma values)."""
    picture = Canvas.blank(width, height)
    for row in range(height):
        picture.line(0, row, width, (30 + 90 * row // height, *tint))
    return picture


def lettering(lines: Sequence[str], width: int, height: int) -> Canvas:
    """Draw lines of text, white on black, stretched to an even width and height."""
    import av

    columns = max(map(len, lines)) + MARGIN
    decoder = cast("VideoCodecContext", av.CodecContext.create("ansi", "r"))
    decoder.width, decoder.height = columns * LETTER_WIDTH, len(lines) * LETTER_HEIGHT
    decoder.options = {"max_pixels": str(2**31 - 1)}  # this decoder's own limit is a screen of 640x480
    text = "\r\n".join(f" {line}" for line in lines).encode("cp437")
    (frame,) = decoder.decode(av.Packet(b"\x1b[1;37m" + text))
    return Canvas(frame.reformat(width, height, "yuv420p", interpolation="POINT"))


def writable(text: str) -> str:
    """Return the text in letters that can be drawn: accents go where they must, what is left becomes `?`."""
    words = unicodedata.normalize("NFC", " ".join(text.split()))
    return "".join(map(_letter, words.translate(TYPEWRITER)))


def _letter(character: str) -> str:
    if not character.isprintable():  # an escape character would be obeyed by the decoder
        return ""
    plain = unicodedata.normalize("NFKD", character)
    for attempt in (character, "".join(part for part in plain if not unicodedata.combining(part))):
        try:
            attempt.encode("cp437")
        except UnicodeEncodeError:
            continue
        return attempt
    return "?"


def paragraph(text: str, width: int, height: int, largest: int) -> Canvas:
    """Draw a text, wrapped, as large as fits into a box (at most `largest` times 8x16), or cut off."""
    for scale in range(largest, 0, -1):
        columns = max(1, width // (LETTER_WIDTH * scale) - MARGIN)
        rows = max(1, height // (LETTER_HEIGHT * scale))
        lines = textwrap.wrap(text, columns) or ["?"]
        if len(lines) <= rows:
            break
    if len(lines) > rows:
        lines = [*lines[: rows - 1], lines[rows - 1][: max(0, columns - 3)] + "..."]
    # The letters in use may be wider than a very small box: then they are squeezed into it.
    used = (max(map(len, lines)) + MARGIN) * LETTER_WIDTH * scale
    return lettering(lines, min(used, width) & ~1, min(len(lines) * LETTER_HEIGHT * scale, height) & ~1)


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


def still(film: Film) -> Canvas:
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
    """Return the upper edge of the bar that shows how much of the film has been seen."""
    return film.height * 39 // 40 & ~1


def moment(film: Film, unmoved: Canvas, time: float) -> Canvas:
    """Draw what moves: a ball that bounces from side to side once in four seconds, and the bar."""
    picture = unmoved.copy()
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
