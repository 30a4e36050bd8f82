"""Setbacks: what hinders one run of a job. Each is reported and waited out as long as it may pass, or ends the run."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable

from actors.errors import ErrorCode, Failure, SoraError
from actors.messages import Generate, Report, Wait, Waiting
from actors.sora.client import SoraClient
from actors.sora.listing import pages
from actors.sora.reader import Page
from actors.sora.wire import inner_id
from actors.video.tools import Tools
from storage.records import Document
from storage.states import SubmissionState
from storage.timing import backoff

logger = logging.getLogger(__name__)
_FIRST_BACKOFF, _LONGEST_BACKOFF = 0.5, 30.0
_LOST_AFTER, _LOST_LOOKS = 120.0, 20
"""A video is lost after so many polls over so many seconds that all said 404."""
_PAGES = 50
"""How many pages of the listing are searched for a lost video."""


class Ended(Exception):
    """The video can't be obtained."""

    def __init__(self, failure: Failure, outcome: SubmissionState | None = None, told: Document | None = None) -> None:
        super().__init__(failure.message)
        self.failure, self.outcome, self.told = failure, outcome, told


class Absence:
    """Evidence that the server has lost a video: every poll over minutes said 404, and no listing shows it.

    A single poll says little: behind an address there may be replicas that know only their own videos.
    """

    def __init__(self, client: SoraClient, remote_id: str, *, provable: bool) -> None:
        """Prepare for the first 404.

        Args:
            client: reads the listing.
            remote_id: the video.
            provable: whether its create was sent with the polling key: another account may not see it.
        """
        self._client, self._remote_id, self._provable = client, remote_id, provable
        self._looks, self._since = 0, math.inf

    def refuted(self) -> None:
        """Note that a poll said something else."""
        self._looks, self._since = 0, math.inf

    async def proved(self) -> bool:
        """Note one more 404, and return whether the video is lost."""
        now = time.monotonic()
        self._looks, self._since = self._looks + 1, min(self._since, now)
        if not self._provable or self._looks < _LOST_LOOKS or now - self._since < _LOST_AFTER:
            return False
        try:
            shown = await self._is_listed()
        except SoraError as error:
            # A listing that stays unreadable for as long again counts as none.
            return not error.passes or now - self._since >= 2 * _LOST_AFTER
        if shown:
            self.refuted()
        return not shown

    async def _is_listed(self) -> bool:
        same, client = inner_id(self._remote_id), self._client

        def read(after: str | None) -> Awaitable[Page]:
            return client.listed(after, lambda listed: inner_id(listed) == same)

        async for page in pages(read, _PAGES):
            if page.videos:
                return True
        return False


class Setbacks:
    """Those of one run of a job."""

    def __init__(self, tools: Tools, order: Generate, report: Callable[[Report], None]) -> None:
        self._tools, self._report = tools, report
        self._job, self._run = order.job, order.run
        self.waits_for: str | None = None
        """Why it waits, or waited at the last attempt."""
        self.no_room: str | None = None
        """Why the file could not be written at the last attempt."""
        self.own_key = True
        """Whether the video was made with our key."""
        self.absence: Absence | None = None
        """Since the first 404; None: the last poll said something else."""

    def wait(self, reason: str, seconds: float) -> None:
        """Report why the run waits."""
        self.waits_for = reason
        self._report(Waiting(self._job.id, self._run, Wait(reason, time.monotonic() + seconds)))

    def go_on(self) -> None:
        """Report that it waits no longer."""
        self.waits_for = None
        self._report(Waiting(self._job.id, self._run, None))

    async def back_off(self, error: SoraError, tries: int) -> None:
        """Wait out an error, the more tries the longer."""
        await asyncio.sleep(self.say_why(error, tries))
        # The last problem stays known: the video's time may be up during the next attempt.
        self._report(Waiting(self._job.id, self._run, None))

    def say_why(self, error: SoraError, tries: int) -> float:
        """Report why it waits, and return the seconds."""
        if error.retry_after is not None:
            seconds = error.retry_after
        elif error.status == 404:
            seconds = _pause_after_404(self._tools.settings.sora_poll_interval.total_seconds())
        else:
            seconds = backoff(tries, _FIRST_BACKOFF, _LONGEST_BACKOFF, jitter=0.5)
        self.wait("rate limited" if error.code is ErrorCode.RATE_LIMITED else str(error), seconds)
        return seconds

    async def wait_for_room(self, reason: str, tries: int) -> None:
        """Wait until the file can perhaps be written."""
        logger.warning(
            "can't write a video; retrying",
            extra={"action": "no_room", "batch_id": self._job.batch_id, "job_id": self._job.id, "error": reason},
        )
        self.no_room = reason
        seconds = backoff(tries, _FIRST_BACKOFF, _LONGEST_BACKOFF, jitter=0.5)
        self.wait(reason, seconds)
        await asyncio.sleep(seconds)
        self.go_on()

    def refuses_us(self, error: SoraError) -> bool:
        """Whether the key has no access; a key that did not make the video may be refused any video."""
        return is_account(error) and (self.own_key or error.code is not ErrorCode.PERMISSION)

    async def end_if_lost(self, error: SoraError, remote_id: str) -> None:
        """End the run if the server has lost the video.

        Raises:
            Ended: it has.
        """
        if error.status != 404:
            self.absence = None
            return
        self.absence = self.absence or Absence(self._tools.client, remote_id, provable=self.own_key)
        if await self.absence.proved():
            raise Ended(lost(error, remote_id)) from error


def _pause_after_404(interval: float) -> float:
    """Seconds until the poll after a 404: it is no outage, and the next replica may know the video.

    Never in step with others: a round-robin balancer would lead each of them to the same replica again and again.
    """
    return min(interval, _LOST_AFTER / _LOST_LOOKS) * random.uniform(0.5, 1.0)  # noqa: S311


def is_account(error: SoraError) -> bool:
    """Whether it is about the account, not about this video."""
    return error.code in (ErrorCode.AUTHENTICATION, ErrorCode.PERMISSION)


def lost(error: SoraError, remote_id: str) -> Failure:
    """The failure of a video that can't be polled any more."""
    if error.status == 404:
        text = f"the server no longer knows video {remote_id}: HTTP 404 for minutes; it may have been restarted"
        return Failure(ErrorCode.NOT_FOUND, text, {**error.failure.detail, "remote_id": remote_id})
    return Failure(error.code, error.message, {**error.failure.detail, "remote_id": remote_id})
