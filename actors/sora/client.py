"""SoraClient: the requests of the Videos API, each sent once, and their outcomes.

It repeats nothing that costs money, decides nothing and records nothing. Whether a create has left is known from its
body, not from the class of an exception.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any, Self
from urllib.parse import quote

import aiohttp

from actors.errors import ErrorCode, Failure, SoraError
from actors.observer import Observer
from actors.settings import Settings
from actors.sora import failures, wire
from actors.sora.exchange import Accepted, NoAnswer, Page, Refused, SendForbidden, ServerClock, VideoSpec
from actors.sora.failures import PROXY, failed_inside
from actors.sora.rate_limiter import RateLimiter
from actors.sora.route import Once, Route, body_of
from actors.sora.servers import Recogniser, why_not_sent
from actors.sora.upload import Body, Upload, body_for
from actors.sora.wire import RemoteVideo

PAGE = 100
_LOOK_TIMEOUT = aiohttp.ClientTimeout(total=60, sock_connect=10)
_FILE_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60)


CreateResult = Accepted | Refused | NoAnswer


class SoraClient:
    """Two sessions on the I/O loop: one for creates, one for all requests that may be repeated."""

    def __init__(self, settings: Settings, base_url: str, rate_limiter: RateLimiter) -> None:
        self._route = Route(settings, base_url)
        self._settings = settings
        self._submit_timeout = settings.sora_submit_timeout.total_seconds()
        self.rate_limiter = rate_limiter
        self.observer = Observer()
        self.clock = ServerClock()
        self._secrets = settings.secrets
        self.recogniser = Recogniser(self.look)
        self._creates: aiohttp.ClientSession | None = None
        self._rest: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        # A pooled connection that the server has just closed would turn a create into a false "unknown".
        # No cookies: nothing that a server sets is kept.
        self._creates = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
        )
        self._rest = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept-Encoding": "identity"},
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        for session in (self._creates, self._rest):
            if session is not None:
                await session.close()

    async def prepare(self, spec: VideoSpec) -> Body | Refused:
        """Build the body of a create for this server, or say why it is not sent."""
        form = self._settings.sora_request_format
        try:
            server = await self.recogniser.server_for(spec, form)
        except Exception as error:  # noqa: BLE001  (the session is being closed, for instance)
            return self._not_sent(error)
        if server is not None and (why := why_not_sent(server, spec, form)) is not None:
            return Refused(Failure(ErrorCode.INVALID_REQUEST, why), sent=False, passes=False)
        return await body_for(spec, form, server)

    async def create(
        self, video: VideoSpec | Body, intent_id: str, guard: Callable[[], None], trace: Mapping[str, str] | None = None
    ) -> CreateResult:
        """POST once, now: its turn was taken before its intent. Never raises for errors of the network or the server.

        Args:
            video: the video, or what `prepare` returned for it.
            intent_id: sent as `Idempotency-Key`, for servers that honour it.
            guard: called directly before the first byte leaves; raises `SendForbidden` to stop it.
            trace: the headers of the trace that it belongs to.
        """
        assert self._creates is not None
        content = video if isinstance(video, Body) else await self.prepare(video)
        if isinstance(content, Refused):
            return content
        # A LiteLLM proxy would send a create up to three times.
        further = {**(trace or {}), "Idempotency-Key": intent_id, "x-litellm-num-retries": "0"}
        body = Upload(content, guard, self._submit_timeout)
        timeout = aiohttp.ClientTimeout(total=self._submit_timeout, sock_connect=10)
        try:
            async with self._creates.post(  # crash point: post
                self._route.url("/videos"),
                headers={**self._route.headers, **further},
                allow_redirects=False,
                timeout=timeout,
                data=body,
                **self._route.way,
            ) as response:
                return self._judge(response, self._read(await body_of(response)))
        except Exception as error:  # noqa: BLE001  (whatever it was, only the body tells whether it left)
            if body.sent:
                return self._unanswered(error, timed_out=isinstance(error, TimeoutError) or body.overdue)
            if body.stopped is not None:
                return Refused(Failure(ErrorCode.UNAVAILABLE, str(body.stopped)), sent=False)
            return self._not_sent(error)

    def _judge(self, response: aiohttp.ClientResponse, body: Any) -> CreateResult:  # crash point: judge
        self.observer.request("create", response.status)
        self.clock.learn(response.headers.get("Date"))
        self.rate_limiter.key.learn(response.status)
        if 200 <= response.status < 300 and isinstance(body, dict):
            body = {"status": "queued", **body}  # with an id and no status it has been accepted
        video = wire.parse_video(body)
        if video is not None and video.id:
            self.rate_limiter.answered()
            return Accepted(video, video.id, wire.price_told(response.headers))
        failure = self._failure(response.status, body, "creating the video")
        pause = failures.retry_after(response.headers)
        if failure.code is ErrorCode.RATE_LIMITED:
            self.rate_limiter.rate_limited(pause)
        else:
            self.rate_limiter.answered()
        location = self._secrets.mask(self._route.without_query(response.headers.get("Location", "")))
        moved = failures.redirected(response.status, location, self._route.url("/videos"))
        if moved is not None:
            return Refused(moved, sent=True)
        if response.status not in failures.REFUSALS:
            return NoAnswer(failure)
        if response.status in (404, 405) and failure.code is ErrorCode.NOT_FOUND:
            failure = Failure(failure.code, f"{self._route.place} has no Videos API: {failure.message}", failure.detail)
        return Refused(failure, sent=True, retry_after=pause)

    def _no_answer(self, operation: str) -> None:
        self.rate_limiter.no_answer()
        self.observer.request(operation, None)

    def _not_sent(self, error: Exception) -> Refused:
        self._no_answer("create")
        obstacle = self._route.obstacle(error)
        why = f"can't be reached: {self.words(error)}" if obstacle is None else self._secrets.mask(obstacle.why)
        failure = Failure(ErrorCode.NETWORK, f"{self._route.place} {wire.short(why)}")
        return Refused(failure, sent=False, passes=obstacle is None or obstacle.passes)

    def _unanswered(self, error: Exception, *, timed_out: bool) -> NoAnswer:
        self._no_answer("create")
        words = self.words(error)
        if isinstance(error, TimeoutError) and not str(error).strip():
            words = f"timed out after {self._submit_timeout:g} s (SORA_SUBMIT_TIMEOUT)"
        return NoAnswer(Failure(ErrorCode.NETWORK, f"no answer: {words}"), timed_out)

    async def retrieve(self, remote_id: str, *, anew: bool = False) -> tuple[RemoteVideo, float | None]:
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
            video = failed_inside(body, remote_id)
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

    async def delete(self, remote_id: str, guard: Callable[[], None], seconds: float) -> tuple[int, float | None, Any]:
        """Send one DELETE for a video, now: its turn was taken before it was recorded.

        Args:
            remote_id: the video.
            guard: called directly before the first byte leaves; raises `SendForbidden` to stop it.
            seconds: how long to wait for an answer.

        Returns:
            The status of the answer, the seconds that it asks to wait, and its body.

        Raises:
            SendForbidden: by the guard, or because no connection was made; nothing was sent.
            SoraError: no answer came.
        """
        once, path = Once(guard), f"/videos/{quote(remote_id, safe='')}"
        try:
            async with (
                aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), trace_configs=[once.trace()]) as session,
                session.delete(  # crash point: DELETE
                    self._route.url(path),
                    headers={**self._route.headers, "Accept-Encoding": "identity"},
                    timeout=aiohttp.ClientTimeout(total=seconds),
                    allow_redirects=False,
                    **self._route.way,
                ) as response,
            ):
                body = self._read(await body_of(response))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._no_answer("delete")
            if not once.sent:
                raise SendForbidden(f"the server can't be reached: {self.words(error)}") from error
            raise _network(f"DELETE {path} got no answer: {self.words(error)}") from error
        self.observer.request("delete", response.status)
        self.rate_limiter.key.learn(response.status)
        pause = failures.retry_after(response.headers)
        if response.status == 429:
            self.rate_limiter.rate_limited(pause)
        else:
            self.rate_limiter.answered()
        return response.status, pause, body

    def content(self, remote_id: str, *, anew: bool = False) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """Open a video's file. `variant` is omitted: some servers misread it.

        Args:
            remote_id: the video.
            anew: over a new connection, which may reach another replica.

        Raises:
            SoraError: it can't be downloaded there.
        """
        return self._file(self._route.url(f"/videos/{quote(remote_id, safe='')}/content"), anew=anew)

    def content_at(self, url: str) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """Open a file at the URL that the server gave. The key is sent to the server itself only."""
        return self._file(url)

    @asynccontextmanager
    async def _file(self, url: str, *, anew: bool = False) -> AsyncIterator[aiohttp.ClientResponse]:
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
            raise _network(f"GET {path} got no answer: {self.words(error)}") from error
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
        session, url, within = (
            self._session(),
            self._route.url(path, query, above=above),
            aiohttp.ClientTimeout(total=seconds),
        )
        try:
            async with await self._route.get(session, url, "application/json", within, follow=False) as response:
                return response.status, response.headers, bytes(await body_of(response))
        except TimeoutError as error:
            raise _network(f"is unreachable (no answer within {seconds:g} s)") from error
        except (aiohttp.ClientError, OSError) as error:
            obstacle = self._route.obstacle(error)
            why = f"is unreachable ({self.words(error)})" if obstacle is None else self._secrets.mask(obstacle.why)
            raise _network(why) from error

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
            return replace(failure, message=f"{failure.message}; if the proxy sent this answer: {PROXY.way_out}")
        return failure

    def _error(self, status: int, headers: Any, body: Any, what: str) -> SoraError:
        pause = failures.retry_after(headers)
        failure = self._failure(status, body, what)
        if failure.code is ErrorCode.RATE_LIMITED:
            self.rate_limiter.rate_limited(pause)
        return SoraError(failure, status=status, retry_after=pause)


def _network(text: str) -> SoraError:
    return SoraError(Failure(ErrorCode.NETWORK, text))
