"""Runtime: what runs while a process makes videos: the I/O loop, the client, the Dispatcher and their shutdown.

Started by the first batch that is processed; a program that only reads statuses does not need it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from datetime import timedelta
from functools import partial

from actors.agenda import Agenda, DispatcherCallbacks
from actors.batch.orphans import Orphans
from actors.batch.scheduling import restart_allowed
from actors.dispatcher import Dispatcher
from actors.errors import ServiceClosed, SoraBatchError, SoraError
from actors.loop import IOLoop, tell
from actors.messages import ClaimAll, Close, DispatcherMessage, KeyRefused, Look, MakeBatches, ReleaseBatch, Wait
from actors.observer import Observer
from actors.settings import Settings
from actors.sora.deleting import ANSWER_SECONDS
from actors.sora.resolving import LateResolver
from actors.sora.submission import LeaseMargin
from actors.stores import note_store, prepare
from actors.video.refetching import fetch_again
from actors.wiring import Wiring, for_the_simulator, rules_of
from storage.failures import DatabaseError
from storage.owners import this_process
from storage.recorder import Recorder
from storage.records import JobRecord, SubmissionRecord
from storage.storage import Storage
from storage.stores import Stores

logger = logging.getLogger(__name__)
_CLOSE_SECONDS, _SHUT_SECONDS = 9.0, 5.0
_ASK_AGAIN = 60.0
"""Seconds between checks whether the server accepts a key that it had refused."""
_DELETE_SECONDS = 2.0
"""Seconds in which an ending program still starts owed DELETEs; those in flight are awaited."""


class Runtime:
    """The moving parts of one service."""

    def __init__(
        self,
        settings: Settings,
        storage: Storage,
        recorder: Recorder,
        observer: Observer,
        *,
        stores: Stores,
        orphans: Orphans,
        provider: str,
        simulate: bool,
        serves: bool = False,
        ended: Callable[[str], None],
        released: Callable[[str, str | None], None],
    ) -> None:
        if simulate:
            settings = for_the_simulator(settings)
        self._settings, self._storage, self._recorder = settings, storage, recorder
        self._stores, self._orphans = stores, orphans
        self._marker = prepare(stores, settings, storage)
        self.io = IOLoop()
        self.owner, self._provider, self.lease = this_process(), provider, LeaseMargin()
        """Who this process is in the database, and until when it may send what it records, by its own clock."""
        self._wiring = Wiring(
            self.io, settings, storage, recorder, observer,
            stores=stores, orphans=orphans, provider=provider, owner_id=self.owner.id, lease=self.lease,
        )  # fmt: skip
        rules = rules_of(settings, provider, self.owner.id, serves=serves)
        try:
            self._tools, admission = self.io.submit(self._wiring.open(simulate=simulate)).result()
        except BaseException:
            self.io.close()
            raise
        self._deletes = self._wiring.deletes
        self._be_patient(settings.sora_connect_timeout)
        self.key = self._tools.client.rate_limiter.key
        """Whether the server refused it and never accepted it: then nothing is claimed for others."""
        self.key.on_refused = self._key_refused
        self._asking: asyncio.Task[None] | None = None
        self._waits: dict[str, dict[str, Wait]] = {}
        self._closed: Future[None] = Future()
        self._released = released
        callbacks = DispatcherCallbacks(
            ended=ended, released=released, closed=self._closed, died=self._died, waits=self._waits
        )
        self._dispatch = partial(Dispatcher.start, self._tools, admission, rules, self.owner, self.lease, callbacks)
        self._dispatcher = self._dispatch()
        self._deaths: list[float] = []
        self._given_up: str | None = None
        """Why the last Dispatcher died, if no other was started."""

    def process(self, batch_ids: tuple[str, ...]) -> None:
        """Claim these batches as soon as they are free.

        Raises:
            SoraBatchError: nothing can run here any more.
        """
        self._order(MakeBatches(batch_ids))

    def claim_all(self) -> Future[None]:
        """Claim every wanted batch of the provider, not only those requested here.

        Returns:
            Done when that ends: the runtime was closed, or its Dispatcher died.
        """
        if "sora_connect_timeout" not in self._settings.model_fields_set:
            self._be_patient(timedelta(0))  # nobody is waiting, and the batches stay wanted
        self.hold_deletes(held=False)  # retries may wait in a queue for a service to begin
        self._order(ClaimAll())
        late = LateResolver(
            self.io, self._tools.submitter.resolve, self._storage, self._recorder, self._settings,
            provider=self._provider,
        )  # fmt: skip
        self.io.submit(late.run())
        self._orphans.finish_soon()
        note_store(self._stores, self._marker, self._storage, self._recorder, self.owner.id)
        ended: Future[None] = Future()

        def tell() -> None:
            wait([self._closed])
            ended.set_result(None)

        # In a thread of its own, not on the loop: the listener may close the service. And started now: at the
        # interpreter's exit no thread can be started.
        threading.Thread(target=tell, name="sora-ended", daemon=True).start()
        return ended

    def _be_patient(self, connect_timeout: timedelta) -> None:
        self._tools.client.rate_limiter.patience = connect_timeout.total_seconds() or math.inf

    def release(self, batch_id: str, *, wanted: bool) -> None:
        """Let a batch go."""
        self._order(ReleaseBatch(batch_id, wanted))

    def _order(self, message: DispatcherMessage) -> None:
        if self._given_up is not None:
            raise SoraBatchError("the dispatcher of this process has died (see its log): restart the process")
        if self._closed.done():
            raise ServiceClosed
        self._tell(message)
        if self._deletes is not None:
            self.io.call(self._deletes.begin)

    def _tell(self, message: DispatcherMessage) -> None:
        """Via the loop: the Dispatcher is replaced there, so no message is lost between two of them."""
        self.io.call(self._tell_now, message)

    def _tell_now(self, message: DispatcherMessage) -> None:
        tell(self._dispatcher, message)
        if self._given_up is not None:
            self._give_up([message])

    def _died(self, agenda: Agenda, why: str) -> None:
        """On the loop: start another Dispatcher, unless they die too often; then tell whoever waits."""
        now = time.monotonic()
        if restart_allowed(self._deaths, now):
            self._deaths.append(now)
            logger.error("the dispatcher died; restarting it", extra={"action": "dispatcher_died", "error": why})
            unread, agenda.unread = agenda.unread, []
            self._dispatcher = self._dispatch(agenda)
            for message in (Look(), *unread):
                tell(self._dispatcher, message)
            return
        self._given_up = why
        self._give_up([MakeBatches(tuple(agenda.asked)), *agenda.unread])
        if not self._closed.done():
            self._closed.set_result(None)

    def _give_up(self, messages: Sequence[DispatcherMessage]) -> None:
        for message in messages:
            named = (message.batch_id,) if isinstance(message, ReleaseBatch) else ()
            for batch_id in message.batch_ids if isinstance(message, MakeBatches) else named:
                self._released(batch_id, f"the dispatcher died: {self._given_up}")

    def _key_refused(self) -> None:
        self._tell_now(KeyRefused())
        self._asking = self.io.loop.create_task(self._ask_until_accepted())

    async def _ask_until_accepted(self) -> None:
        """Poll until the server accepts the key: it may be added there later."""
        while self.key.refused:
            await asyncio.sleep(_ASK_AGAIN)
            with suppress(SoraError):
                await self._tools.client.list_page(None)
        logger.info("the server now accepts the key; claiming batches again", extra={"action": "key_accepted"})
        self.look()

    def look(self) -> None:
        """Look at the database now: something has changed."""
        self._tell(Look())

    def waits(self, batch_id: str) -> dict[str, Wait]:
        """Why videos of a batch are waiting: by job id, or "" for all."""
        waits, away = dict(self._waits.get(batch_id, {})), self._recorder.away
        if away is not None:
            return {**waits, "": Wait(away.reason, away.until)}
        pause = self._tools.client.rate_limiter
        return {**waits, "": pause.wait} if pause.paused and pause.wait else waits

    def fetch_again(self, job: JobRecord, submission: SubmissionRecord) -> Future[str | None]:
        """Restore the file of a completed job. The Future's result: why that failed, or None."""
        return self.io.submit(fetch_again(self._tools, job, submission))

    def send_deletes(self) -> None:
        """Send the owed DELETEs in the background."""
        if self._deletes is not None:
            self.io.call(self._deletes.wake)

    def hold_deletes(self, *, held: bool) -> None:
        """Don't begin to send owed DELETEs before they are held no more, and a grace has passed."""
        if self._deletes is not None:
            self.io.call(partial(self._deletes.hold, held=held))

    def finish_deletes(self) -> None:
        """Start no more of them after 2 s, and wait for the answers to those in flight."""
        if self._deletes is not None:
            finished = self.io.submit(self._deletes.finish(_DELETE_SECONDS))
            with suppress(TimeoutError):
                finished.result(_DELETE_SECONDS + ANSWER_SECONDS + 1)

    def close(self) -> None:
        """Release the batches, wait until POSTs in flight are bound, end the threads."""
        self._tell(Close())  # first: nothing is started while DELETEs in flight are awaited
        self.finish_deletes()
        with suppress(TimeoutError):
            self._closed.result(timeout=_CLOSE_SECONDS)
        forget, owner_id = self._storage.owners.forget, self.owner.id
        with suppress(TimeoutError, DatabaseError):
            self._recorder.write(lambda: forget(owner_id)).result(timeout=1)
        try:
            self.io.submit(self._wiring.close()).result(_SHUT_SECONDS)
        except Exception:  # the threads must end all the same
            logger.exception("could not close the connections to the server cleanly", extra={"action": "close"})
        self.io.close()
