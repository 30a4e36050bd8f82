"""SoraClient: the requests of the Videos API, each sent once, and their outcomes.

It repeats nothing that costs money, decides nothing and records nothing. Whether a create has left is known from its
body, not from the class of an exception.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import aiohttp

from actors.errors import ErrorCode, Failure
from actors.settings import Settings
from actors.sora import failures, wire
from actors.sora.rate_limiter import RateLimiter
from actors.sora.reader import SoraReader, network_error
from actors.sora.requests import Body, Recogniser, VideoSpec, body_for, why_not_sent
from actors.sora.route import body_of
from actors.sora.upload import Once, SendForbidden, Upload
from actors.sora.wire import RemoteVideo


@dataclass(frozen=True, slots=True)
class Accepted:
    """The server accepted it: use this id from now on, whatever a GET says."""

    video: RemoteVideo
    remote_id: str
    told: dict[str, Any] | None = None
    """The price, if the answer has it."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing was made: the answer proves it, or (`sent` False) not a byte has left."""

    failure: Failure
    sent: bool
    retry_after: float | None = None
    passes: bool = True
    """Whether an unchanged retry may succeed; otherwise it is not retried."""


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """It may have been made: a byte has left, and there is no conclusive answer."""

    failure: Failure
    """Its message says what the POST met."""
    timed_out: bool = False
    """Whether it timed out: it may still arrive."""


CreateResult = Accepted | Refused | NoAnswer


class SoraClient(SoraReader):
    """What a SoraReader sends, and what must not be repeated: creates and DELETEs."""

    def __init__(self, settings: Settings, base_url: str, rate_limiter: RateLimiter) -> None:
        super().__init__(settings, base_url, rate_limiter)
        self._settings = settings
        self._submit_timeout = settings.sora_submit_timeout.total_seconds()
        self.recogniser = Recogniser(self.look)

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
            raise network_error(f"DELETE {path} got no answer: {self.words(error)}") from error
        self.observer.request("delete", response.status)
        self.rate_limiter.key.learn(response.status)
        pause = failures.retry_after(response.headers)
        if response.status == 429:
            self.rate_limiter.rate_limited(pause)
        else:
            self.rate_limiter.answered()
        return response.status, pause, body
