"""Text in pictures, in any script for which this machine has a font.

A line is drawn in runs, each in the first font that has its characters: Pillow itself uses one font per call.
"""

from __future__ import annotations

import os
import sys
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont

_PREFERRED = (
    "DejaVuSans", "NotoSans-Regular", "LiberationSans-Regular", "Arial", "Helvetica", "SegoeUI",
    "NotoSansCJK-Regular", "NotoSansCJKsc-Regular", "SourceHanSans-Regular", "PingFang", "Hiragino Sans GB", "msyh",
    "YuGothM", "malgun", "wqy-microhei", "wqy-zenhei", "DroidSansFallbackFull", "DroidSansFallback", "Arial Unicode",
    "NotoColorEmoji", "Apple Color Emoji", "seguiemj", "Symbola",
)  # fmt: skip
"""Names of font files, the ones to try first. For what none of them has, every other regular font is tried."""
_STYLED = ("bold", "italic", "oblique", "light", "thin", "black", "medium", "condensed", "mono", "serif")
_EMOJI = ("NotoColorEmoji", "Apple Color Emoji")
_STRIKES = (109, 160, 96, 64)
"""The sizes, in pixels, at which fonts of coloured bitmaps exist: others are made from one of them."""
_SUFFIXES = {".ttf", ".otf", ".ttc"}
_MOST_FONTS = 400
_ABSENT = "\U0010ffff"
"""No font has this one: what is drawn for it is drawn for every other missing character."""
_JOINERS = "\u200d\ufe0e\ufe0f\u20e3"
_ELLIPSIS = "\u2026"


@dataclass(frozen=True, slots=True, eq=False)
class _Face:
    """A font file, or with None Pillow's own font, which has Latin letters only."""

    path: Path | None
    bitmaps: bool = False


class _Run(NamedTuple):
    text: str
    face: _Face


class Lettering:
    """Draws text of one size. `missing` collects the characters for which there is no font."""

    def __init__(self, size: int) -> None:
        """`size`: of the letters, in pixels."""
        self.size = size
        self.height = round(size * 1.35)
        """From line to line."""
        self.missing: set[str] = set()

    def width(self, text: str) -> float:
        """How many pixels wide a line is."""
        return sum(self._run_width(run) for run in self._runs(text))

    def draw(self, image: Image, place: tuple[int, int], text: str, colour: str) -> None:
        """Draw a line with its upper left corner at `place`."""
        from PIL import ImageDraw

        canvas, (x, y) = ImageDraw.Draw(image), (float(place[0]), place[1])
        runs = list(self._runs(text))  # from left to right; within a run Pillow orders the letters itself
        for run in reversed(runs) if is_right_to_left(text) else runs:
            width = self._run_width(run)
            if run.face.bitmaps:
                self._paste(image, (round(x), y), run, round(width))
            else:
                font = _font(run.face, self.size)
                assert font is not None
                canvas.text((x, y + self.size), run.text, fill=colour, font=font, anchor="ls")
            x += width

    def wrap(self, text: str, width: int, lines: int) -> list[str]:
        """A text in at most so many lines of a width; what does not fit ends with an ellipsis."""
        wrapped: list[str] = []
        rest = " ".join(_printable(text).split())
        while rest and len(wrapped) < lines - 1:
            line = self._fitting(rest, width)
            wrapped.append(line.rstrip())
            rest = rest[len(line) :].lstrip()
        return [*wrapped, self.cut(rest, width)] if rest else wrapped

    def cut(self, text: str, width: int) -> str:
        """A text in one line of a width; what does not fit ends with an ellipsis."""
        line = " ".join(_printable(text).split())
        if self.width(line[: 4 * width]) <= width and len(line) <= 4 * width:
            return line
        return line[: self._prefix(line, width - self.width(_ELLIPSIS))].rstrip() + _ELLIPSIS

    def _fitting(self, text: str, width: int) -> str:
        """The beginning of a text that fits, broken between words where there are any."""
        end = self._prefix(text, width)
        if end >= len(text):
            return text
        space = text.rfind(" ", 0, end + 1)
        return text[: space + 1] if space > end // 3 else text[: max(end, 1)]

    def _prefix(self, text: str, width: float) -> int:
        """How many characters of a text fit, without parting what belongs together."""
        lengths = range(1, min(len(text), 4 * max(1, int(width))) + 1)
        fitting = bisect_right(lengths, width, key=lambda length: self.width(text[:length]))
        while 0 < fitting < len(text) and (_belongs(text[fitting]) or text[fitting - 1] == "\u200d"):
            fitting -= 1
        return fitting

    def _run_width(self, run: _Run) -> float:
        font = _font(run.face, self.size)
        if font is None:
            return 0.0
        length = font.getlength(run.text)
        return length * self.size * 1.15 / font.size if run.face.bitmaps else length

    def _paste(self, image: Image, place: tuple[int, int], run: _Run, width: int) -> None:
        """Draw coloured bitmaps large, as they are in the font, and make them small."""
        from PIL import Image as Images
        from PIL import ImageDraw

        font = _font(run.face, self.size)
        assert font is not None
        left, top, right, bottom = map(int, font.getbbox(run.text))
        large = Images.new("RGBA", (max(1, right - left), max(1, bottom - top)))
        ImageDraw.Draw(large).text((-left, -top), run.text, font=font, embedded_color=True)
        small = large.resize((max(1, width), self.size + 2), Images.Resampling.LANCZOS)
        image.paste(small, (place[0], place[1] + 1), small)

    def _runs(self, text: str) -> Iterator[_Run]:
        collected, face = "", None
        for character in text:
            if face is None or not (_belongs(character) or collected[-1] == "\u200d"):
                found = self._face_of(character, face)
                if face is not None and found is not face:
                    yield _Run(collected, face)
                    collected = ""
                face = found
            collected += character
        if face is not None:
            yield _Run(collected, face)

    def _face_of(self, character: str, current: _Face | None) -> _Face:
        if current is not None and not current.bitmaps and (character == " " or _has(current, character)):
            return current
        face = _face_for(character)
        if face is None:
            self.missing.add(character)
            return current if current is not None and not current.bitmaps else _faces()[0]
        return face


def _belongs(character: str) -> bool:
    """Whether a character changes the one before it: an accent, a skin tone, a joiner."""
    return (
        character in _JOINERS
        or "\U0001f3fb" <= character <= "\U0001f3ff"
        or unicodedata.category(character) in {"Mn", "Me"}
    )


def is_right_to_left(text: str) -> bool:
    """Whether a text begins in a script that is written from right to left."""
    directions = (unicodedata.bidirectional(character) for character in text)
    return next((direction != "L" for direction in directions if direction in {"L", "R", "AL"}), False)


def _printable(text: str) -> str:
    """Without characters that order or control text instead of being part of it."""
    return "".join(
        character if unicodedata.category(character) not in {"Cc", "Cs", "Co", "Cn"} else " "
        for character in text
        if character in _JOINERS or unicodedata.category(character) != "Cf"
    )


@cache
def _font(face: _Face, size: int) -> FreeTypeFont | None:
    """The font at a size; None: the file can't be used."""
    from PIL import ImageFont

    if face.path is None:
        default = ImageFont.load_default(size)
        return default if isinstance(default, ImageFont.FreeTypeFont) else None
    for tried in _STRIKES if face.bitmaps else (size,):
        with suppress(OSError, ValueError):
            return ImageFont.truetype(str(face.path), tried)
    return None


@cache
def _has(face: _Face, character: str) -> bool:
    """Whether a font has a picture of its own for a character: Pillow doesn't tell, so it is drawn."""
    font = _font(face, 20)
    if font is None:
        return False
    try:
        drawn, absent = _drawn(font, character), _absent(font)
    except (OSError, ValueError):  # some bitmap fonts lack a size for it
        return False
    return drawn != absent and (drawn[1].strip(b"\0") != b"" or character.isspace())


@cache
def _absent(font: FreeTypeFont) -> tuple[tuple[int, int], bytes]:
    return _drawn(font, _ABSENT)


def _drawn(font: FreeTypeFont, text: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(text)
    return mask.size, bytes(mask)


@cache
def _face_for(character: str) -> _Face | None:
    return next((face for face in _faces() if _has(face, character)), None)


@cache
def _faces() -> tuple[_Face, ...]:
    """The fonts of this machine, in the order in which they are tried; the last is Pillow's own."""
    files = [path for folder in _folders() for path in sorted(folder.rglob("*")) if path.suffix.lower() in _SUFFIXES]
    by_name = {path.stem: path for path in reversed(files)}
    chosen = [by_name[name] for name in _PREFERRED if name in by_name]
    plain = (path for path in files if not any(style in path.stem.lower() for style in _STYLED))
    others = [path for path in plain if path not in chosen][:_MOST_FONTS]
    own = _Face(None)
    faces = [_Face(path, path.stem in _EMOJI) for path in [*chosen, *others]]
    # Without a usable Latin font, Pillow's own comes first.
    latin = next((face for face in faces if not face.bitmaps and _has(face, "a")), own)
    return (latin, *(face for face in faces if face is not latin), own)


def _folders() -> list[Path]:
    home = Path("~").expanduser()
    data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local/share")
    known = [data / "fonts", home / ".fonts"]
    if sys.platform == "darwin":
        known += [home / "Library/Fonts", Path("/Library/Fonts"), Path("/System/Library/Fonts")]
    else:
        known += [Path("/usr/local/share/fonts"), Path("/usr/share/fonts")]
    return [folder for folder in known if folder.is_dir()]
