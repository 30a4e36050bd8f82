"""Runtime: what runs while a process makes videos: the I/O loop, the client, the Dispatcher and their shutdown.

Started by the first batch that is processed; a program that only reads statuses does not need it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from actors.agenda import Agenda, DispatcherCallbacks
from actors.batch.assignment import Rules, restart_allowed
from actors.batch.orphans import Orphans
from actors.batch.price_files import pricing
from actors.dispatcher import Dispatcher
from actors.errors import ServiceClosed, SettingsError, SoraBatchError, SoraError
from actors.loop import THREADS, Coalescer, IOLoop, tell
from actors.messages import ClaimAll, Close, DispatcherMessage, KeyRefused, Look, MakeBatches, ReleaseBatch, Wait
from actors.observer import Observer
from actors.settings import Settings
from actors.sora.client import SoraClient
from actors.sora.deleting import ANSWER_SECONDS, DeleteSender
from actors.sora.rate_limiter import RateLimiter
from actors.sora.resolving import LateResolver
from actors.sora.submission import LeaseMargin, Submitter
from actors.sora.watching import Watcher
from actors.stores import prepare
from actors.video.admission import Admission
from actors.video.keeping import Keeper, finish
from actors.video.refetching import fetch_again
from actors.video.tools import Bodies, Loader, Tools
from storage.failures import DatabaseError
from storage.owners import this_process
from storage.recorder import Recorder
from storage.records import JobRecord, SubmissionRecord
from storage.storage import Storage
from storage.stores import Stores, scattered

logger = logging.getLogger(__name__)
_CLOSE_SECONDS, _SHUT_SECONDS = 9.0, 5.0
_ASK_AGAIN = 60.0
"""Seconds between checks whether the server accepts a key that it had refused."""
_DELETE_SECONDS = 2.0
"""Seconds in which an ending program still starts owed DELETEs; those in flight are awaited."""
_SIMULATOR_STATE = ".simulator"
_SIMULATOR_POLL = timedelta(milliseconds=250)


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
            settings = _for_the_simulator(settings)
        self._settings, self._storage, self._recorder, self._observer = settings, storage, recorder, observer
        self._stores, self._orphans = stores, orphans
        self._marker = prepare(stores, settings, storage)
        self.io = IOLoop()
        self._simulator: Any = None
        self._owner, self._provider = this_process(), provider
        self._deletes: DeleteSender | None = None
        self._lease = lease = LeaseMargin()
        rules = _rules(settings, provider, self._owner.id, serves=serves)
        try:
            self._tools = self.io.submit(self._open(provider, lease, simulate=simulate)).result()
        except BaseException:
            self.io.close()
            raise
        admission = self._connected()
        self._be_patient(settings.sora_connect_timeout)
        self._key = self._tools.client.rate_limiter.key
        self._key.on_refused = self._key_refused
        self._asking: asyncio.Task[None] | None = None
        self._waits: dict[str, dict[str, Wait]] = {}
        self._closed: Future[None] = Future()
        self._released = released
        callbacks = DispatcherCallbacks(
            ended=ended, released=released, closed=self._closed, died=self._died, waits=self._waits
        )
        self._dispatch = partial(Dispatcher.start, self._tools, admission, rules, self._owner, lease, callbacks)
        self._dispatcher = self._dispatch()
        self._deaths: list[float] = []
        self._given_up: str | None = None
        """Why the last Dispatcher died, if no other was started."""

    async def _open(self, provider: str, lease: LeaseMargin, *, simulate: bool) -> Tools:
        base_url = await self._start_simulator() if simulate else self._settings.openai_base_url
        assert base_url is not None
        client = SoraClient(self._settings, base_url, RateLimiter(self._settings.sora_max_requests_per_second))
        client.observer = self._observer
        await client.__aenter__()
        submitter = Submitter(
            self.io, client, self._storage, self._recorder, self._settings,
            provider=provider, owner_id=self._owner.id, lease=lease,
        )  # fmt: skip
        submitter.observer = self._observer
        if self._settings.sora_delete_on_cancel != "never":
            whole = self._settings.sora_listing == "whole"
            self._deletes = DeleteSender(
                self.io, client, self._storage, self._recorder, provider=provider, whole=whole
            )  # fmt: skip

        def clean_up(batch_id: str) -> None:
            self._orphans.clean_soon(batch_id)
            self.send_deletes()  # whoever cancelled it may have no server

        files = Coalescer(
            partial(self.io.offload, finish),
            THREADS,
            # Its worker was stopped while the file was put into place.
            unclaimed=lambda rest: clean_up(rest.part.path.parent.name),
        )
        watcher = Watcher(client, self._settings.sora_poll_interval.total_seconds())
        loader = Loader(self.io, client, self._storage, self._recorder)
        return Tools(
            self.io, client, submitter, loader, Bodies(loader.body), watcher, self._storage, self._recorder,
            self._settings, self._stores, Keeper(self.io, self._stores, files, clean_up), clean_up, self._observer,
        )  # fmt: skip

    def _connected(self) -> Admission:
        """The slots of this process; what is told when a POST has left, or a DELETE is owed, is told from now on."""
        submitter, limiter = self._tools.submitter, self._tools.client.rate_limiter
        admission = Admission(self._settings.sora_max_in_flight, limiter, self.io.loop)
        submitter.on_left, admission.on_left = admission.left, self._tools.bodies.left
        if self._deletes is not None:
            submitter.on_owed = self._deletes.wake
        return admission

    async def _start_simulator(self) -> str:
        from actors.simulator import Simulator, SimulatorOptions

        # Kept on disk: an interrupted simulated batch finds its videos again, as on a real server.
        state = Path(self._settings.video_dir) / _SIMULATOR_STATE / "jobs.jsonl"
        state.parent.mkdir(parents=True, exist_ok=True)
        self._simulator = Simulator(SimulatorOptions(state_file=state))
        try:
            return str(await self._simulator.start())
        except ModuleNotFoundError as error:
            raise SettingsError(str(error)) from error

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
            self.io,
            self._tools.submitter.resolve,
            self._storage,
            self._recorder,
            self._settings,
            provider=self._provider,
        )
        self.io.submit(late.run())
        self._orphans.finish_soon()
        self._note_store()
        ended: Future[None] = Future()

        def tell() -> None:
            wait([self._closed])
            ended.set_result(None)

        # In a thread of its own, not on the loop: the listener may close the service. And started now: at the
        # interpreter's exit no thread can be started.
        threading.Thread(target=tell, name="sora-ended", daemon=True).start()
        return ended

    def _note_store(self) -> None:
        """Record where this process puts files, and warn where others put them elsewhere."""
        marker, notes, place = self._marker, self._storage.stores, self._stores.place
        if marker is None:
            return

        def note() -> str | None:
            notes.note(self._owner.id, marker.store, f"{socket.gethostname()}:{place}")
            return scattered(marker.store, place, notes.of_living())

        def told(done: Future[str | None]) -> None:
            if done.exception() is None and (warning := done.result()):
                logger.warning("files go to different stores", extra={"action": "stores_differ", "error": warning})

        self._recorder.write(note).add_done_callback(told)

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

    @property
    def owner_id(self) -> str:
        """Which owner this process is in the database."""
        return self._owner.id

    @property
    def lease_is_trusted(self) -> bool:
        """Whether this process may still send what it records, by its own clock."""
        return self._lease.trusted

    @property
    def key_refused(self) -> bool:
        """Whether the server refused the key and never accepted it: then nothing is claimed for others."""
        return self._key.refused

    def _key_refused(self) -> None:
        self._tell_now(KeyRefused())
        self._asking = self.io.loop.create_task(self._ask_until_accepted())

    async def _ask_until_accepted(self) -> None:
        """Poll until the server accepts the key: it may be added there later."""
        while self._key.refused:
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
        forget, owner_id = self._storage.owners.forget, self._owner.id
        with suppress(TimeoutError, DatabaseError):
            self._recorder.write(lambda: forget(owner_id)).result(timeout=1)
        try:
            self.io.submit(self._shut()).result(_SHUT_SECONDS)
        except Exception:  # the threads must end all the same
            logger.exception("could not close the connections to the server cleanly", extra={"action": "close"})
        self.io.close()

    async def _shut(self) -> None:
        try:
            await self._tools.keeper.close()
            await self._tools.client.__aexit__()
        finally:
            if self._simulator is not None:
                await self._simulator.stop()


def _rules(settings: Settings, provider: str, owner_id: str, *, serves: bool) -> Rules:
    return Rules(
        provider=provider,
        owner_id=owner_id,
        paid_attempts=settings.sora_paid_attempts,
        progress_interval=settings.progress_interval.total_seconds(),
        price=pricing(settings),
        charges_failed=settings.sora_charges_failed == "yes",
        waits_for_budget=serves and settings.sora_budget_wait == "yes",
    )


def _for_the_simulator(settings: Settings) -> Settings:
    """The simulator has a single store; polling it is free, and a demonstration should be quick."""
    changes: dict[str, Any] = {"sora_listing": "whole", "http_proxy": None}
    if "sora_poll_interval" not in settings.model_fields_set:
        changes["sora_poll_interval"] = _SIMULATOR_POLL
    return settings.model_copy(update=changes)
