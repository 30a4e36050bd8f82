"""Dispatcher: claims the batches that are wanted here, notices lost and ended ones, restarts supervisors.

One per process. Starting, recovering from a crash, taking over and resuming are one mechanism: a wanted batch without
a live owner is claimed under a new epoch, and a BatchSupervisor continues from the records.
"""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import Future
from functools import partial
from typing import Any, assert_never

from actors.agenda import Agenda, DispatcherCallbacks, ReleaseOrder
from actors.batch.scheduling import RESTART_PERIOD, Rules, restart_allowed
from actors.claiming import Claims
from actors.loop import LoopActor, tell
from actors.messages import (
    Begin,
    ClaimAll,
    Close,
    DispatcherMessage,
    KeyRefused,
    Loaded,
    Look,
    LookFailed,
    Lost,
    MakeBatches,
    Ref,
    Release,
    ReleaseBatch,
    Seen,
    SupervisorEnded,
    SupervisorLost,
)
from actors.sora.submission import LeaseMargin
from actors.supervisor import BatchSupervisor
from actors.video.admission import Admission
from actors.video.tools import Tools
from storage.owners import OwnerRecord
from storage.timing import backoff

logger = logging.getLogger(__name__)
LOOK = 0.25
IDLE_LOOK = 1.0
"""Seconds that a batch of another process may wait for an idle one."""


class Dispatcher(LoopActor):
    """Looks after the requested batches."""

    def __init__(
        self,
        tools: Tools,
        admission: Admission,
        rules: Rules,
        owner: OwnerRecord,
        lease: LeaseMargin,
        callbacks: DispatcherCallbacks,
        agenda: Agenda | None = None,
    ) -> None:
        super().__init__(tools.io)
        self._tools, self._admission, self._rules, self._callbacks = tools, admission, rules, callbacks
        self._claims = Claims(tools, rules, owner, lease)
        self._agenda = agenda = agenda or Agenda()
        self._asked, self._releasing, self._own = agenda.asked, agenda.releasing, agenda.own
        self._supervisors: dict[str, Ref] = {}
        self._epochs: dict[str, int] = {}
        self._key = tools.client.rate_limiter.key
        self._failures: list[float] = []
        self._looking = self._look_again = self._closing = False
        self._next_look: asyncio.TimerHandle | None = None

    def on_receive(self, message: DispatcherMessage) -> None:  # noqa: C901  (a table)
        """One line a message."""
        match message:
            case MakeBatches(batch_ids):
                self._agenda.ask(batch_ids)
                self._look()
            case ClaimAll():
                self._agenda.everything = True
                self._look()
            case Look():
                self._look()
            case Seen():
                self._seen(message)
            case LookFailed(error):
                self._look_failed(error)
            case SupervisorEnded(batch_id, epoch) | SupervisorLost(batch_id, epoch):
                if self._epochs.get(batch_id) == epoch:
                    self._supervisor_gone(message)
            case ReleaseBatch(batch_id, wanted):
                self._agenda.dropped.add(batch_id)
                self._release(batch_id, ReleaseOrder(wanted))
            case KeyRefused():
                self._release_to_others()
            case Close():
                self._close()
            case _:
                assert_never(message)

    def on_failure(self, _kind: Any, error: BaseException | None, _traceback: Any) -> None:
        """Stop the supervisors, and leave everything to the next Dispatcher, which starts from the records."""
        agenda = self._agenda
        agenda.asked.update(self._supervisors)
        for batch_id, ref in self._supervisors.items():
            self._callbacks.waits.pop(batch_id, None)
            tell(ref, Lost())
        while not self.actor_inbox.empty():
            message = self.actor_inbox.get().message
            if isinstance(message, MakeBatches | ClaimAll | ReleaseBatch | Close):  # the rest is obsolete
                agenda.unread.append(message)
        if self._closing:
            agenda.unread.append(Close())
        self._callbacks.died(agenda, self._tools.storage.database.describe(error))

    def _look(self) -> None:
        """Read the database, off the loop; one read at a time, and one timer for the next."""
        self._claims.renew()
        if self._next_look is not None:
            self._next_look.cancel()
            self._next_look = None
        if self._looking:
            self._look_again = True
            return
        self._looking, self._look_again = True, False
        most = 0 if self._closing else self._tools.settings.batch_parallel
        question = self._agenda.question(self._epochs, time.monotonic(), most=most, key_refused=self._key.refused)
        self._tools.recorder.read(partial(self._claims.look, question)).add_done_callback(self._looked)

    def _looked(self, future: Future[Seen]) -> None:
        error = future.exception()
        tell(self.actor_ref, LookFailed(error) if error is not None else future.result())

    def _seen(self, seen: Seen) -> None:
        self._looking = False
        for batch_id in seen.lost:
            if batch_id in self._supervisors:
                tell(self._supervisors[batch_id], Lost())
        for loaded in sorted(seen.claimed, key=lambda each: each.batch.deaths):
            self._start(loaded)
        for batch_id in seen.released:
            self._note_release(batch_id)
        for batch_id in seen.ended:
            if batch_id not in self._supervisors:
                self._agenda.forget(batch_id)
                self._agenda.deaths.pop(batch_id, None)
                self._callbacks.ended(batch_id)
        self._look_on(LOOK)

    def _look_failed(self, error: BaseException) -> None:
        """Retry, unless it fails too often: then give up and tell whoever waits."""
        self._looking = False
        now = time.monotonic()
        self._failures = [at for at in self._failures if now - RESTART_PERIOD < at]
        if not restart_allowed(self._failures, now):
            raise error
        self._failures.append(now)
        about = {"action": "look_failed", "error": repr(error), "failures": len(self._failures)}
        logger.error("could not read the database; retrying", extra=about)
        self._look_on(backoff(len(self._failures), LOOK, IDLE_LOOK * 8))

    def _look_on(self, seconds: float) -> None:
        if self._closing:
            self._close()
        elif self._look_again:
            self._look()
        elif self._asked or self._supervisors:
            self._next_look = self.io.loop.call_later(seconds, tell, self.actor_ref, Look())
        elif self._agenda.everything:
            self._next_look = self.io.loop.call_later(max(seconds, IDLE_LOOK), tell, self.actor_ref, Look())

    def _start(self, loaded: Loaded) -> None:
        batch_id, own = loaded.batch.id, self._own
        if self._key.refused and batch_id not in own:
            self._releasing.setdefault(batch_id, ReleaseOrder(wanted=True))
        waits = self._callbacks.waits.setdefault(batch_id, {})
        try:
            ref = BatchSupervisor.start(
                self._tools, self._admission, self.actor_ref, self._rules, loaded, waits, is_own=lambda: batch_id in own
            )
        except Exception as error:  # noqa: BLE001  (as if it had died in its first message)
            self._supervisor_gone(SupervisorLost(batch_id, loaded.batch.epoch, repr(error)))
            return
        self._supervisors[batch_id], self._epochs[batch_id] = ref, loaded.batch.epoch
        tell(ref, Begin())
        if batch_id in self._releasing:  # it was claimed while its release was requested
            tell(ref, Release(self._releasing[batch_id].wanted))

    def _supervisor_gone(self, message: SupervisorEnded | SupervisorLost) -> None:
        """A dead one is started again from storage, under a new epoch, unless it dies too often."""
        batch_id = message.batch_id
        self._supervisors.pop(batch_id, None)
        self._epochs.pop(batch_id, None)
        self._callbacks.waits.pop(batch_id, None)
        if isinstance(message, SupervisorLost):
            count, again = self._agenda.supervisor_lost(batch_id, message.error, time.monotonic())
            what = "died; restarting it" if again else "died too often; releasing the batch to other processes"
            about = {"action": "supervisor_lost", "batch_id": batch_id, "deaths": count, "error": message.error}
            logger.error("the supervisor of a batch %s", what, extra=about)
        elif message.released:
            self._note_release(batch_id)
        if self._closing:
            self._close()
        else:
            self._look()

    def _release(self, batch_id: str, leave: ReleaseOrder) -> None:
        """Release a batch: through its supervisor, or with the next look if it has none."""
        self._asked.add(batch_id)
        self._releasing[batch_id] = leave
        if batch_id in self._supervisors:
            tell(self._supervisors[batch_id], Release(leave.wanted))
        else:
            self._look()

    def _release_to_others(self) -> None:
        """The key is refused: release what was not requested here, for a process with another key."""
        if self._agenda.everything:
            logger.error(
                "the server refused the key (HTTP 401): this process releases its batches and claims none; "
                "set OPENAI_API_KEY to a key of this server and restart it",
                extra={"action": "key_refused"},
            )
        for batch_id in (self._asked | set(self._supervisors)) - self._own:
            self._release(batch_id, ReleaseOrder(wanted=True))

    def _note_release(self, batch_id: str) -> None:
        """The release of a batch is recorded."""
        leave = self._agenda.forget(batch_id)
        self._callbacks.released(batch_id, leave.error if leave else None)

    def _close(self) -> None:
        """Release every batch; done when the last supervisor has."""
        self._closing = True
        for ref in self._supervisors.values():
            tell(ref, Release(wanted=True))
        if self._supervisors or self._looking:
            return
        if self._releasing:
            self._look()
            return
        for batch_id in self._asked:
            self._callbacks.released(batch_id, None)
        self._asked.clear()
        if not self._callbacks.closed.done():
            self._callbacks.closed.set_result(None)
        self.stop()
