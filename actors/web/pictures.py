"""Posters and contact sheets that are asked for over HTTP: drawn beside the loop, a few at a time, and kept a while."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from aiohttp import web

from actors.errors import Conflict, StorageError
from actors.web.files import VERSION, finished, lasting
from actors.web.handlers import BINARY, NUMBER, TEXT, operation
from actors.web.parameters import batch_id_of, is_current, number_in, query_of, quoted, wrong_parameter
from actors.web.problems import refused

if TYPE_CHECKING:
    from actors.batch.views import Batch
    from actors.web.handlers import Site

_KIND = "image/webp"
_AT_ONCE = 2
"""Pictures that are drawn at the same time."""
_POSTERS, _SHEETS = 32 << 20, 16 << 20
"""Bytes of pictures that are kept."""


def routes(site: Site) -> Iterable[web.RouteDef]:
    """The routes of pictures."""
    pictures, one = Pictures(site), "/api/v1/batches/{id}"
    return [web.get(f"{one}/jobs/{{index}}/poster", pictures.poster), web.get(f"{one}/sheet", pictures.sheet)]


class Pictures:
    """`GET` and `HEAD` of posters and contact sheets. Each is drawn once, whoever asks for it meanwhile."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._turn = asyncio.Semaphore(_AT_ONCE)
        self._posters, self._sheets = _Kept(_POSTERS), _Kept(_SHEETS)

    @operation(
        {200: {_KIND: BINARY}, 304: {}}, 409,
        query=VERSION, headers={"If-None-Match": TEXT}, told=("ETag",),
    )  # fmt: skip
    async def poster(self, request: web.Request) -> web.Response:
        """The first frame of a job's film."""
        job, video = await finished(self._site, request)
        version = f"{video.sha256}-poster"
        headers = lasting(request, version)
        if is_current(request, version):
            return web.Response(status=304, headers=headers)

        def draw() -> bytes:
            from actors.media.frames import film_of, poster

            with film_of(self._site.service.stores)(job) as film:
                return poster(film)

        body = await self._drawn(self._posters, video.sha256, draw, f"video {job.index} has no poster")
        return web.Response(body=body, content_type=_KIND, headers=headers)

    @operation(
        {200: {_KIND: BINARY}, 304: {}}, 409,
        query={"page": NUMBER}, headers={"If-None-Match": TEXT}, told=("ETag", "Link"),
    )  # fmt: skip
    async def sheet(self, request: web.Request) -> web.Response:
        """A page of a batch's contact sheet."""
        query, batch_id = query_of(request, ("page",)), batch_id_of(request)
        batch = await self._site.call(self._site.service.get_batch_status, batch_id)
        page, pages = _page_of(query, batch)
        version = await self._site.call(_digest, batch, page)
        headers = {"ETag": quoted(version), "Cache-Control": "private, no-cache"}
        if page < pages:
            headers["Link"] = f'<{request.path}?page={page + 1}>; rel="next"'
        if is_current(request, version):
            return web.Response(status=304, headers=headers)

        def draw() -> bytes:
            from actors.media.frames import film_of
            from actors.media.sheet import contact_sheet

            return contact_sheet(batch, film_of(self._site.service.stores), page).encoded("WEBP")

        body = await self._drawn(self._sheets, version, draw, f"batch {batch.id!r} has no contact sheet")
        return web.Response(body=body, content_type=_KIND, headers=headers)

    async def _drawn(self, kept: _Kept, key: str, draw: Callable[[], bytes], what: str) -> bytes:
        if key not in kept.coming:
            kept.coming[key] = asyncio.ensure_future(self._draw(kept, key, draw))
            kept.coming[key].add_done_callback(_heard)
        try:
            return await asyncio.shield(kept.coming[key])
        except ModuleNotFoundError as error:
            raise refused(503, str(error), headers={"Retry-After": "3600"}) from error
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


def _page_of(query: dict[str, str], batch: Batch) -> tuple[int, int]:
    """The page that is asked for, and how many there are.

    Raises:
        InvalidRequest: there is no such page.
    """
    from actors.media.sheet import page_count

    given, pages = query.get("page", "1"), page_count(batch)
    number = number_in(given)
    if number is None or not 1 <= number <= pages:
        raise wrong_parameter("?page", given, f"from 1 to {pages}", "range")
    return number, pages


def _digest(batch: Batch, page: int) -> str:
    """What a page of a contact sheet shows, in short."""
    return hashlib.sha256(f"{page} {batch.model_dump_json()}".encode()).hexdigest()[:32]


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
