"""Submitting is a protocol, not a call: record the intent, POST once, bind the outcome, resolve what is unknown.

A create is idempotent on no server. So the POST runs in a task of its own that nobody cancels, and that records its
outcome in the submission itself, whoever owns the batch by then. `resolving` resolves what stays unknown.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from functools import cached_property

import peewee

from actors.batch.cancellation import owe_delete_of_cancelled
from actors.batch.updating import tell_settled
from actors.errors import ErrorCode, Failure
from actors.loop import IOLoop
from actors.observer import Observer
from actors.settings import Settings
from actors.sora.client import Accepted, NoAnswer, Refused, SoraClient
from actors.sora.outcomes import SEND_WINDOW, Bound, NotPaid, Outcome, Unknown, bind_told, known
from actors.sora.requests import Body, VideoSpec
from actors.sora.resolving import Resolver
from actors.sora.upload import SendForbidden
from actors.sora.wire import RemoteVideo
from storage.recorder import Recorder
from storage.records import Document, SubmissionRecord
from storage.states import SubmissionState
from storage.storage import Storage
from storage.submissions import Bind
from storage.timing import boottime
from storage.traces import trace_of

logger = logging.getLogger(__name__)


class LeaseMargin:
    """Until when this process may assume that it owns its batches, by the clock that counts suspended time."""

    def __init__(self) -> None:
        self.trusted_until = 0.0

    @property
    def trusted(self) -> bool:
        """Whether a POST may go out now."""
        return boottime() <= self.trusted_until


class Submitter:
    """Sends creates and resolves unknown ones, for all batches of a process. Lives on the I/O loop."""

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
        self._io, self._client = io, client
        self._storage, self._recorder = storage, recorder
        self._owner_id, self._lease = owner_id, lease
        self._posts: dict[str, asyncio.Task[Outcome]] = {}
        self._unawaited: set[str] = set()
        """The POSTs in flight whose worker was stopped: their batch may have been cancelled."""
        self._deletes = settings.sora_delete_on_cancel != "never"
        self._settings, self._provider = settings, provider
        self.observer = Observer()
        self.on_left: Callable[[str, str], None] = lambda _batch_id, _submission_id: None
        """Called with the ids of batch and submission when a POST leaves, or is known never to."""
        self.on_owed: Callable[[], object] = lambda: None
        """Called when a DELETE may be owed: a POST was answered after its batch was cancelled."""

    @cached_property
    def _resolver(self) -> Resolver:
        return Resolver(
            self._io, self._client, self._storage, self._recorder, self._settings,
            provider=self._provider, is_sending=self._is_sending, resolved=self.observer.submission,
        )  # fmt: skip

    @property
    def may_send(self) -> bool:
        """Whether to record an intent: without the lease it would not be sent, only recorded again and again."""
        return self._lease.trusted

    async def submit(self, intent: SubmissionRecord, video: VideoSpec | Body, send_before: float) -> Outcome:
        """POST once and record the outcome. Cancelling the caller does not stop the POST."""
        task = asyncio.create_task(self._post(intent, video, send_before), name=intent.batch_id)
        self._posts[intent.id] = task
        task.add_done_callback(lambda done: self._ended(intent, done))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self._unawaited.add(intent.id)
            raise

    async def take_back(self, intent: SubmissionRecord) -> None:
        """Record that an intent is not sent: its body could not be built."""
        failure = Failure(ErrorCode.INTERNAL, "the POST was not sent: its body could not be built")
        await self._settle(intent.id, SubmissionState.NOT_SENT, failure)
        self.observer.submission(SubmissionState.NOT_SENT.value)
        self.on_left(intent.batch_id, intent.id)

    def _ended(self, intent: SubmissionRecord, post: asyncio.Task[Outcome]) -> None:
        if not (post.cancelled() or post.exception()):
            self.observer.submission(_as_counted(post.result()))
        self._posts.pop(intent.id, None)
        self._unawaited.discard(intent.id)
        self.on_left(intent.batch_id, intent.id)

    async def drained(self, seconds: float, batch_id: str | None = None) -> None:
        """Wait until the POSTs in flight (of one batch) are bound, or known to have made nothing."""
        posts = [task for task in self._posts.values() if batch_id in (None, task.get_name())]
        if posts:
            await asyncio.wait(posts, timeout=seconds)

    async def _post(self, intent: SubmissionRecord, video: VideoSpec | Body, send_before: float) -> Outcome:
        guard = self._guard(intent, send_before)
        result = await self._client.create(video, intent.id, guard, trace_of(intent.batch_id))
        match result:
            case Accepted(made, remote_id, told):
                return await self._bind(intent, remote_id, made, told)
            case Refused(failure, sent, passes=passes):
                state = SubmissionState.REFUSED if sent else SubmissionState.NOT_SENT
                await self._settle(intent.id, state, failure)
                return NotPaid(state, failure, passes)
            case NoAnswer(failure, timed_out):
                unanswered = self._storage.submissions.unanswered
                met = failure.message
                await self._io.outcome(self._recorder.write(lambda: unanswered(intent.id, met, timed_out=timed_out)))
                return Unknown(failure)

    def _guard(self, intent: SubmissionRecord, send_before: float) -> Callable[[], None]:
        def guard() -> None:
            now = boottime()
            if now > send_before:
                raise SendForbidden(f"the POST was not sent: its send window of {SEND_WINDOW:g} s was over")
            if now > self._lease.trusted_until:
                raise SendForbidden("the POST was not sent: this process may no longer own the batch")
            self.on_left(intent.batch_id, intent.id)

        return guard

    async def _bind(
        self, intent: SubmissionRecord, remote_id: str, video: RemoteVideo | None, told: Document | None
    ) -> Outcome:
        storage, told_at = self._storage, time.monotonic()
        try:
            # crash point: bind
            bind = await self._io.outcome(self._recorder.write(lambda: bind_told(storage, intent.id, remote_id, told)))
        except peewee.IntegrityError:
            # A process of the previous version, running beside us, has recorded that id without a server.
            def bind_again() -> Bind:
                storage.submissions.fill_in()
                return bind_told(storage, intent.id, remote_id, told)

            bind = await self._io.outcome(self._recorder.write(bind_again))
        if bind is Bind.BOUND:
            if intent.id in self._unawaited:
                await self._late(intent.id)
            return Bound(remote_id, video, told_at, told)
        if bind is Bind.HELD:
            # It was made and will be charged for: the listing may show it under its true id, but can't prove absence.
            text = f"the server gave this video the id {remote_id}, which another video of ours already has"
            failure = Failure(ErrorCode.SUBMISSION_UNKNOWN, text, {"remote_id": remote_id})
            await self._settle(intent.id, SubmissionState.CLASHED, failure)
            return Unknown(failure)
        await self._io.outcome(self._recorder.write(lambda: tell_settled(storage, intent.id, storage.database.time())))
        logger.warning(
            "a video arrived after its intent had been resolved",
            extra={
                "action": "surplus_video",
                "batch_id": intent.batch_id,
                "job_id": intent.job_id,
                "remote_id": remote_id,
            },
        )
        return known(await self._io.outcome(self._recorder.read(lambda: storage.submissions.get(intent.id))))

    async def _late(self, submission_id: str) -> None:
        """Nobody waited for an answer any more: its job may have been cancelled, and has a cost now."""
        storage, deletes = self._storage, self._deletes

        def write() -> None:
            tell_settled(storage, submission_id, storage.database.time())
            if deletes:
                owe_delete_of_cancelled(storage, submission_id)

        await self._io.outcome(self._recorder.write(write))
        if deletes:
            self.on_owed()

    async def _settle(self, submission_id: str, state: SubmissionState, failure: Failure) -> None:
        settle = self._storage.submissions.settle
        await self._io.outcome(self._recorder.write(lambda: settle(submission_id, state, failure.message)))

    async def resolve(self, intent: SubmissionRecord, waiting: Callable[[float], None]) -> Outcome:
        """Find out what became of a POST whose outcome is unknown.

        Args:
            intent: the submission.
            waiting: called with the seconds for which nothing can be proved yet.
        """
        self.on_left(intent.batch_id, intent.id)
        outcome = await self._resolver.resolve(intent, waiting)
        if isinstance(outcome, NotPaid) and outcome.state is SubmissionState.ABANDONED:
            self.observer.submission(outcome.state.value)
        return outcome

    def _is_sending(self, submission: SubmissionRecord) -> bool | None:
        """Whether this process is sending an intent's POST; one recorded just now is about to leave."""
        if submission.sender != self._owner_id:
            return None
        leaves_until = submission.intended_at + SEND_WINDOW
        return submission.id in self._posts or self._storage.database.time() < leaves_until


def _as_counted(outcome: Outcome) -> str:
    match outcome:
        case Bound():
            return SubmissionState.BOUND.value
        case NotPaid(state):
            return state.value
        case Unknown():
            return SubmissionState.UNKNOWN.value
