"""The events of batches: in pages, or as a stream (server-sent events) that can be resumed exactly."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from aiohttp import web
from pydantic import BaseModel

from actors.batch.events import Event
from actors.errors import DeletedBatch, FieldError, InvalidRequest, SoraBatchError
from actors.web.feeds import frame
from actors.web.handlers import JSON, NUMBER, TEXT, operation
from actors.web.parameters import MOST, batch_id_of, number_in, query_of, whole, wrong_parameter
from actors.web.problems import refused

if TYPE_CHECKING:
    from actors.web.feeds import Broadcast, Feed
    from actors.web.handlers import Site

logger = logging.getLogger(__name__)
STREAM = "text/event-stream"
COMMENT_SECONDS = 15.0
SLOW_SECONDS = 30.0
"""A reader that takes nothing for so long is let go; it can resume."""
_LAST = 1_000_000_000
_COMMENT = b":\n\n"
AsyncBytes = AsyncGenerator[bytes, None]
_HEADERS = {"Content-Type": f"{STREAM}; charset=utf-8", "X-Accel-Buffering": "no"}


class EventPage(BaseModel):
    """Events in order."""

    data: list[Event]
    next: int | None
    """The `from_sequence` of the next page; null: there is none."""


class Events:
    """`GET /api/v1/batches/{id}/events` and `GET /api/v1/events`."""

    def __init__(self, site: Site) -> None:
        self._site = site

    @operation(
        {200: {JSON: EventPage, STREAM: TEXT}, 204: {}},
        query={"from_sequence": {**NUMBER, "default": 1}},
        headers={"Last-Event-ID": {"type": "string", "description": "Of a stream: the last event that you have."}},
    )
    async def of_batch(self, request: web.Request) -> web.StreamResponse:
        """A page of a batch's events; its stream, if `Accept` says so."""
        batch_id = batch_id_of(request)
        query = query_of(request, ("from_sequence",))
        first = whole(query, "from_sequence", 1, _LAST)
        if request.method == "GET" and STREAM in request.headers.get("Accept", ""):
            last = _last_event_id(request)
            return await self._stream(request, batch_id, first - 1 if last is None else last, resumes=last is not None)
        return await self._page(batch_id, first)

    @operation({200: {STREAM: TEXT}})
    async def of_all(self, request: web.Request) -> web.StreamResponse:
        """The stream of all batches from now on."""
        query_of(request, ())
        async with self._site.watcher.everything() as everything:
            return await _sent(request, self._of_all(everything, everything.count))

    async def _page(self, batch_id: str, first: int) -> web.Response:
        service = self._site.service
        head = await self._site.call(service.sequence, batch_id)
        events = await self._site.call(service.recorded, batch_id, first, MOST + 1)
        if first <= head:
            _check_kept(batch_id, first, head, events[0].sequence if events else None)
        following = str(events[MOST].sequence) if len(events) > MOST else "null"
        data = ",".join(event.body for event in events[:MOST])
        return web.Response(text=f'{{"data":[{data}],"next":{following}}}', content_type="application/json")

    async def _stream(self, request: web.Request, batch_id: str, after: int, *, resumes: bool) -> web.StreamResponse:
        try:
            await self._site.call(self._site.service.sequence, batch_id)
        except DeletedBatch:
            if not resumes:  # who followed it so far is told the rest
                raise
        async with self._site.watcher.feed(batch_id) as feed:
            if after > feed.head:
                raise _not_yet(after, feed.head, resumes=resumes)
            if feed.ended and after == feed.head:
                return web.Response(status=204)
            if after < feed.head:
                events = await self._site.watcher.page(batch_id, after)
                _check_kept(batch_id, after + 1, feed.head, events[0].sequence if events else None)
            return await _sent(request, self._of_batch(feed, after))

    async def _of_batch(self, feed: Feed, after: int) -> AsyncBytes:
        """The events behind a number as they come, until the batch has ended; comments in between."""
        while not self._site.watcher.closed:
            kept = feed.kept(after)
            if kept is None and after < feed.head:
                page = await self._site.watcher.page(feed.batch_id, after)
                kept = [(event.sequence, frame(event)) for event in page]
                if not kept or kept[0][0] != after + 1:
                    return  # they were pruned meanwhile: who asks again is told so
            if kept:
                after = kept[-1][0]
                yield b"".join(each for _, each in kept)
            elif feed.ended:
                return
            elif not await feed.bell.wait(COMMENT_SECONDS):
                yield _COMMENT

    async def _of_all(self, everything: Broadcast, count: int) -> AsyncBytes:
        while not self._site.watcher.closed:
            frames = everything.after(count)
            if frames is None:
                return
            if frames:
                count += len(frames)
                yield b"".join(frames)
            elif not await everything.bell.wait(COMMENT_SECONDS):
                yield _COMMENT


async def _sent(request: web.Request, parts: AsyncBytes) -> web.StreamResponse:
    """Write what comes, until it ends, or the reader goes away or takes nothing.

    What fails after the beginning can't be told any more: the connection is broken off, and the reader resumes.
    """
    response = web.StreamResponse(headers=_HEADERS)
    await response.prepare(request)
    try:
        await response.write(_COMMENT)  # whoever waits for the first bytes knows that it is open
        async for part in parts:
            async with asyncio.timeout(SLOW_SECONDS):
                await response.write(part)
        await response.write_eof()
    except (TimeoutError, SoraBatchError) as error:
        extra = {"action": "web_reader", "path": request.path[:200], "error": repr(error)}
        logger.info("dropped a slow reader", extra=extra)
        if request.transport is not None:
            request.transport.abort()
    except ConnectionError:
        pass
    finally:
        await parts.aclose()
    return response


def _last_event_id(request: web.Request) -> int | None:
    given = request.headers.get("Last-Event-ID")
    if given is None:
        return None
    number = number_in(given)
    if number is None:
        raise wrong_parameter(
            "Last-Event-ID", given, "the id of an event of this stream: a whole number", "value_error"
        )
    return number


def _not_yet(after: int, head: int, *, resumes: bool) -> InvalidRequest:
    field = "Last-Event-ID" if resumes else "?from_sequence"
    expected = f"at most {head if resumes else head + 1}"
    message = f"{field.removeprefix('?')}: the last event is {head} (got {after if resumes else after + 1})"
    return InvalidRequest(message, (FieldError(field, message, expected, "range"),))


def _check_kept(batch_id: str, first: int, head: int, found: int | None) -> None:
    """Refuse to leave out events that were pruned."""
    if found != first:
        kept = f"begin at from_sequence={found}" if found is not None else f"begin at from_sequence={head + 1}"
        last = (found or head + 1) - 1
        raise refused(410, f"the events up to {last} of batch {batch_id} were pruned: {kept}")
