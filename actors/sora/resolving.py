"""Resolving: finds out from the server's listing what became of a POST whose outcome is unknown.

A listed video of ours is adopted, at once or later. That nothing was made is proved only where the operator declares
the listing whole, and only once the POST must have arrived. Readings of the listing are shared.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial

from actors.batch.updating import tell_settled
from actors.errors import ErrorCode, Failure, SoraError
from actors.loop import IOLoop
from actors.settings import Settings
from actors.sora.client import SoraClient
from actors.sora.evidence import OTHER_KEY, Evidence, Finding
from actors.sora.listing import pages
from actors.sora.matching import ANSWERED_WITHIN, BEFORE, Listing, in_falling_order
from actors.sora.outcomes import SEND_WINDOW, NotPaid, Outcome, Unknown, known
from actors.sora.wire import RemoteVideo
from storage.recorder import Recorder
from storage.records import SubmissionRecord
from storage.states import UNRESOLVED, SubmissionState
from storage.storage import Storage
from storage.submissions import RESTORED
from storage.timing import backoff, boottime
from storage.urls import key_of, server_of

logger = logging.getLogger(__name__)
_UNKNOWN_SKEW, _KNOWN_SKEW = 120.0, 2.0
_PAGES = 50
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 5.0
_FIRST_ROUND, _ROUND_PAUSE = 60.0, 300.0
"""Seconds until the first round for ended jobs, and between two rounds."""
_AT_ONCE = 100
_PROOFS = 6
"""Attempts at proving absence: other submissions may be found meanwhile, which makes the next one conclusive."""


@dataclass(frozen=True, slots=True)
class _Window:
    """The period that a reading has to cover, and when it begins."""

    since: float
    began_at: float
    asked_at: float
    """By the clock that counts suspended time, read before `began_at`: a delay between them hides no video."""


class Resolver:
    """One per process: resolves for all of its batches. Lives on the I/O loop."""

    def __init__(
        self,
        io: IOLoop,
        client: SoraClient,
        storage: Storage,
        recorder: Recorder,
        settings: Settings,
        *,
        provider: str,
        is_sending: Callable[[SubmissionRecord], bool | None],
        resolved: Callable[[str], object],
    ) -> None:
        """`is_sending`: whether this process is sending an intent's POST; None: another process recorded it.

        `resolved`: called with `adopted` or `absent`, once for each intent of which this process has recorded it.
        """
        self._io, self._client, self._settings = io, client, settings
        self._storage, self._recorder, self._resolved = storage, recorder, resolved
        self._evidence = Evidence(storage, settings, provider=provider, is_sending=is_sending)
        self._asked: dict[str, SubmissionRecord] = {}
        self._next: asyncio.Task[dict[str, Finding]] | None = None
        self._one_at_a_time = asyncio.Lock()
        self._failing = False

    async def resolve(self, intent: SubmissionRecord, waiting: Callable[[float], None]) -> Outcome:
        """Find out what became of a POST whose outcome is unknown.

        Args:
            intent: the submission.
            waiting: called with the seconds for which nothing can be proved yet.
        """
        looks = proofs = 0
        while True:
            current, ready_in = await self._standing(intent.id)
            if current.state not in UNRESOLVED:
                return known(current)
            waiting(max(0.0, ready_in))
            finding = await self._look(current, ready_in)
            if finding.outcome is not None:
                return finding.outcome
            proofs += finding.tried
            if finding.final or proofs >= _PROOFS:
                return await self._leave_unknown(current, finding.why)
            if finding.tried:
                await asyncio.sleep(_FIRST_PAUSE * proofs)
            else:
                pause = backoff(looks, _FIRST_PAUSE, _LONGEST_PAUSE)
                looks += 1
                await asyncio.sleep(min(pause, ready_in) if ready_in > 0 else pause)

    async def _look(self, current: SubmissionRecord, ready_in: float) -> Finding:
        if not self._evidence.is_ours(current):
            return Finding(None, OTHER_KEY, final=ready_in <= 0)
        try:
            return (await self._reading(current)).get(current.id, Finding(None, "its outcome was not checked"))
        except SoraError as error:
            closed = current.closed_at is not None
            patience = self._settings.sora_submit_timeout.total_seconds()
            given_up = ready_in < -patience if error.retryable else closed
            return Finding(None, f"the server's listing could not be read: {error}", final=given_up)

    async def _leave_unknown(self, intent: SubmissionRecord, why: str) -> Outcome:
        met = f" (the POST met: {intent.met})" if intent.met else ""
        failure = Failure(
            ErrorCode.SUBMISSION_UNKNOWN,
            f"it is unknown whether this video was made{met}; it is not submitted again, to avoid paying twice: {why}",
            {"met": intent.met} if intent.met else {},
        )
        if self._settings.sora_unknown_submission == "resubmit" and intent.note != RESTORED:
            give_up = partial(self._give_up, intent.id, failure)
            return await self._io.outcome(self._recorder.write(give_up))
        return Unknown(failure)

    def _give_up(self, submission_id: str, failure: Failure) -> Outcome:
        """In one statement: its answer may arrive meanwhile."""
        if self._storage.submissions.give_up(submission_id, failure.message):
            return NotPaid(SubmissionState.ABANDONED, failure)
        return known(self._storage.submissions.get(submission_id))

    async def _standing(self, submission_id: str) -> tuple[SubmissionRecord, float]:
        return await self._io.outcome(self._recorder.write(partial(self._evidence.standing, submission_id)))

    async def _reading(self, intent: SubmissionRecord) -> dict[str, Finding]:
        """The findings of the next reading, for all that wait for it; one in progress serves no newcomers."""
        self._asked[intent.id] = intent
        if self._next is None:
            self._next = asyncio.create_task(self._read_and_match())
            self._next.add_done_callback(lambda task: task.cancelled() or task.exception())  # none may wait
        return await asyncio.shield(self._next)

    async def _read_and_match(self) -> dict[str, Finding]:
        async with self._one_at_a_time:
            asked, self._asked, self._next = self._asked, {}, None
            window = await self._io.outcome(self._recorder.read(partial(self._window, asked)))
            try:
                listing = await self._listing(window)
            except SoraError:
                self._failing = True
                raise
            if self._failing or listing.took > ANSWERED_WITHIN:
                # Whatever held listings back may have held POSTs back, and is releasing both now.
                self._failing = False
                self._evidence.stalled_until = await self._io.outcome(self._recorder.read(self._storage.database.now))
            findings = await self._io.outcome(self._recorder.write(partial(self._evidence.match, asked, listing)))
            for state in filter(None, (finding.recorded for finding in findings.values())):
                self._resolved(state)
            return findings

    def _window(self, asked: Mapping[str, SubmissionRecord]) -> _Window:
        asked_at = boottime()
        began_at = self._storage.database.now()
        return _Window(min(intent.intended_at for intent in asked.values()) - BEFORE, began_at, asked_at)

    async def _listing(self, window: _Window) -> Listing:
        if self._client.clock.offset is None:
            await self._client.list_page(None)
        offset = self._client.clock.offset
        ahead = 0.0 if offset is None else offset + window.asked_at - window.began_at
        skew = SEND_WINDOW + (_UNKNOWN_SKEW if offset is None else _KNOWN_SKEW)
        began = boottime()
        videos, complete = await self._pages(window.since + ahead)
        return Listing(
            tuple(videos), since=window.since, complete=complete, began_at=window.began_at,
            took=boottime() - began, ahead=ahead, skew=skew,
        )  # fmt: skip

    async def _pages(self, since: float) -> tuple[list[RemoteVideo], bool]:
        """The videos listed back to a time by the server's clock, and whether these are all of them."""
        found: list[RemoteVideo] = []
        ended = False
        async for page in pages(self._client.list_page, _PAGES):
            found += page.videos
            older = any(video.created_at is not None and video.created_at < since for video in page.videos)
            if older and in_falling_order(page.videos):
                return found, True
            ended = page.has_more is False
        return found, ended


class LateResolver:
    """Resolves, for the ledger, the POSTs of ended jobs: nobody waits for them. One per process that serves."""

    def __init__(
        self,
        io: IOLoop,
        resolve: Callable[[SubmissionRecord, Callable[[float], None]], Awaitable[Outcome]],
        storage: Storage,
        recorder: Recorder,
        settings: Settings,
        *,
        provider: str,
    ) -> None:
        self._io, self._resolve, self._storage, self._recorder = io, resolve, storage, recorder
        # With `resubmit`, what stays unknown would be given up: that is for who retries the job to say.
        self._may = settings.sora_unknown_submission == "fail"
        self._server, self._key = server_of(provider), key_of(provider)
        self._tried: set[str] = set()

    async def run(self) -> None:
        """Go round until the loop ends."""
        await asyncio.sleep(_FIRST_ROUND)
        while self._may:
            try:
                await self.resolve()
            except Exception:  # the server's, or the database's: the next round may do better
                logger.exception("could not resolve submissions of ended jobs", extra={"action": "late_resolving"})
            await asyncio.sleep(_ROUND_PAUSE)

    async def resolve(self) -> int:
        """Resolve what can be resolved, each once in the life of this process. Returns how many were."""
        tried = list(self._tried)  # the recorder's thread reads it
        left_unknown = partial(self._storage.submissions.left_unknown, self._server, self._key, tried, _AT_ONCE)
        found = await self._io.outcome(self._recorder.read(left_unknown))
        resolved = 0
        for entry in found:
            self._tried.add(entry.id)
            outcome = await self._resolve(entry, lambda _seconds: None)
            if isinstance(outcome, Unknown):
                continue
            await self._io.outcome(self._recorder.write(partial(self._tell, entry.id)))
            resolved += 1
        return resolved

    def _tell(self, submission_id: str) -> None:
        tell_settled(self._storage, submission_id, self._storage.database.time())
