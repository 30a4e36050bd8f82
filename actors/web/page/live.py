"""Live: what changes, once a second, as one message that all who look at the same thing share.

A message is made from the database, so it tells of videos whichever process makes them. While nobody looks, nothing is
asked.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from aiohttp import web

from actors.errors import SoraBatchError
from actors.web.page.batches import batch_of
from actors.web.page.rendering import Renderer
from actors.web.page.watching import RELOAD, BatchWatch, ListWatch
from actors.web.parameters import batch_id_of

if TYPE_CHECKING:
    from actors.web.handlers import Site

logger = logging.getLogger(__name__)
_PERIOD = 1.0
_COMMENT_SECONDS = 15.0
_SLOW_SECONDS = 30.0
"""A reader that takes nothing for so long is let go."""
_BEHIND = 30
"""Messages that a slow reader may be behind before it is let go."""
_COMMENT = b": \n\n"
Look = Callable[[], dict[str, Any] | None]
"""Makes the next message; None: nothing has changed."""


class Reader:
    """Somebody who looks, and what they have not been sent yet."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self.messages: asyncio.Queue[bytes | None] = asyncio.Queue()

    @property
    def has_gone(self) -> bool:
        """Whether the connection is closed, which a handler that only writes hears of late."""
        transport = self._request.transport
        return transport is None or transport.is_closing()

    def break_off(self) -> None:
        """Close the connection of one that takes nothing, with all that was to be sent."""
        if self._request.transport is not None:
            self._request.transport.abort()

    async def next(self) -> bytes | None:
        """The next message; a comment if there is none for a while; None: no more comes."""
        try:
            async with asyncio.timeout(_COMMENT_SECONDS):
                return await self.messages.get()
        except TimeoutError:
            return _COMMENT


class LiveFeed:
    """One thing that is looked at, and who does."""

    def __init__(self, look: Look) -> None:
        self.look = look
        self.readers: set[Reader] = set()

    def tell(self, message: bytes) -> None:
        """Give a message to every reader; one that is too far behind is let go, and comes back for the whole."""
        for reader in list(self.readers):
            if reader.messages.qsize() >= _BEHIND:
                self.release(reader)
            else:
                reader.messages.put_nowait(message)

    def release(self, reader: Reader) -> None:
        """End a reader's stream."""
        self.readers.discard(reader)
        reader.messages.put_nowait(None)


class Live:
    """The streams of the pages."""

    def __init__(self, site: Site, renderer: Renderer) -> None:
        self._site, self._renderer = site, renderer
        self._feeds: dict[str, LiveFeed] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        site.stops.append(self.close)

    def close(self) -> None:
        """End every stream."""
        for feed in self._feeds.values():
            for reader in list(feed.readers):
                feed.release(reader)

    async def list(self, request: web.Request) -> web.StreamResponse:
        """What changes in the list of batches."""
        watched = ListWatch(self._site, self._renderer)
        return await self._stream(request, "", watched.look, None)

    async def batch(self, request: web.Request) -> web.StreamResponse:
        """What changes in a batch, from what the page that asks has seen on."""
        batch_id = batch_id_of(request)
        seen = _seconds(request.headers.get("Last-Event-ID") or request.query.get("since", ""))
        record = await self._site.call(self._site.service.look, lambda storage: batch_of(storage, batch_id))
        watched = BatchWatch(self._site, self._renderer, batch_id, record.updated_at)
        first = BatchWatch(self._site, self._renderer, batch_id, seen)
        return await self._stream(request, batch_id, watched.look, first.look)

    async def _stream(self, request: web.Request, key: str, look: Look, first: Look | None) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
        await response.prepare(request)
        reader, feed = Reader(request), self._feeds.get(key)
        if feed is None:
            feed = self._feeds[key] = LiveFeed(look)
            self._tasks.add(task := asyncio.ensure_future(self._watch(key, feed)))
            task.add_done_callback(self._tasks.discard)
        feed.readers.add(reader)
        try:
            message = await self._site.call(first) if first is not None else None
            data: bytes | None = b"retry: 1000\n\n" + (_event(message) if message is not None else b"")
            while data is not None:
                async with asyncio.timeout(_SLOW_SECONDS):
                    await response.write(data)
                data = await reader.next()
        except (ConnectionError, SoraBatchError):
            pass  # the reader has gone, or comes back
        except TimeoutError:
            reader.break_off()
        finally:
            feed.readers.discard(reader)
        return response

    async def _watch(self, key: str, feed: LiveFeed) -> None:
        """Look once a second, as long as anybody reads."""
        try:
            while feed.readers:
                began = time.monotonic()
                try:
                    message = await self._site.call(feed.look)
                except SoraBatchError as error:  # the database is away, or the batch gone: the page says which
                    logger.debug("could not look", extra={"action": "web_live", "error": str(error)})
                    message = RELOAD
                if message is not None:
                    feed.tell(_event(message))
                await asyncio.sleep(max(0.1, _PERIOD - (time.monotonic() - began)))
                for reader in [each for each in feed.readers if each.has_gone]:
                    feed.release(reader)
        except Exception:
            logger.exception("could not look", extra={"action": "web_live"})
        finally:
            del self._feeds[key]
            for reader in list(feed.readers):
                feed.release(reader)


def _event(message: dict[str, Any]) -> bytes:
    number = f"id: {message['at']}\n" if "at" in message else ""
    return f"{number}data: {json.dumps(message)}\n\n".encode()


def _seconds(text: str) -> float:
    """What a page has seen; at worst nothing, and then it is told all."""
    try:
        return float(text) if len(text) < 30 else 0.0
    except ValueError:
        return 0.0
