"""How one video is made: submitted (or its submission resolved), polled, downloaded.

A coroutine that a VideoWorker runs. It decides nothing about its batch: it ends with a report.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from actors.batch.job_views import video_url
from actors.errors import ErrorCode, Failure, SoraError
from actors.messages import Completed, Failed, Fetching, Generate, Progressed, Report, Submitted, Withdrawn
from actors.sora.outcomes import Bound, NotPaid, Outcome
from actors.sora.wire import Phase, RemoteVideo
from actors.video.comparison import compare, twins_of
from actors.video.download import Download
from actors.video.setbacks import Ended, Setbacks, lost
from actors.video.tools import Tools
from storage.records import JobRecord, SubmissionRecord
from storage.states import SubmissionState
from storage.urls import key_of

logger = logging.getLogger(__name__)
_LEAST_TIME = 120.0
"""Seconds that each run of a job grants to a video that the server may have finished."""


class VideoTask:
    """One run of one job."""

    def __init__(self, tools: Tools, order: Generate, report: Callable[[Report], None]) -> None:
        self._tools, self._order, self._report = tools, order, report
        self._job, self._run, self._submission = order.job, order.run, order.submission
        self._setbacks = Setbacks(tools, order, report)

    async def run(self) -> Completed | Failed | Withdrawn:
        """Make the video.

        Returns:
            How it ended. Our own errors are raised.
        """
        try:
            outcome = await self._submit()
            if isinstance(outcome, NotPaid):
                return self._not_paid(outcome)
            if not isinstance(outcome, Bound):
                return self._failed(outcome.failure)
            self._report(Submitted(self._job.id, self._run, outcome.remote_id, outcome.told))
            return await self._watch_and_fetch(outcome)
        except Ended as end:
            state = end.outcome or await self._deleted_by_us(end.failure)
            return replace(self._failed(end.failure, state), told=end.told)

    async def _deleted_by_us(self, failure: Failure) -> SubmissionState | None:
        """Whether our DELETE removed a lost video: only certain if a single store is behind the address."""
        if failure.code is not ErrorCode.NOT_FOUND or self._tools.settings.sora_listing != "whole":
            return None
        was_sent, submission_id = self._tools.storage.deletes.was_sent, self._submission.id
        sent = await self._tools.io.outcome(self._tools.recorder.read(lambda: was_sent(submission_id)))
        return SubmissionState.DELETED if sent else None

    async def _submit(self) -> Outcome:
        submission = self._submission
        if submission.state is SubmissionState.BOUND and submission.remote_id is not None:
            return Bound(submission.remote_id)
        if self._order.send_before is not None:
            try:
                video = self._tools.bodies.of(submission.id) or await self._tools.loader.spec(self._job)
            except Exception:  # our own error, and not a byte has left
                await self._tools.submitter.take_back(submission)
                raise
            outcome = await self._tools.submitter.submit(submission, video, self._order.send_before)
            if isinstance(outcome, Bound | NotPaid):
                return outcome
            resolved = await self._tools.submitter.resolve(submission, self._unknown_for)
            # The server's own words say more than that nothing was made.
            return replace(resolved, failure=outcome.failure) if isinstance(resolved, NotPaid) else resolved
        return await self._tools.submitter.resolve(submission, self._unknown_for)

    def _unknown_for(self, seconds: float) -> None:
        self._setbacks.wait("submission outcome unknown", seconds)

    def _not_paid(self, outcome: NotPaid) -> Failed | Withdrawn:
        failure, client = outcome.failure, self._tools.client
        refused = outcome.state is SubmissionState.REFUSED and failure.code is not ErrorCode.RATE_LIMITED
        if refused or not outcome.passes:
            return self._failed(failure, outcome.state)
        if failure.code is ErrorCode.NETWORK and outcome.state is SubmissionState.NOT_SENT:
            seconds = client.rate_limiter.unreachable()
            if client.rate_limiter.given_up(seconds):
                text = f"{failure.message}; tried for {seconds:.0f} s (SORA_CONNECT_TIMEOUT)"
                return self._failed(replace(failure, message=text), outcome.state)
            if seconds == 0.0:  # logged once, not at every attempt
                logger.warning(
                    "server unreachable; retrying until it answers",
                    extra={"action": "server_unreachable", "error": failure.message},
                )
        return Withdrawn(self._job.id, self._run, failure, self._submission.id, outcome.state)

    def _failed(self, failure: Failure, outcome: SubmissionState | None = None) -> Failed:
        return Failed(self._job.id, self._run, failure, self._submission.id, outcome)

    async def _watch_and_fetch(self, bound: Bound) -> Completed:
        limit = self._tools.settings.sora_video_timeout.total_seconds()
        now = self._tools.storage.database.time()  # its acceptance may have been recorded on another machine
        # A new owner always polls and downloads what is ready, however late it is.
        left = max(min(limit, _LEAST_TIME), (self._job.started_at or now) + limit - now)
        setbacks = self._setbacks
        setbacks.own_key = _made_with(self._submission) in ("", self._tools.settings.key_fingerprint)
        setbacks.waits_for = None
        download = Download(self._tools, self._order, setbacks, bound.remote_id)
        told = bound.told_at > -math.inf
        try:
            async with asyncio.timeout(left):
                while True:
                    video, by_listing = await self._watch(bound)
                    generating = self._generating(bound)
                    self._report(Fetching(self._job.id, self._run))
                    file = await download.fetch(video, by_listing=by_listing)
                    if file is not None:
                        public_url = self._tools.settings.web_public_url
                        file["url"] = video_url(public_url, self._job.batch_id, self._job.position)
                        self._tools.observer.generated(self._job.model, generating)
                        twins = [] if told else await self._twins()
                        made = compare(self._job, video, await download.measured(file), twins)
                        return Completed(self._job.id, self._run, file, made, video.told)
                    bound = Bound(bound.remote_id)
        except TimeoutError:
            code = ErrorCode.TIMEOUT
            text = f"the video was not ready within {limit:g} s of its acceptance (SORA_VIDEO_TIMEOUT)"
            if setbacks.no_room is None and setbacks.waits_for is not None:
                text = f"{text}; last problem: {setbacks.waits_for}"
            elif setbacks.no_room is not None:
                code, text = ErrorCode.STORAGE, f"{setbacks.no_room}; {text}"
            raise Ended(Failure(code, text, {"remote_id": bound.remote_id})) from None

    def _generating(self, bound: Bound) -> float:
        """The seconds since the server accepted the video; of one that was found in a listing, since its intent."""
        if bound.told_at > -math.inf:
            return time.monotonic() - bound.told_at
        since = self._job.started_at or self._submission.intended_at
        return max(0.0, self._tools.storage.database.time() - since)

    async def _twins(self) -> list[JobRecord]:
        """The jobs whose video this may be, if it was found in a listing."""
        find = partial(twins_of, self._tools.storage, self._submission.id)
        return await self._tools.io.outcome(self._tools.recorder.read(find))

    async def _watch(self, bound: Bound) -> tuple[RemoteVideo, bool]:
        """Wait until the video is ready; the second value: the listing said so, not the video itself."""
        video = bound.video
        if video is not None and video.phase is not Phase.WORKING:
            return _ready(video), False
        kind = (self._job.model, self._job.duration, self._job.size)
        accepted_at = None if video is None else bound.told_at
        errors, setbacks = 0, self._setbacks
        with self._tools.watcher.watch(bound.remote_id, kind, accepted_at) as watch:
            while True:
                try:
                    video = await watch.news()
                except SoraError as error:
                    errors += 1
                    await setbacks.end_if_lost(error, bound.remote_id)
                    refused = error.code is ErrorCode.PERMISSION and not setbacks.refuses_us(error)
                    if setbacks.refuses_us(error) or not (error.retryable or error.status == 404 or refused):
                        raise Ended(lost(error, bound.remote_id)) from error
                    watch.postpone(setbacks.say_why(error, errors), anew=error.status == 404)
                    continue
                if errors:
                    setbacks.go_on()
                errors = 0
                setbacks.absence = None
                if video.phase is not Phase.WORKING:
                    return _ready(video), watch.by_listing
                if video.progress is not None:
                    self._report(Progressed(self._job.id, self._run, video.progress))


def _made_with(submission: SubmissionRecord) -> str:
    """The fingerprint of the key that sent its POST; "" if there is none."""
    return submission.key_fingerprint or key_of(submission.provider)


def _ready(video: RemoteVideo) -> RemoteVideo:
    if video.phase is Phase.ENDED_BADLY:
        assert video.failure is not None
        raise Ended(video.failure, SubmissionState.FAILED, video.told)
    return video
