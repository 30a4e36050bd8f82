"""Text in pictures, in any script for which this machine has a font.

A line is drawn in runs, each in the first font that has its characters: Pillow itself uses one font per call.
"""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Iterable, Iterator
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


class _Run(NamedTuple):
    text: str
    face: _Face


class _Face:
    """A font file. Which characters it has is found out by drawing them: Pillow doesn't tell."""

    def __init__(self, path: Path | None) -> None:
        """`path`: None: Pillow's own font, which has Latin letters only."""
        self.path = path
        self.bitmaps = path is not None and path.stem in _EMOJI
        self._sizes: dict[int, FreeTypeFont | None] = {}
        self._known: dict[str, bool] = {}
        self._absent: tuple[tuple[int, int], bytes] | None = None

    def at(self, size: int) -> FreeTypeFont | None:
        """The font at a size; None: the file can't be used."""
        if size not in self._sizes:
            self._sizes[size] = self._load(size)
        return self._sizes[size]

    def _load(self, size: int) -> FreeTypeFont | None:
        from PIL import ImageFont

        if self.path is None:
            default = ImageFont.load_default(size)
            return default if isinstance(default, ImageFont.FreeTypeFont) else None
        for tried in _STRIKES if self.bitmaps else (size,):
            try:
                return ImageFont.truetype(str(self.path), tried)
            except (OSError, ValueError):
                continue
        return None

    def has(self, character: str) -> bool:
        """Whether it has a picture of its own for a character."""
        if character not in self._known:
            self._known[character] = self._draws(character)
        return self._known[character]

    def _draws(self, character: str) -> bool:
        font = self.at(20)
        if font is None:
            return False
        try:
            if self._absent is None:
                self._absent = _drawn(font, _ABSENT)
            drawn = _drawn(font, character)
        except (OSError, ValueError):  # some bitmap fonts lack a size for it
            return False
        return drawn != self._absent and (drawn[1].strip(b"\0") != b"" or character.isspace())


def _drawn(font: FreeTypeFont, text: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(text)
    return mask.size, bytes(mask)


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
        for run in self._in_order(text):
            width = self._run_width(run)
            if run.face.bitmaps:
                self._paste(image, (round(x), y), run, round(width))
            else:
                font = run.face.at(self.size)
                assert font is not None
                canvas.text((x, y + self.size), run.text, fill=colour, font=font, anchor="ls")
            x += width

    def wrap(self, text: str, width: int, lines: int) -> list[str]:
        """A text in at most so many lines of a width; what does not fit ends with an ellipsis."""
        wrapped: list[str] = []
        rest = " ".join(_printable(text).split())
        while rest and len(wrapped) < lines:
            line = self._fitting(rest, width)
            if len(line) < len(rest) and len(wrapped) == lines - 1:
                wrapped.append(self.cut(rest, width))
                return wrapped
            wrapped.append(line.rstrip())
            rest = rest[len(line) :].lstrip()
        return wrapped

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
        low, high = 0, min(len(text), 4 * max(1, int(width)))
        while low < high:
            middle = (low + high + 1) // 2
            if self.width(text[:middle]) <= width:
                low = middle
            else:
                high = middle - 1
        while 0 < low < len(text) and (_belongs(text[low]) or text[low - 1] == "\u200d"):
            low -= 1
        return low

    def _run_width(self, run: _Run) -> float:
        font = run.face.at(self.size)
        if font is None:
            return 0.0
        length = font.getlength(run.text)
        return length * self.size * 1.15 / font.size if run.face.bitmaps else length

    def _paste(self, image: Image, place: tuple[int, int], run: _Run, width: int) -> None:
        """Draw coloured bitmaps large, as they are in the font, and make them small."""
        from PIL import Image as Images
        from PIL import ImageDraw

        font = run.face.at(self.size)
        assert font is not None
        left, top, right, bottom = map(int, font.getbbox(run.text))
        large = Images.new("RGBA", (max(1, right - left), max(1, bottom - top)))
        ImageDraw.Draw(large).text((-left, -top), run.text, font=font, embedded_color=True)
        small = large.resize((max(1, width), self.size + 2), Images.Resampling.LANCZOS)
        image.paste(small, (place[0], place[1] + 1), small)

    def _in_order(self, text: str) -> list[_Run]:
        """The runs from left to right. Within a run Pillow orders the letters itself."""
        runs = list(self._runs(text))
        return runs[::-1] if is_right_to_left(text) else runs

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
        if current is not None and not current.bitmaps and (character == " " or current.has(character)):
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
    for character in text:
        direction = unicodedata.bidirectional(character)
        if direction in {"L", "R", "AL"}:
            return direction != "L"
    return False


def _printable(text: str) -> str:
    """Without characters that order or control text instead of being part of it."""
    return "".join(
        character if unicodedata.category(character) not in {"Cc", "Cs", "Co", "Cn"} else " "
        for character in text
        if character in _JOINERS or unicodedata.category(character) != "Cf"
    )


@cache
def _face_for(character: str) -> _Face | None:
    return next((face for face in _faces() if face.has(character)), None)


@cache
def _faces() -> tuple[_Face, ...]:
    """The fonts of this machine, in the order in which they are tried; the last is Pillow's own."""
    files = list(_font_files())
    by_name = {path.stem: path for path in reversed(files)}
    chosen = [by_name[name] for name in _PREFERRED if name in by_name]
    plain = (path for path in files if not any(style in path.stem.lower() for style in _STYLED))
    others = [path for path in plain if path not in chosen][:_MOST_FONTS]
    own = _Face(None)
    faces = [_Face(path) for path in [*chosen, *others]]
    # Without a usable Latin font, Pillow's own comes first.
    latin = next((face for face in faces if not face.bitmaps and face.has("a")), own)
    return (latin, *(face for face in faces if face is not latin), own)


def _font_files() -> Iterable[Path]:
    for folder in _folders():
        yield from sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)


def _folders() -> list[Path]:
    home = Path("~").expanduser()
    data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local/share")
    known = [data / "fonts", home / ".fonts"]
    if sys.platform == "darwin":
        known += [home / "Library/Fonts", Path("/Library/Fonts"), Path("/System/Library/Fonts")]
    else:
        known += [Path("/usr/local/share/fonts"), Path("/usr/share/fonts")]
    return [folder for folder in known if folder.is_dir()]
