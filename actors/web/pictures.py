"""Posters and contact sheets that are asked for over HTTP: drawn beside the loop, a few at a time, and kept a while."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from actors.errors import Conflict, ErrorCode, FieldError, InvalidRequest, StorageError
from actors.web.problems import Problem, Refused

if TYPE_CHECKING:
    from actors.batch.views import Batch, Job, VideoFile
    from actors.web.handlers import Site

_AT_ONCE = 2
"""Pictures that are drawn at the same time."""
_POSTERS, _SHEETS = 32 << 20, 16 << 20
"""Bytes of pictures that are kept."""


class Pictures:
    """Draws each picture once, whoever asks for it meanwhile."""

    POSTER: ClassVar[str] = "image/webp"
    SHEET: ClassVar[str] = "image/webp"

    def __init__(self, site: Site) -> None:
        self._site = site
        self._turn = asyncio.Semaphore(_AT_ONCE)
        self._posters, self._sheets = _Kept(_POSTERS), _Kept(_SHEETS)

    async def poster(self, job: Job, video: VideoFile) -> bytes:
        """The first frame of a film.

        Raises:
            Refused: the extra `media` is missing, or the store can't be read.
            Conflict: the film is damaged, or gone.
        """

        def draw() -> bytes:
            from actors.media.frames import film_of, poster

            with film_of(self._site.service.stores)(job) as film:
                return poster(film)

        return await self._drawn(self._posters, video.sha256, draw, f"video {job.index} has no poster")

    def page_of(self, query: dict[str, str], batch: Batch) -> tuple[int, int]:
        """The page that is asked for, and how many there are.

        Raises:
            InvalidRequest: there is no such page.
        """
        from actors.media.sheet import page_count

        given, pages = query.get("page", "1"), page_count(batch)
        if not (given.isascii() and given.isdigit() and len(given) <= 9 and 1 <= int(given) <= pages):
            expected = f"from 1 to {pages}"
            message = f"page: must be {expected} (got {given[:80]!r})"
            raise InvalidRequest(message, (FieldError("?page", message, expected, "range"),))
        return int(given), pages

    async def sheet(self, batch: Batch, page: int, key: str) -> bytes:
        """A page of a batch's contact sheet; `key` tells it from others.

        Raises:
            Refused: the extra `media` is missing.
        """

        def draw() -> bytes:
            from actors.media.frames import film_of
            from actors.media.sheet import contact_sheet

            return contact_sheet(batch, film_of(self._site.service.stores), page).encoded("WEBP")

        return await self._drawn(self._sheets, key, draw, f"batch {batch.id!r} has no contact sheet")

    async def _drawn(self, kept: _Kept, key: str, draw: Callable[[], bytes], what: str) -> bytes:
        if key not in kept.coming:
            kept.coming[key] = asyncio.ensure_future(self._draw(kept, key, draw))
            kept.coming[key].add_done_callback(_heard)
        try:
            return await asyncio.shield(kept.coming[key])
        except ModuleNotFoundError as error:
            raise Refused(Problem(503, ErrorCode.UNAVAILABLE, str(error), headers={"Retry-After": "3600"})) from error
        except (OSError, Conflict) as error:
            raise Conflict(f"{what}: {error}") from error

    async def _draw(self, kept: _Kept, key: str, draw: Callable[[], bytes]) -> bytes:
        from actors.media.frames import UnreadableVideo

        try:
            picture = kept.get(key)
            if picture is None:
                async with self._turn:
                    picture = await self._site.work(draw)
                kept.keep(key, picture)
        except (UnreadableVideo, StorageError) as error:  # of the film, not of the database
            raise Conflict(error.message) from error
        finally:
            del kept.coming[key]
        return picture


def _heard(drawn: asyncio.Future[bytes]) -> None:
    """Who asked for it may have gone: its error is nobody's then."""
    if not drawn.cancelled():
        drawn.exception()


class _Kept:
    """The pictures that were asked for last."""

    def __init__(self, most: int) -> None:
        """`most`: bytes."""
        self.coming: dict[str, asyncio.Future[bytes]] = {}
        """Those that are being drawn."""
        self._most, self._size = most, 0
        self._pictures: OrderedDict[str, bytes] = OrderedDict()

    def get(self, key: str) -> bytes | None:
        picture = self._pictures.get(key)
        if picture is not None:
            self._pictures.move_to_end(key)
        return picture

    def keep(self, key: str, picture: bytes) -> None:
        self._pictures[key] = picture
        self._size += len(picture)
        while self._size > self._most:
            _, oldest = self._pictures.popitem(last=False)
            self._size -= len(oldest)
