"""Submitting is a protocol, not a call: record the intent, POST once, bind what came of it, resolve what is unknown.

A create is idempotent on no server. So the POST runs in a task of its own that nobody cancels, and that writes its
outcome into the submission itself, whoever owns the batch by then. What stays unknown is looked for in the server's
listing: adopted if it is found, submitted anew only if its absence is proved.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import peewee
from tenacity import (
    AsyncRetrying,
    retry_if_exception,
    stop_after_delay,
    wait_random_exponential,
)

from actors.errors import ErrorCode, Failure, SoraError
from actors.loop import IOLoop
from actors.settings import Settings
from actors.sora.client import Accepted, NotNow, Page, Refused, SoraClient, Unanswered, VideoSpec
from actors.sora.matching import Listing, contradicts, in_falling_order, judge
from actors.sora.wire import RemoteVideo
from storage.changes import Storage
from storage.clocks import awake_or_not
from storage.owners import is_dead, this_host
from storage.recorder import Recorder
from storage.records import JobRecord, SubmissionRecord
from storage.states import UNRESOLVED, SubmissionState

logger = logging.getLogger(__name__)

SEND_WINDOW = 2.0
"""Seconds from the intent within which the POST must leave: after that, its sender must not send it any more."""
_UNKNOWN_SKEW, _KNOWN_SKEW = 120.0, 2.0
_PAGES = 50
_LOOK_AGAIN = 0.25
_TRIES = 6


@dataclass(frozen=True, slots=True)
class Bound:
    """The video exists, and its id is recorded."""

    remote_id: str
    video: RemoteVideo | None = None
    """As the create told it, if it did."""
    told_at: float = -math.inf
    """When it did, by `time.monotonic()`."""


@dataclass(frozen=True, slots=True)
class NotPaid:
    """Nothing was made; recorded as `state`."""

    state: SubmissionState
    failure: Failure


@dataclass(frozen=True, slots=True)
class Unknown:
    """It may have been made, and nobody can tell."""

    failure: Failure


Outcome = Bound | NotPaid | Unknown


class LeaseMargin:
    """Until when this process may trust that it owns its batches, by the clock that counts suspended time."""

    def __init__(self) -> None:
        self.trusted_until = 0.0

    @property
    def trusted(self) -> bool:
        """Whether a POST may go out at this moment."""
        return awake_or_not() <= self.trusted_until


class Submitter:
    """Makes creates and resolves unknown ones, for all batches of a process. Lives on the I/O loop."""

    def __init__(
        self,
        io: IOLoop,
        client: SoraClient,
        storage: Storage,
        recorder: Recorder,
        settings: Settings,
        *,
        provider: str,
        owner_id: str,
        lease: LeaseMargin,
    ) -> None:
        self._io, self._client, self._settings = io, client, settings
        self._storage, self._recorder = storage, recorder
        self._provider, self._owner_id, self._lease = provider, owner_id, lease
        self._posts: dict[str, asyncio.Task[Outcome]] = {}
        self.on_left: Callable[[str, str], None] = lambda _batch_id, _submission_id: None
        """Called when a POST leaves, or never will: with the ids of its batch and its submission."""

    @property
    def may_send(self) -> bool:
        """Whether an intent makes sense: without the lease it would be recorded, not sent, and recorded again."""
        return self._lease.trusted

    async def submit(self, intent: SubmissionRecord, spec: VideoSpec, send_before: float) -> Outcome:
        """POST once, and have the outcome recorded. Being cancelled does not stop the POST."""
        task = asyncio.create_task(self._post(intent, spec, send_before), name=intent.batch_id)
        self._posts[intent.id] = task
        task.add_done_callback(lambda _: self._ended(intent))
        return await asyncio.shield(task)

    def _ended(self, intent: SubmissionRecord) -> None:
        self._posts.pop(intent.id, None)
        self.on_left(intent.batch_id, intent.id)

    async def drained(self, seconds: float, batch_id: str | None = None) -> None:
        """Wait for the POSTs in flight (of one batch) to be bound, or known to be nothing."""
        posts = [task for task in self._posts.values() if batch_id in (None, task.get_name())]
        if posts:
            await asyncio.wait(posts, timeout=seconds)

    async def _post(self, intent: SubmissionRecord, spec: VideoSpec, send_before: float) -> Outcome:
        result = await self._client.create(spec, intent.id, self._guard(intent, send_before))
        match result:
            case Accepted(video, remote_id):
                return await self._bind(intent, remote_id, video)
            case Refused(failure, sent):
                state = SubmissionState.REFUSED if sent else SubmissionState.NOT_SENT
                await self._settle(intent.id, state, failure)
                return NotPaid(state, failure)
            case Unanswered(failure):
                await self._settle(intent.id, SubmissionState.UNKNOWN, failure)
                return Unknown(failure)

    def _guard(self, intent: SubmissionRecord, send_before: float) -> Callable[[], None]:
        def guard() -> None:
            now = awake_or_not()
            if now > send_before:
                raise NotNow(f"the POST was not sent: its {SEND_WINDOW:g} s had passed")
            if now > self._lease.trusted_until:
                raise NotNow("the POST was not sent: this process can't be sure to own the batch any more")
            self.on_left(intent.batch_id, intent.id)

        return guard

    async def _bind(self, intent: SubmissionRecord, remote_id: str, video: RemoteVideo | None) -> Outcome:
        submissions, told_at = self._storage.submissions, time.monotonic()
        try:
            bound = await self._io.outcome(self._recorder.write(lambda: submissions.bind(intent.id, remote_id)))
        except peewee.IntegrityError:
            # It was made and will be charged for: the listing may show it under its true id, but never its absence.
            text = f"the server gave this video the id {remote_id}, which another video of ours has"
            failure = Failure(ErrorCode.SUBMISSION_UNKNOWN, text, {"remote_id": remote_id})
            await self._settle(intent.id, SubmissionState.CLASHED, failure)
            return Unknown(failure)
        if bound:
            return Bound(remote_id, video, told_at)
        logger.warning(
            "a video came after its intent had been resolved",
            extra={
                "action": "surplus_video",
                "batch_id": intent.batch_id,
                "job_id": intent.job_id,
                "remote_id": remote_id,
            },
        )
        return _known(await self._io.outcome(self._recorder.read(lambda: submissions.get(intent.id))))

    async def _settle(self, submission_id: str, state: SubmissionState, failure: Failure) -> None:
        settle = self._storage.submissions.settle
        await self._io.outcome(self._recorder.write(lambda: settle(submission_id, state, failure.message)))

    async def resolve(self, intent: SubmissionRecord, spec: VideoSpec, waiting: Callable[[float], None]) -> Outcome:
        """Find out what became of a POST whose outcome is unknown.

        Args:
            intent: the submission.
            spec: what it sent, or would have sent.
            waiting: told the seconds for which nothing can be done yet.
        """
        self.on_left(intent.batch_id, intent.id)
        tries = 0
        while True:
            current, ready_in = await self._standing(intent.id)
            if current.state not in UNRESOLVED:
                return _known(current)
            if ready_in > 0:
                waiting(ready_in)
                await asyncio.sleep(min(ready_in, _LOOK_AGAIN))
                continue
            try:
                window_start, made_before = await self._before_the_look(current)
                listing = await self._listing(window_start)
            except SoraError as error:
                return await self._leave_unknown(current, f"the server's listing could not be read: {error}")
            tries += 1
            matching = partial(self._match, current, spec, listing, made_before=made_before, last=tries >= _TRIES)
            outcome = await self._io.outcome(self._recorder.write(matching))
            if isinstance(outcome, Unknown):
                return await self._leave_unknown(current, outcome.failure.message)
            if outcome is not None:
                return outcome
            await asyncio.sleep(_LOOK_AGAIN * min(tries, 8))

    async def _leave_unknown(self, intent: SubmissionRecord, why: str) -> Outcome:
        failure = Failure(
            ErrorCode.SUBMISSION_UNKNOWN,
            f"whether this video was made is unknown, and paying twice is worse than not at all: {why}",
        )
        if self._settings.sora_unknown_submission == "resubmit":
            give_up = partial(self._give_up, intent.id, failure)
            return await self._io.outcome(self._recorder.write(give_up))
        return Unknown(failure)

    def _give_up(self, submission_id: str, failure: Failure) -> Outcome:
        """In one transaction: its answer may have come in the meantime."""
        current = self._storage.submissions.get(submission_id)
        if current.state not in UNRESOLVED:
            return _known(current)
        self._storage.submissions.settle(submission_id, SubmissionState.ABANDONED, failure.message)
        return NotPaid(SubmissionState.ABANDONED, failure)

    async def _standing(self, submission_id: str) -> tuple[SubmissionRecord, float]:
        """The submission, and the seconds until its outcome may be looked for."""

        def look() -> tuple[SubmissionRecord, float]:
            current = self._storage.submissions.get(submission_id)
            if current.state not in UNRESOLVED:
                return current, 0.0
            if current.closed_at is None and self._sender_is_gone(current):
                # Written down once: from here on the settle time counts, whoever goes on with it.
                self._storage.submissions.settle(current.id, SubmissionState.UNKNOWN, "its sender is dead")
                current = self._storage.submissions.get(submission_id)
            return current, self._ready_at(current) - self._storage.database.now()

        return await self._io.outcome(self._recorder.write(look))

    def _sender_is_gone(self, submission: SubmissionRecord) -> bool:
        if submission.sender == self._owner_id:
            return submission.id not in self._posts
        host, boot = this_host()
        neighbours = {owner.id: owner for owner in self._storage.owners.neighbours(host, boot)}
        sender = neighbours.get(submission.sender)
        return sender is not None and is_dead(sender)

    def _ready_at(self, submission: SubmissionRecord) -> float:
        """From when on, by the database's clock, a listing can be trusted to show what was made."""
        settle = self._settings.sora_settle.total_seconds()
        if submission.closed_at is not None:
            return submission.closed_at + settle
        longest = self._settings.sora_submit_timeout.total_seconds()
        return submission.intended_at + SEND_WINDOW + longest + settle

    async def _before_the_look(self, intent: SubmissionRecord) -> tuple[float, bool]:
        """Where to stop looking back, and whether there was a video of ours to be seen by then.

        The former in the server's time: before the oldest open intent of the same request.
        """

        def standing() -> tuple[float, float, bool]:
            same = self._storage.submissions.unresolved(self._provider, intent.digest)
            first = min([other.intended_at for other in same], default=intent.intended_at)
            return first, self._storage.database.now(), self._storage.submissions.made_any(self._provider)

        # Before the database's time: whatever passes between the two makes the window longer, and hides no video.
        asked_at = awake_or_not()
        first, database_now, made_before = await self._io.outcome(self._recorder.write(standing))
        await self._client_has_seen_a_date()
        offset = self._client.clock.offset
        ahead = 0.0 if offset is None else offset + asked_at - database_now
        return first + ahead - SEND_WINDOW - (_UNKNOWN_SKEW if offset is None else _KNOWN_SKEW), made_before

    async def _client_has_seen_a_date(self) -> None:
        if self._client.clock.offset is None:
            await self._page(None)

    async def _listing(self, window_start: float) -> Listing:
        found: list[RemoteVideo] = []
        after: str | None = None
        for _ in range(_PAGES):
            page = await self._page(after)
            found += page.videos
            older = any(video.created_at is not None and video.created_at < window_start for video in page.videos)
            if older and in_falling_order(page.videos):
                return Listing(tuple(found), complete=True, window_start=window_start)
            last = page.videos[-1].id if page.videos else None
            if page.has_more is not True or last is None or last == after:
                return Listing(tuple(found), complete=page.has_more is False, window_start=window_start)
            after = last
        return Listing(tuple(found), complete=False, window_start=window_start)

    async def _page(self, after: str | None) -> Page:
        retrying = AsyncRetrying(
            retry=retry_if_exception(lambda error: isinstance(error, SoraError) and error.retryable),
            stop=stop_after_delay(self._settings.sora_submit_timeout.total_seconds()),
            wait=wait_random_exponential(multiplier=0.5, max=5),
            reraise=True,
        )
        return await retrying(self._client.list_page, after)

    def _match(
        self, intent: SubmissionRecord, spec: VideoSpec, listing: Listing, *, made_before: bool, last: bool
    ) -> Outcome | None:
        """In one transaction: match what is listed to the open intents of this request. None: not yet."""
        submissions = self._storage.submissions
        intents = submissions.unresolved(self._provider, intent.digest)
        now = self._storage.database.now()
        ours = next((other for other in intents if other.id == intent.id), None)
        if ours is None or any(self._ready_at(other) > now for other in intents):
            return None
        ids = [video.id for video in listing.videos if video.id]
        verdict = judge(
            listing, spec, open_intents=len(intents), held=submissions.held(self._provider, ids),
            made_any=made_before,
        )  # fmt: skip
        wait = self._contested(intent, spec, [video for video in listing.videos if video.id in verdict.adopted], now)
        if wait is not None:
            return None if wait else Unknown(Failure(ErrorCode.SUBMISSION_UNKNOWN, "another request may have made it"))
        adopted = dict(zip((other.id for other in intents), verdict.adopted, strict=False))
        for submission_id, remote_id in adopted.items():
            submissions.bind(submission_id, remote_id, adopted=True)
        if intent.id in adopted:
            return Bound(adopted[intent.id])
        if verdict.absent and ours.state is not SubmissionState.CLASHED:
            failure = Failure(ErrorCode.NETWORK, "the server's listing shows that nothing was made")
            submissions.settle(intent.id, SubmissionState.ABSENT, failure.message)
            return NotPaid(SubmissionState.ABSENT, failure)
        first_made = not made_before and submissions.made_any(self._provider)
        if not last and (first_made or submissions.unresolved_others(self._provider, intent.digest)):
            # Our first video is newer than the listing, or others are being looked for: the next one proves more.
            return None
        return Unknown(Failure(ErrorCode.SUBMISSION_UNKNOWN, "the server's listing does not tell"))

    def _contested(
        self, intent: SubmissionRecord, spec: VideoSpec, videos: list[RemoteVideo], now: float
    ) -> bool | None:
        """Whether an open intent of another request may have made one of these videos.

        A listing does not tell all that a request says (its reference, a size that was left out).

        Returns:
            None: none may; True: one may, and is still in flight; False: one may, and nobody will ever tell.
        """
        if not videos:
            return None
        others = self._storage.submissions.unresolved_others(self._provider, intent.digest)
        jobs = self._storage.jobs.by_id([other.job_id for other in others])
        rivals = [
            other
            for other in others
            if (job := jobs.get(other.job_id)) is not None
            and any(not contradicts(video, replace(spec, **_spoken(job))) for video in videos)
        ]
        return any(self._ready_at(rival) > now for rival in rivals) if rivals else None


def _spoken(job: JobRecord) -> dict[str, Any]:
    """What a listing may tell of a job's request."""
    return {"prompt": job.prompt, "model": job.model, "seconds": job.duration, "size": job.size}


def _known(submission: SubmissionRecord) -> Outcome:
    if submission.state is SubmissionState.BOUND and submission.remote_id is not None:
        return Bound(submission.remote_id)
    if submission.state is SubmissionState.SURPLUS:
        return Unknown(Failure(ErrorCode.SUBMISSION_UNKNOWN, submission.note or "it was made, and no job holds it"))
    return NotPaid(submission.state, Failure(ErrorCode.UNAVAILABLE, submission.note or "nothing was paid"))
