"""Sends the DELETEs owed to this process's server, whoever cancelled: a few at a time, in the background.

Each is recorded as going out, then sent within 2 s or not at all. One without a final answer stays owed, for this
process or the next one.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from actors.errors import SoraError
from actors.loop import IOLoop
from actors.sora.client import SoraClient
from actors.sora.outcomes import SEND_WINDOW
from actors.sora.upload import SendForbidden
from actors.sora.wire import Phase
from storage.deletes import Owed
from storage.failures import DatabaseError
from storage.recorder import Recorder
from storage.records import DeleteRecord
from storage.states import DeleteState, SubmissionState
from storage.storage import Storage
from storage.timing import backoff, boottime
from storage.urls import key_of, server_of

logger = logging.getLogger(__name__)
ANSWER_SECONDS = 10.0
"""Seconds after its send window until one counts as unanswered."""
_OUT_SECONDS = SEND_WINDOW + ANSWER_SECONDS + 1.0
_AT_ONCE = 10
_IDLE_LOOK, _SOON = 15.0, 2.0
_GRACE = 2.0
"""Seconds after a retry before a process begins: the next retry may want the videos of another batch."""
_LONGEST_PAUSE = 600.0
_FRESH = 10.0
"""Seconds for which a video that can't be polled counts as still being made, as when it was cancelled."""
_LIKE_RECORD_ONLY = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32}", re.IGNORECASE)
"""Ids such as those of SGLang and FastVideo, whose DELETE removes only the record: they go on making the video."""
_REFUSED = frozenset({404, 405, 410, 501})
"""There is nothing to delete, or the server deletes nothing: another DELETE changes nothing."""


class DeleteSender:
    """One per process. Lives on the I/O loop, as long as the runtime."""

    def __init__(
        self, io: IOLoop, client: SoraClient, storage: Storage, recorder: Recorder, *, provider: str, whole: bool
    ) -> None:
        """`whole`: the server has one store, so a video that it does not know after our DELETE was deleted by it."""
        self._io, self._client, self._storage, self._recorder = io, client, storage, recorder
        self._server, self._key, self._whole = server_of(provider), key_of(provider), whole
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._out: set[str] = set()
        self._failures: Counter[str] = Counter()
        self._stops_videos = False
        """Whether a DELETE is known to do so at this server."""
        self._woken, self._settled = asyncio.Event(), asyncio.Event()
        self._watching: asyncio.Task[None] | None = None
        self._begun = self._held = False
        self._grace: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Start sending what is owed, on the loop. Not earlier: a retry first withdraws what it wants."""
        self._begun = True
        if self._watching is None and not self._held and self._grace is None:
            self._watching = asyncio.create_task(self._watch())

    def hold(self, *, held: bool) -> None:
        """Put off the beginning, on the loop, or (`held` False) make up for it after a grace."""
        self._held = held
        self._end_grace()
        if not held and self._watching is None:
            self._grace = self._io.loop.call_later(_GRACE, self._make_up)

    def _make_up(self) -> None:
        self._end_grace()
        if self._begun:
            self.begin()

    def _end_grace(self) -> None:
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None

    def wake(self) -> None:
        """Look now, on the loop: a DELETE may be owed."""
        self._settled.clear()
        self._woken.set()
        self._end_grace()
        self.begin()

    async def finish(self, seconds: float) -> None:
        """Start no more after so many seconds, and await the answers to those in flight. The rest stays owed."""
        self._make_up()
        if self._watching is None:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._settled.wait()
        self._watching.cancel()
        for submission_id, task in self._tasks.items():
            if submission_id not in self._out:
                task.cancel()
        await asyncio.gather(self._watching, *self._tasks.values(), return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            self._woken.clear()
            try:
                pause = await self._look()
            except DatabaseError:
                return  # it is closed
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._woken.wait()

    async def _look(self) -> float:
        """Start what is due. Returns the seconds until the next look."""
        found = await self._io.outcome(self._recorder.read(partial(self._storage.deletes.open, self._server)))
        now, nearest = self._storage.database.time(), math.inf
        for owed in found:
            wait = owed.delete.due_at - now
            if wait > 0:
                nearest = min(nearest, wait)
            elif len(self._tasks) < self._at_once(owed) and owed.submission.id not in self._tasks:
                task = asyncio.create_task(self._try(owed), name=owed.submission.batch_id)
                self._tasks[owed.submission.id] = task
                task.add_done_callback(partial(self._ended, owed))
        if not self._tasks and nearest > _SOON:
            self._settled.set()
        return min(nearest, _IDLE_LOOK)

    def _at_once(self, owed: Owed) -> int:
        """How many may be under way with it: where a DELETE may remove only the record, one shows what it does."""
        unproven = not self._stops_videos and _LIKE_RECORD_ONLY.fullmatch(owed.submission.remote_id or "")
        return 1 if unproven else _AT_ONCE

    def _ended(self, owed: Owed, task: asyncio.Task[None]) -> None:
        del self._tasks[owed.submission.id]
        self._out.discard(owed.submission.id)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            logger.error("a DELETE failed", extra={**_about(owed), "error": self._storage.database.describe(error)})
        self._woken.set()

    async def _try(self, owed: Owed) -> None:
        """Poll the video, since a finished one is not deleted; then send the DELETE."""
        submission, tries = owed.submission, owed.delete.tries
        if submission.remote_id is None:
            await self._end(owed, "not deleted: its id now belongs to another video")
            return
        try:
            video, _ = await self._client.retrieve(submission.remote_id)
        except SoraError as error:
            fresh = self._storage.database.time() - owed.delete.owed_at < _FRESH
            if error.status not in _REFUSED and not fresh:
                await self._postpone(owed, tries, error.retry_after, f"not sent yet: {error.message}")
                return
        else:
            if video.phase is not Phase.WORKING:
                await self._end(owed, f"not deleted: it is already {video.status}")
                return
        await self._client.rate_limiter.turn()
        self._out.add(submission.id)
        own_key = (submission.key_fingerprint or "") == self._key
        claim, submission_id = self._storage.deletes.claim, submission.id

        def write() -> tuple[DeleteRecord | None, float]:
            return claim(submission_id, own_key=own_key, seconds=_OUT_SECONDS), boottime() + SEND_WINDOW

        before, send_before = await self._io.outcome(self._recorder.write(write))  # crash point: sending
        if before is not None:
            await self._send(owed._replace(delete=before), own_key=own_key, send_before=send_before)

    async def _send(self, owed: Owed, *, own_key: bool, send_before: float) -> None:
        def guard() -> None:
            if boottime() > send_before:
                raise SendForbidden("the DELETE was not sent within 2 s of being recorded")

        assert owed.submission.remote_id is not None
        tries = owed.delete.tries + 1
        try:
            status, pause, body = await self._client.delete(owed.submission.remote_id, guard, ANSWER_SECONDS)
        except SendForbidden as error:
            why = f"not sent yet: {error}"
            await self._note(lambda storage: storage.deletes.not_sent(owed.delete, self._pause(owed), why))
            return
        except SoraError as error:
            await self._postpone(owed, tries, None, f"DELETE after the cancellation: {error.message}")
            return
        logger.info("asked the server to delete a cancelled video", extra={**_about(owed), "status": status})
        answer = f"DELETE after the cancellation: HTTP {status}"
        if 200 <= status < 300 and _removed_only_the_record(body):
            await self._only_the_record_went(owed, answer)
        elif 200 <= status < 300:
            self._stops_videos = True
            await self._end(owed, answer, deleted=own_key)
        elif status in _REFUSED:
            # After an earlier DELETE without an answer, that one did it.
            ours = status in (404, 410) and own_key and owed.delete.own_key and self._whole
            await self._end(owed, answer, deleted=ours)
        else:
            await self._postpone(owed, tries, pause, answer)

    async def _only_the_record_went(self, owed: Owed, answer: str) -> None:
        submission_id, server = owed.submission.id, self._server
        answer = f"{answer}: only its record was removed; the video may still be made and charged"

        def change(storage: Storage) -> None:
            storage.deletes.end(submission_id, DeleteState.RECORD_ONLY, answer)
            storage.submissions.annotate(submission_id, answer)
            storage.servers.note_deletes_only_records(server)
            storage.deletes.end_all(server, "no DELETE was sent: it stops nothing on this server")

        await self._note(change)

    async def _end(self, owed: Owed, answer: str, *, deleted: bool = False) -> None:
        submission_id = owed.submission.id

        def change(storage: Storage) -> None:
            storage.deletes.end(submission_id, DeleteState.DONE, answer)
            if deleted:
                storage.submissions.settle(submission_id, SubmissionState.DELETED, answer)
            else:
                storage.submissions.annotate(submission_id, answer)

        self._failures.pop(submission_id, None)
        await self._note(change)

    async def _postpone(self, owed: Owed, tries: int, asked: float | None, answer: str) -> None:
        submission_id, seconds = owed.submission.id, max(self._pause(owed), asked or 0.0)
        await self._note(lambda storage: storage.deletes.postpone(submission_id, tries, seconds, answer))

    def _pause(self, owed: Owed) -> float:
        """Seconds until the next attempt: longer after each failure."""
        failures = self._failures[owed.submission.id]
        self._failures[owed.submission.id] += 1
        return backoff(failures, 1.0, _LONGEST_PAUSE, jitter=0.5)

    async def _note(self, change: Callable[[Storage], None]) -> None:
        """Record the outcome of a DELETE."""
        storage = self._storage

        def write() -> None:
            change(storage)

        await self._io.outcome(self._recorder.write(write))  # crash point: deleted


def _removed_only_the_record(body: Any) -> bool:
    """Whether the answer is the video with the status `deleted`, not a confirmation."""
    if not isinstance(body, dict) or body.get("deleted") is True:
        return False
    return str(body.get("status")).lower() == "deleted"


def _about(owed: Owed) -> dict[str, Any]:
    submission = owed.submission
    return {"action": "delete_remote", "batch_id": submission.batch_id, "job_id": submission.job_id}
