"""The contact sheet of a batch: a tile for each video, with its number, its state and its prompt."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from actors.batch.job_views import Job
from actors.batch.views import Batch
from actors.errors import InvalidRequest, SoraBatchError
from actors.loop import DaemonThreads
from actors.media.frames import first_frame, require_media
from actors.media.tiles import LONGEST, Tile, TileSize, draw_tile
from storage.states import JobStatus

if TYPE_CHECKING:
    from PIL.Image import Image

PER_PAGE = 120
"""Videos on one page: more would make a picture that programs refuse, or tiles that nobody can read."""
_GAP, _MARGIN, _HEADER = 16, 28, 92
_MOST_COLUMNS = 12
_NARROWEST = 640
_SHAPE = 4 / 3
_THREADS = 4
_SHEET, _PANEL, _INK, _FAINT = "#eef0f3", "#d9dee6", "#1c2330", "#5a6475"
_QUALITY = 90

FilmOf = Callable[[Job], AbstractContextManager[BinaryIO]]
"""Opens the file of a completed job. Raises SoraBatchError or OSError if it can't be opened."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """A page of a contact sheet."""

    image: Image
    page: int
    pages: int
    missing: frozenset[str]
    """Characters that this machine has no font for."""

    def encoded(self, kind: str) -> bytes:
        """The picture as a file of this kind: PNG, JPEG or WEBP."""
        written = io.BytesIO()
        self.image.save(written, kind, quality=_QUALITY)
        return written.getvalue()


def page_count(batch: Batch) -> int:
    """How many pages the contact sheet of a batch has."""
    return max(1, math.ceil(len(batch.jobs) / PER_PAGE))


def contact_sheet(batch: Batch, film_of: FilmOf, page: int = 1) -> Sheet:
    """Draw a page of a batch's contact sheet. What can't be shown is told in its tile.

    Args:
        batch: with its jobs.
        film_of: opens the files; called in several threads.
        page: from 1.

    Raises:
        InvalidRequest: there is no such page.
        MediaUnavailable: the extra `media` is not installed.
    """
    require_media()
    pages = page_count(batch)
    if not 1 <= page <= pages:
        raise InvalidRequest(f"page: must be from 1 to {pages} (got {page})")
    jobs = batch.jobs[(page - 1) * PER_PAGE : page * PER_PAGE]
    threads = DaemonThreads(min(_THREADS, os.cpu_count() or 1))
    try:
        tiles = list(threads.map(lambda job: _tile(job, batch, film_of), jobs))
    finally:
        threads.shutdown()  # nobody waits for a silent store after Ctrl-C
    missing: set[str] = set()
    image = _drawn(batch, tiles, f"page {page} of {pages}" if pages > 1 else "", missing)
    return Sheet(image, page, pages, frozenset(missing))


def _tile(job: Job, batch: Batch, film_of: FilmOf) -> Tile:
    number = f"{job.index:0{max(2, len(str(batch.progress.total)))}}"
    picture, problem = None, None
    if job.status is JobStatus.COMPLETED:
        try:
            with film_of(job) as film:
                picture = first_frame(film, LONGEST)
        except (SoraBatchError, OSError) as error:
            problem = getattr(error, "strerror", None) or str(error)
    return Tile(job, number, picture, problem)


def _drawn(batch: Batch, tiles: Sequence[Tile], page: str, missing: set[str]) -> Image:
    from PIL import Image as Images
    from PIL import ImageDraw

    size = TileSize.of(tiles)
    groups = list(_takes(tiles))
    columns = _columns(len(tiles), max(map(len, groups), default=1), size)
    places = list(_places(groups, columns))
    columns = max((column for _, column, _ in places), default=0) + 1  # whole groups may leave the last ones empty
    rows = max((row for _, _, row in places), default=0) + 1
    width = max(2 * _MARGIN + columns * (size.width + _GAP) - _GAP, _NARROWEST)
    image = Images.new("RGB", (width, _HEADER + rows * (size.height + _GAP) - _GAP + _MARGIN), _SHEET)
    _head(image, batch, page, missing)
    at = {id(tile): (_MARGIN + column * (size.width + _GAP), _HEADER + row * (size.height + _GAP))
          for tile, column, row in places}  # fmt: skip
    canvas, edge = ImageDraw.Draw(image), _GAP // 2 - 2
    for group in groups:
        for beside in _in_rows([at[id(tile)] for tile in group]) if len(group) > 1 else ():
            (left, top), right = beside[0], beside[-1][0] + size.width
            corners = (left - edge, top - edge, right + edge, top + size.height + edge)
            canvas.rounded_rectangle(corners, 12, fill=_PANEL)
        for tile in group:
            draw_tile(image, at[id(tile)], tile, size, missing, of_takes=len(group) > 1)
    return image


def _head(image: Image, batch: Batch, page: str, missing: set[str]) -> None:
    from actors.media.lettering import Lettering

    large, small, width = Lettering(26), Lettering(17), image.width - 2 * _MARGIN
    large.draw(image, (_MARGIN, 16), large.cut(batch.name or batch.id, width), _INK)
    progress = batch.progress
    counts = ((progress.failed, "failed"), (progress.cancelled, "cancelled"), (progress.pending, "pending"))
    told = [f"batch {batch.id}: {batch.status.value}", f"{progress.completed} of {progress.total} completed"]
    told += [f"{number} {state}" for number, state in counts if number] + ([page] if page else [])
    small.draw(image, (_MARGIN, 54), small.cut(", ".join(told), width), _FAINT)
    missing |= large.missing | small.missing


def _takes(tiles: Sequence[Tile]) -> Iterator[list[Tile]]:
    """Tiles whose videos are takes of one request, together."""
    group: list[Tile] = []
    for tile in tiles:
        if group and tile.job.take != group[-1].job.take + 1:
            yield group
            group = []
        group.append(tile)
    if group:
        yield group


def _columns(tiles: int, takes: int, size: TileSize) -> int:
    columns = math.ceil(math.sqrt(tiles * size.height / size.width * _SHAPE))
    columns = min(max(columns, 1), _MOST_COLUMNS, max(tiles, 1))
    if 1 < takes <= _MOST_COLUMNS:  # whole groups stand side by side
        columns = min(math.ceil(columns / takes) * takes, _MOST_COLUMNS // takes * takes)
    return max(columns, 2 if tiles > 1 else 1)


def _places(groups: Sequence[Sequence[Tile]], columns: int) -> Iterator[tuple[Tile, int, int]]:
    """The column and the row of each tile. A group begins a new row if it does not fit into this one."""
    column, row = 0, 0
    for group in groups:
        if column and column + len(group) > columns and len(group) > 1:
            column, row = 0, row + 1
        for tile in group:
            if column == columns:
                column, row = 0, row + 1
            yield tile, column, row
            column += 1


def _in_rows(places: Sequence[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    for top in dict.fromkeys(y for _, y in places):
        yield [place for place in places if place[1] == top]
