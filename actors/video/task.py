"""How one video is made: submitted (or its submission resolved), polled, downloaded.

A coroutine that a VideoWorker runs. It decides nothing about its batch: it ends with a report.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import random
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from actors.batch.views import video_url
from actors.errors import ErrorCode, Failure, SoraError
from actors.messages import (
    Completed,
    Failed,
    Fetching,
    Generate,
    Progressed,
    Report,
    Submitted,
    Wait,
    Waiting,
    Withdrawn,
)
from actors.sora.outcomes import Bound, NotPaid, Outcome
from actors.sora.watching import Absence, pause_after_404
from actors.sora.wire import Phase, RemoteVideo
from actors.video.comparison import Measured, can_measure, compare, measure
from actors.video.download import FileTooLarge, fetch
from actors.video.keeping import CheckedFile
from actors.video.tools import Tools
from actors.video.twins import twins_of
from storage.bucket_errors import StoreFault
from storage.records import Document, JobRecord, SubmissionRecord
from storage.servers import key_of
from storage.states import SubmissionState
from storage.timing import backoff
from storage.videos import PartFile

logger = logging.getLogger(__name__)
_DOWNLOADS = 5
_LEAST_TIME = 120.0
"""Seconds that each run of a job grants to a video that the server may have finished."""
_FIRST_BACKOFF, _LONGEST_BACKOFF = 0.5, 30.0
_PASSING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
"""What a person fixes while a video waits: a full disk or quota, a file system that became read-only."""

T = TypeVar("T")


class _Ended(Exception):
    """The video can't be obtained."""

    def __init__(self, failure: Failure, outcome: SubmissionState | None = None, told: Document | None = None) -> None:
        super().__init__(failure.message)
        self.failure, self.outcome, self.told = failure, outcome, told


class VideoTask:
    """One run of one job."""

    def __init__(self, tools: Tools, order: Generate, report: Callable[[Report], None]) -> None:
        self._tools, self._order, self._report = tools, order, report
        self._job, self._run, self._submission = order.job, order.run, order.submission
        self._no_room: str | None = None
        """Why the file could not be written at the last attempt."""
        self._waits_for: str | None = None
        self._measured_before: Measured | None = None
        """Of a file that has gone into a bucket since."""
        self._absence: Absence
        self._own_key = True
        """Whether the video was made with our key."""

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
        except _Ended as end:
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
        self._wait("submission outcome unknown", seconds)

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
        self._own_key = provable = _made_with(self._submission) in ("", self._tools.settings.key_fingerprint)
        self._waits_for = None
        self._absence = Absence(self._tools.client, bound.remote_id, provable=provable)
        told = bound.told_at > -math.inf
        try:
            async with asyncio.timeout(left):
                while True:
                    video, by_listing = await self._watch(bound)
                    generating = self._generating(bound)
                    self._report(Fetching(self._job.id, self._run))
                    file = await self._fetch(bound.remote_id, video, by_listing=by_listing)
                    if file is not None:
                        public_url = self._tools.settings.web_public_url
                        file["url"] = video_url(public_url, self._job.batch_id, self._job.position)
                        self._tools.observer.generated(self._job.model, generating)
                        twins = [] if told else await self._twins()
                        made = compare(self._job, video, await self._measured(file), twins)
                        return Completed(self._job.id, self._run, file, made, video.told)
                    bound = Bound(bound.remote_id)
        except TimeoutError:
            code = ErrorCode.TIMEOUT
            text = f"the video was not ready within {limit:g} s of its acceptance (SORA_VIDEO_TIMEOUT)"
            if self._no_room is None and self._waits_for is not None:
                text = f"{text}; last problem: {self._waits_for}"
            elif self._no_room is not None:
                code, text = ErrorCode.STORAGE, f"{self._no_room}; {text}"
            raise _Ended(Failure(code, text, {"remote_id": bound.remote_id})) from None

    def _generating(self, bound: Bound) -> float:
        """The seconds since the server accepted the video; of one that was found in a listing, since its intent."""
        if bound.told_at > -math.inf:
            return time.monotonic() - bound.told_at
        since = self._job.started_at or self._submission.intended_at
        return max(0.0, self._tools.storage.database.time() - since)

    async def _measured(self, file: Document) -> Measured | None:
        """The file's own length and size, if requested and readable."""
        return self._measured_before if file["path"] is None else await self._measure(Path(file["path"]))

    async def _measure(self, path: Path) -> Measured | None:
        if (self._job.duration is None and self._job.size is None) or not can_measure():
            return None
        return await self._tools.io.offload(measure, path)

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
        errors = 0
        with self._tools.watcher.watch(bound.remote_id, kind, accepted_at) as watch:
            while True:
                try:
                    video = await watch.news()
                except SoraError as error:
                    errors += 1
                    await self._end_if_lost(error, bound.remote_id)
                    refused = error.code is ErrorCode.PERMISSION and not self._refuses_us(error)
                    if self._refuses_us(error) or not (error.retryable or error.status == 404 or refused):
                        raise _Ended(_lost(error, bound.remote_id)) from error
                    watch.postpone(self._say_why(error, errors), anew=error.status == 404)
                    continue
                if errors:
                    self._go_on()
                errors = 0
                self._absence.refuted()
                if video.phase is not Phase.WORKING:
                    return _ready(video), watch.by_listing
                if video.progress is not None:
                    self._report(Progressed(self._job.id, self._run, video.progress))

    def _refuses_us(self, error: SoraError) -> bool:
        """Whether the key has no access; a key that did not make the video may be refused any video."""
        return _is_account(error) and (self._own_key or error.code is not ErrorCode.PERMISSION)

    async def _end_if_lost(self, error: SoraError, remote_id: str) -> None:
        if error.status != 404:
            self._absence.refuted()
        elif await self._absence.proved():
            raise _Ended(_lost(error, remote_id)) from error

    async def _back_off(self, error: SoraError, tries: int) -> None:
        await asyncio.sleep(self._say_why(error, tries))
        # The last problem stays known: the video's time may be up during the next attempt.
        self._report(Waiting(self._job.id, self._run, None))

    def _say_why(self, error: SoraError, tries: int) -> float:
        """Report why we wait, and return the seconds."""
        if error.retry_after is not None:
            seconds = error.retry_after
        elif error.status == 404:
            seconds = pause_after_404(self._tools.settings.sora_poll_interval.total_seconds())
        else:
            seconds = backoff(tries, _FIRST_BACKOFF, _LONGEST_BACKOFF, jitter=0.5)
        self._wait("rate limited" if error.code is ErrorCode.RATE_LIMITED else str(error), seconds)
        return seconds

    def _go_on(self) -> None:
        self._waits_for = None
        self._report(Waiting(self._job.id, self._run, None))

    def _wait(self, reason: str, seconds: float) -> None:
        self._waits_for = reason
        self._report(Waiting(self._job.id, self._run, Wait(reason, time.monotonic() + seconds)))

    async def _fetch(self, remote_id: str, video: RemoteVideo, *, by_listing: bool) -> Document | None:
        """Download until the file is complete; broken files are downloaded again, temporary errors waited out.

        Returns:
            What is recorded for the file; None: the video was reported ready, but is not.
        """
        tries = broken = full = 0
        while True:
            part = self._tools.stores.folder.part(self._job.batch_id, self._job.id, self._order.epoch)
            try:
                taken = await self._fetch_once(part, remote_id, video, tries)
                return taken if isinstance(taken, dict) else await self._store(taken, remote_id)
            except SoraError as error:
                self._no_room = None
                part.discard()
                # At another URL, our key does not matter.
                elsewhere = bool(video.urls) and tries % 2 == 1 and _is_account(error)
                tries += 1
                broken += not (error.passes or error.status == 404 or elsewhere)
                if broken == _DOWNLOADS or (self._refuses_us(error) and not elsewhere):
                    raise _Ended(_undownloadable(error, remote_id)) from error
                await self._back_off(error, tries)
                # Not after each 404: of two alternating replicas, one would get all polls and the other all downloads.
                unknown = error.status == 404 and tries > 1 and random.random() < 0.5  # noqa: S311
                if unknown or (by_listing and tries == 1):
                    video = await self._itself(remote_id) or video
                    if video.phase is not Phase.READY:
                        if by_listing:
                            self._tools.watcher.refute_listing(f"it shows {remote_id} as ready, but it is not")
                        return None
            except OSError as error:
                part.discard()  # its space is free for others
                text = f"the video can't be written to {part.path.parent}: {error.strerror or error}"
                if error.errno not in _PASSING:
                    raise _Ended(Failure(ErrorCode.STORAGE, text, {"remote_id": remote_id})) from error
                await self._wait_for_room(text, full)
                full += 1
            except (_Ended, asyncio.CancelledError):
                part.discard()
                raise

    async def _store(self, file: CheckedFile, remote_id: str) -> Document:
        """Put a file into the bucket. What passes is waited out: the file is here, and not downloaded again."""
        self._measured_before = await self._measure(file.part.path)
        of_batch, batch_id = self._tools.storage.doomed.of_batch, self._job.batch_id
        doomed = await self._tools.io.outcome(self._tools.recorder.read(lambda: of_batch(batch_id)))
        tries = 0
        while True:
            try:
                kept = await self._tools.keeper.put(file, doomed)
            except StoreFault as fault:
                text = f"the video can't be stored: {fault}"
                if not fault.passing:
                    raise _Ended(Failure(ErrorCode.STORAGE, text, {"remote_id": remote_id})) from fault
                await self._wait_for_room(text, tries)
                tries += 1
            else:
                file.part.discard(and_folder=True)
                self._no_room = None
                return kept

    async def _fetch_once(
        self, part: PartFile, remote_id: str, video: RemoteVideo, tries: int
    ) -> Document | CheckedFile:
        try:
            return await fetch(self._tools, part, remote_id, video, tries)
        except FileTooLarge as error:
            raise _Ended(Failure(ErrorCode.DOWNLOAD_FAILED, str(error), {"remote_id": remote_id})) from None

    async def _itself(self, remote_id: str) -> RemoteVideo | None:
        """Poll the video itself: it may say more than the listing. If it does not answer, the download tells."""
        try:
            video, _ = await self._tools.client.retrieve(remote_id, anew=True)
        except SoraError as error:
            await self._end_if_lost(error, remote_id)
            return None
        self._absence.refuted()
        return video

    async def _wait_for_room(self, reason: str, tries: int) -> None:
        logger.warning(
            "can't write a video; retrying",
            extra={
                "action": "no_room",
                "batch_id": self._job.batch_id,
                "job_id": self._job.id,
                "error": reason,
            },
        )
        self._no_room = reason
        seconds = backoff(tries, _FIRST_BACKOFF, _LONGEST_BACKOFF, jitter=0.5)
        self._wait(reason, seconds)
        await asyncio.sleep(seconds)
        self._go_on()


def _made_with(submission: SubmissionRecord) -> str:
    """The fingerprint of the key that sent its POST; "" if there is none."""
    return submission.key_fingerprint or key_of(submission.provider)


def _ready(video: RemoteVideo) -> RemoteVideo:
    if video.phase is Phase.ENDED_BADLY:
        assert video.failure is not None
        raise _Ended(video.failure, SubmissionState.FAILED, video.told)
    return video


def _lost(error: SoraError, remote_id: str) -> Failure:
    if error.status == 404:
        text = f"the server no longer knows video {remote_id}: HTTP 404 for minutes; it may have been restarted"
        return Failure(ErrorCode.NOT_FOUND, text, {**error.failure.detail, "remote_id": remote_id})
    return Failure(error.code, error.message, {**error.failure.detail, "remote_id": remote_id})


def _undownloadable(error: SoraError, remote_id: str) -> Failure:
    code = error.code if _is_account(error) else ErrorCode.DOWNLOAD_FAILED
    return Failure(code, error.message, {**error.failure.detail, "remote_id": remote_id})


def _is_account(error: SoraError) -> bool:
    return error.code in (ErrorCode.AUTHENTICATION, ErrorCode.PERMISSION)
