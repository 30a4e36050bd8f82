"""One tile of a contact sheet: a picture or the reason why there is none, and below it number, state and prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Self

from actors.batch.job_views import Job
from actors.media.lettering import Lettering, is_right_to_left
from storage.states import JobStatus

if TYPE_CHECKING:
    from PIL.Image import Image

_PAD, _RADIUS = 10, 8
_NUMBER, _STATE, _TEXT = 19, 15, 16
_PROMPT_LINES = 3
_CARD, _BORDER, _INK, _STAGE = "#ffffff", "#c6ccd6", "#1c2330", "#11151c"
_COLOURS = {
    JobStatus.COMPLETED: ("#1f7a43", "#e3f4ea"),
    JobStatus.FAILED: ("#a61b1b", "#fdecec"),
    JobStatus.CANCELLED: ("#5a6475", "#edeff2"),
}
_OPEN = ("#1a5fa8", "#e6f0fa")
_DOUBTFUL = ("#8a4b00", "#fff3e0")
_LANDSCAPE, _NARROWEST = 320, 240
LONGEST = 426
"""The most pixels of a picture's longer side."""


class Tile(NamedTuple):
    """What a tile shows."""

    job: Job
    number: str
    picture: Image | None
    problem: str | None
    """Why the file of a completed job can't be shown."""


class TileSize(NamedTuple):
    """The size of all tiles of a sheet, and of the box for their pictures."""

    box: tuple[int, int]
    width: int
    height: int

    @classmethod
    def of(cls, tiles: Sequence[Tile]) -> Self:
        """As large as these tiles' pictures need."""
        sizes = [tile.picture.size for tile in tiles if tile.picture is not None] or [(16, 9)]
        longest = LONGEST if all(height > width for width, height in sizes) else _LANDSCAPE
        fits = [_fitted(size, (longest, longest)) for size in sizes]
        box = max(_NARROWEST, *(width for width, _ in fits)), max(135, *(height for _, height in fits))
        below = 2 * _PAD + Lettering(_NUMBER).height + 4 + _PROMPT_LINES * Lettering(_TEXT).height
        return cls(box, box[0], box[1] + below)


def draw_tile(
    image: Image, place: tuple[int, int], tile: Tile, size: TileSize, missing: set[str], *, of_takes: bool
) -> None:
    """Draw a tile with its upper left corner at `place`; `missing` gets characters that no font has.

    `of_takes`: other takes of its request stand beside it.
    """
    from PIL import ImageDraw

    x, y = place
    canvas = ImageDraw.Draw(image)
    card = (x - 1, y - 1, x + size.width, y + size.height)
    canvas.rounded_rectangle(card, _RADIUS, fill=_CARD, outline=_BORDER)
    box = (x, y, x + size.box[0] - 1, y + size.box[1] - 1)
    corners = (True, True, False, False)
    if tile.picture is not None:
        canvas.rounded_rectangle(box, _RADIUS, fill=_STAGE, corners=corners)
        _show(image, place, tile.picture, size.box)
    else:
        canvas.rounded_rectangle(box, _RADIUS, fill=_colours(tile)[1], corners=corners)
        _explain(image, place, tile, size.box, missing)
    title = f"{tile.number}  take {tile.job.take}" if of_takes or tile.job.take > 1 else tile.number
    _label(image, (x + _PAD, y + size.box[1] + _PAD), title, tile, size.width - 2 * _PAD, missing)


def _show(image: Image, place: tuple[int, int], picture: Image, box: tuple[int, int]) -> None:
    from PIL.Image import Resampling

    shown = picture.resize(_fitted(picture.size, box), Resampling.LANCZOS)
    image.paste(shown, (place[0] + (box[0] - shown.width) // 2, place[1] + (box[1] - shown.height) // 2))


def _explain(image: Image, place: tuple[int, int], tile: Tile, box: tuple[int, int], missing: set[str]) -> None:
    """Say in the box why there is no picture."""
    title, text = _explanation(tile)
    colour = _colours(tile)[0]
    head, body = Lettering(_NUMBER), Lettering(_TEXT)
    width = box[0] - 4 * _PAD
    lines = body.wrap(text, width, max(1, (box[1] - 4 * _PAD - head.height) // body.height)) if text else []
    y = place[1] + (box[1] - head.height - len(lines) * body.height) // 2
    head.draw(image, (place[0] + 2 * _PAD, y), head.cut(title, width), colour)
    _paragraph(image, (place[0] + 2 * _PAD, y + head.height), lines, width, body, _INK)
    missing |= head.missing | body.missing


def _explanation(tile: Tile) -> tuple[str, str]:
    job = tile.job
    if tile.problem is not None:
        return "no picture", tile.problem
    if job.error is not None:
        return job.error.code, job.error.message
    return (f"{job.status.value} {job.progress} %" if job.status is JobStatus.GENERATING else job.status.value), ""


def _label(image: Image, place: tuple[int, int], title: str, tile: Tile, width: int, missing: set[str]) -> None:
    from PIL import ImageDraw

    number, state, text = Lettering(_NUMBER), Lettering(_STATE), Lettering(_TEXT)
    x, y = place
    number.draw(image, (x, y), title, _INK)
    colour, ground = _colours(tile)
    word = tile.job.status.value
    left = x + width - round(state.width(word)) - 16
    ImageDraw.Draw(image).rounded_rectangle((left, y, x + width, y + state.height + 3), 11, fill=ground)
    state.draw(image, (left + 8, y + 2), word, colour)
    lines = text.wrap(tile.job.prompt, width, _PROMPT_LINES)
    _paragraph(image, (x, y + number.height + 4), lines, width, text, _INK)
    missing |= text.missing


def _paragraph(
    image: Image, place: tuple[int, int], lines: Sequence[str], width: int, text: Lettering, colour: str
) -> None:
    """Lines below one another; from the right where their script is written so."""
    to_the_left = bool(lines) and is_right_to_left(lines[0])
    for number, line in enumerate(lines):
        indent = max(0, width - round(text.width(line))) if to_the_left else 0
        text.draw(image, (place[0] + indent, place[1] + number * text.height), line, colour)


def _colours(tile: Tile) -> tuple[str, str]:
    return _DOUBTFUL if tile.problem is not None else _COLOURS.get(tile.job.status, _OPEN)


def _fitted(size: tuple[int, int], box: tuple[int, int]) -> tuple[int, int]:
    """The largest size with these proportions that fits into a box."""
    scale = min(box[0] / size[0], box[1] / size[1])
    return max(1, int(size[0] * scale)), max(1, int(size[1] * scale))
