"""SoraReader: the requests that may be repeated: polls, listings, downloads. It decides and records nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Self
from urllib.parse import quote

import aiohttp

from actors.errors import ErrorCode, Failure, SoraError
from actors.observer import Observer
from actors.settings import Settings
from actors.sora import failures, wire
from actors.sora.rate_limiter import RateLimiter, ServerClock
from actors.sora.route import Route, body_of

PAGE = 100
_LOOK_TIMEOUT = aiohttp.ClientTimeout(total=60, sock_connect=10)
_FILE_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60)


@dataclass(frozen=True, slots=True)
class Page:
    """One page of the server's listing, or the known videos on it."""

    videos: tuple[wire.RemoteVideo, ...]
    has_more: bool | None
    """None: the server did not say."""
    last: str | None = None
    """The id after which the next page begins."""
    hint: float | None = None
    """The seconds after which the server wants to be polled again."""


class SoraReader:
    """Two sessions on the I/O loop: one for creates, one for all requests that may be repeated."""

    def __init__(self, settings: Settings, base_url: str, rate_limiter: RateLimiter) -> None:
        self._route = Route(settings, base_url)
        self.rate_limiter = rate_limiter
        self.observer = Observer()
        self.clock = ServerClock()
        self._secrets = settings.secrets
        self._creates: aiohttp.ClientSession | None = None
        self._rest: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        # A pooled connection that the server has just closed would turn a create into a false "unknown".
        self._creates = _opened(aiohttp.TCPConnector(limit=0, force_close=True), {"Accept": "application/json"})
        self._rest = _opened(aiohttp.TCPConnector(limit=0, keepalive_timeout=30), {})
        return self

    async def __aexit__(self, *_: object) -> None:
        for session in (self._creates, self._rest):
            if session is not None:
                await session.close()

    async def retrieve(self, remote_id: str, *, anew: bool = False) -> tuple[wire.RemoteVideo, float | None]:
        """Poll a video.

        Args:
            remote_id: the id that its create returned.
            anew: over a new connection, which may reach another replica.

        Returns:
            The video, and the seconds after which the server wants to be polled again.

        Raises:
            SoraError: it could not be polled. A failed video is no error: some servers report it as HTTP 500.
        """
        path = f"/videos/{quote(remote_id, safe='')}"
        status, headers, body = await self._request("retrieve", path, anew=anew)  # crash point: look
        video = wire.parse_video(body)
        if status >= 400 and (video is None or video.phase is not wire.Phase.ENDED_BADLY):
            video = failures.failed_inside(body, remote_id)
        if video is not None:
            return video, wire.poll_hint(headers)
        raise self._error(status, headers, body, f"polling video {remote_id}")

    async def list_page(self, after: str | None) -> Page:
        """A page of the listing, newest first. No redirect is followed: another server's listing proves nothing.

        Raises:
            SoraError: there is none, or it could not be read.
        """
        data, has_more, headers = await self._entries(after, follow=False)  # crash point: list
        videos = tuple(video for entry in data if (video := wire.parse_video(entry)) is not None)
        if len(videos) != len(data):
            raise SoraError(Failure(ErrorCode.SERVER_ERROR, "the listing has entries that are not videos"))
        return Page(videos, has_more, videos[-1].id if videos else None, wire.poll_hint(headers))

    async def listed(self, after: str | None, knows: Callable[[str], bool]) -> Page:
        """The known videos on a page of the listing; the entries of others are not parsed.

        Raises:
            SoraError: as `list_page`.
        """
        data, has_more, headers = await self._entries(after)
        known = [entry for entry in data if isinstance(entry, dict) and knows(wire.identifier(entry) or "")]
        videos = tuple(video for entry in known if (video := wire.parse_video(entry)) is not None)
        last = wire.identifier(data[-1]) if data and isinstance(data[-1], dict) else None
        return Page(videos, has_more, last, wire.poll_hint(headers))

    async def _entries(self, after: str | None, *, follow: bool = True) -> tuple[list[Any], bool | None, Any]:
        query = f"limit={PAGE}&order=desc" + (f"&after={quote(after, safe='')}" if after else "")
        status, headers, body = await self._request("list", "/videos", query, follow=follow)
        if 300 <= status < 400:
            place = self._secrets.mask(wire.short(headers.get("Location", "an unknown address")))
            text = f"listing the videos was redirected to {place} (HTTP {status}): set OPENAI_BASE_URL to that server"
            raise SoraError(Failure(ErrorCode.NOT_FOUND, text, {"status": status}), status=status)
        data = body.get("data") if isinstance(body, dict) else None
        if status != 200 or not isinstance(data, list):
            raise self._error(status, headers, body, "listing the videos")
        has_more = body.get("has_more")
        return data, has_more if isinstance(has_more, bool) else None, headers

    def content(self, remote_id: str, *, anew: bool = False) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """Open a video's file. `variant` is omitted: some servers misread it.

        Args:
            remote_id: the video.
            anew: over a new connection, which may reach another replica.

        Raises:
            SoraError: it can't be downloaded there.
        """
        return self.content_at(self._route.url(f"/videos/{quote(remote_id, safe='')}/content"), anew=anew)

    @asynccontextmanager
    async def content_at(self, url: str, *, anew: bool = False) -> AsyncIterator[aiohttp.ClientResponse]:
        """Open a file at the URL that the server gave. The key is sent to the server itself only."""
        await self.rate_limiter.turn()
        session, kinds = self._session(anew=anew), "video/*, application/binary, */*"
        try:
            response = await self._route.get(session, url, kinds, _FILE_TIMEOUT)  # crash point: content
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._no_answer("content")
            raise self._no_download(error) from error
        self.observer.request("content", response.status)
        if response.status != 429:
            self.rate_limiter.answered()
        # An error while the caller reads the file may be one of the caller's disk: it is not named here.
        async with response:
            if response.status != 200 or "json" in response.headers.get("Content-Type", ""):
                raise await self._no_file(response)
            yield response

    def _no_download(self, error: Exception) -> SoraError:
        # What is not HTTP, or an invalid URL, does not pass as a lost connection does.
        passes = isinstance(error, aiohttp.ClientConnectionError | OSError)
        code = ErrorCode.NETWORK if passes else ErrorCode.DOWNLOAD_FAILED
        return SoraError(Failure(code, f"downloading the video failed: {self.words(error)}"))

    async def _no_file(self, response: aiohttp.ClientResponse) -> SoraError:
        try:
            body = self._read(await response.content.read(65_536))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return self._no_download(error)
        return self._error(response.status, response.headers, body, "downloading the video")

    async def _request(
        self, operation: str, path: str, query: str = "", *, follow: bool = True, anew: bool = False
    ) -> tuple[int, Any, Any]:
        session, url = self._session(anew=anew), self._route.url(path, query)
        await self.rate_limiter.turn()
        try:
            async with await self._route.get(session, url, "*/*", _LOOK_TIMEOUT, follow=follow) as response:
                body = self._read(await body_of(response))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._no_answer(operation)
            raise network_error(f"GET {path} got no answer: {self.words(error)}") from error
        self.observer.request(operation, response.status)
        self.clock.learn(response.headers.get("Date"))
        self.rate_limiter.key.learn(response.status)
        if response.status != 429:
            self.rate_limiter.answered()
        return response.status, response.headers, body

    async def look(
        self, seconds: float, path: str = "/videos", query: str = "", *, above: bool = False
    ) -> tuple[int, Mapping[str, str], bytes]:
        """`(status, headers, body)` of a route, reached like a create: following no redirect.

        `above`: of a route beside the API's `/v1`, such as `/health`.

        Raises:
            SoraError: there was no answer; its message continues a sentence whose subject is the server.
        """
        url, limit = self._route.url(path, query, above=above), aiohttp.ClientTimeout(total=seconds)
        try:
            async with await self._route.get(self._session(), url, "application/json", limit, follow=False) as response:
                return response.status, response.headers, bytes(await body_of(response))
        except TimeoutError as error:
            raise network_error(f"is unreachable (no answer within {seconds:g} s)") from error
        except (aiohttp.ClientError, OSError) as error:
            obstacle = self._route.obstacle(error)
            why = f"is unreachable ({self.words(error)})" if obstacle is None else self._secrets.mask(obstacle.why)
            raise network_error(why) from error

    def _no_answer(self, operation: str) -> None:
        self.rate_limiter.no_answer()
        self.observer.request(operation, None)

    def _session(self, *, anew: bool = False) -> aiohttp.ClientSession:
        """The session for repeatable requests; `anew`: the one that opens a connection per request."""
        session = self._creates if anew else self._rest
        assert session is not None
        return session

    def words(self, error: BaseException) -> str:
        """The text of an error, masked: it may quote the server, and the server the key."""
        obstacle = self._route.obstacle(error)
        text = f"{obstacle.host} {obstacle.why}" if obstacle else str(error).strip() or type(error).__name__
        return wire.short(self._secrets.mask(text))

    def _read(self, text: bytes | bytearray) -> Any:
        """The body of an answer, masked: a server may quote the key that it refuses, and errors are recorded."""
        body = wire.parse_json(text)
        return failures.masked(body, self._secrets.mask) if self._secrets else body

    def _failure(self, status: int, body: Any, what: str) -> Failure:
        failure = failures.http_failure(status, body, what)
        if failure.code is ErrorCode.AUTHENTICATION:  # some servers use another status for it
            self.rate_limiter.key.learn(401)
        if status == 401 and self._route.proxied_plainly:
            way_out = f"if the proxy sent this answer: {failures.PROXY.way_out}"
            failure = replace(failure, message=f"{failure.message}; {way_out}")
        return failure

    def _error(self, status: int, headers: Any, body: Any, what: str) -> SoraError:
        pause, failure = failures.retry_after(headers), self._failure(status, body, what)
        if failure.code is ErrorCode.RATE_LIMITED:
            self.rate_limiter.rate_limited(pause)
        return SoraError(failure, status=status, retry_after=pause)


def _opened(connector: aiohttp.TCPConnector, headers: dict[str, str]) -> aiohttp.ClientSession:
    """A session without cookies: nothing that a server sets is kept."""
    headers = {**headers, "Accept-Encoding": "identity"}
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), headers=headers)


def network_error(text: str) -> SoraError:
    """The error of a request without an answer."""
    return SoraError(Failure(ErrorCode.NETWORK, text))
