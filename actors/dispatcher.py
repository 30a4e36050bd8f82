"""Dispatcher: claims the batches that are wanted here, notices lost and ended ones, restarts supervisors.

One per process. Starting, recovering from a crash, taking over and resuming are one mechanism: a wanted batch without
a live owner is claimed under a new epoch, and a BatchSupervisor continues from the records.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import Any, assert_never

from actors.agenda import Agenda, DispatcherCallbacks, Question, ReleaseOrder, load, moved_on
from actors.batch.assignment import Rules
from actors.batch.loading import fail_unreadable
from actors.batch.orphans import reap
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
from actors.restarts import RESTART_PERIOD, restart_allowed
from actors.sora.submission import LeaseMargin
from actors.supervisor import BatchSupervisor
from actors.video.admission import Admission
from actors.video.tools import Tools
from storage.owners import OwnerRecord, is_dead
from storage.states import FINAL_BATCH, BatchStatus
from storage.timing import backoff, boottime

logger = logging.getLogger(__name__)
LOOK = 0.25
IDLE_LOOK = 1.0
"""Seconds that a batch of another process may wait for an idle one."""
LEASE_MARGIN = 3.0


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
        self._tools, self._admission, self._rules, self._owner, self._lease = tools, admission, rules, owner, lease
        self._callbacks = callbacks
        self._agenda = agenda = agenda or Agenda()
        self._asked, self._releasing, self._dropped = agenda.asked, agenda.releasing, agenda.dropped
        self._deaths, self._own = agenda.deaths, agenda.own
        self._supervisors: dict[str, Ref] = {}
        self._epochs: dict[str, int] = {}
        self._key = tools.client.rate_limiter.key
        self._failures: list[float] = []
        self._looking = self._look_again = False
        self._next_look: asyncio.TimerHandle | None = None
        self._renewed_at = -1e9
        self._closing = False

    def on_receive(self, message: DispatcherMessage) -> None:  # noqa: C901, PLR0912  (a table)
        """One line a message."""
        match message:
            case MakeBatches(batch_ids):
                self._asked.update(batch_ids)
                self._own.update(batch_ids)
                self._dropped.difference_update(batch_ids)
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
            case SupervisorEnded(batch_id, epoch, released):
                if self._epochs.get(batch_id) == epoch:
                    self._supervisor_ended(batch_id, released=released)
            case SupervisorLost(batch_id, epoch, error):
                if self._epochs.get(batch_id) == epoch:
                    self._supervisor_lost(batch_id, error)
            case ReleaseBatch(batch_id, wanted):
                self._dropped.add(batch_id)
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
        self._renew()
        if self._next_look is not None:
            self._next_look.cancel()
            self._next_look = None
        if self._looking:
            self._look_again = True
            return
        self._looking, self._look_again = True, False
        self._tools.recorder.read(partial(self._look_at_database, self._question())).add_done_callback(self._looked)

    def _question(self) -> Question:
        running, now = frozenset(self._supervisors), time.monotonic()
        dying = {batch_id for batch_id, deaths in self._deaths.items() if not restart_allowed(deaths, now)}
        return Question(
            asked=frozenset(self._asked),
            running=running,
            epochs=dict(self._epochs),
            releasing={each: order.wanted for each, order in self._releasing.items() if each not in running},
            room=0 if self._closing else self._tools.settings.batch_parallel - len(running),
            others=self._agenda.everything and not self._key.refused,
            spared=frozenset(dying | self._dropped | set(self._releasing)),
        )

    def _looked(self, future: Future[Seen]) -> None:
        error = future.exception()
        tell(self.actor_ref, LookFailed(error) if error is not None else future.result())

    def _look_at_database(self, question: Question) -> Seen:
        """In the recorder's thread, outside a transaction."""
        batches, asked, releasing = self._tools.storage.batches, question.asked, question.releasing
        standings = batches.standings(asked | question.running)
        lost = [each for each in question.running if moved_on(standings.get(each), question.epochs[each])]
        ended = {batch_id for batch_id in asked if batch_id not in standings or standings[batch_id][0] in FINAL_BATCH}
        left = [batch_id for batch_id in releasing if batch_id not in ended]
        owners = {batch_id: owner for batch_id, (_, _, owner) in standings.items()}
        free = self._claimable(asked - question.running - ended - set(left), owners)
        wanted = self._wanted_by_others(question, free) if question.others and question.room > 0 else {}
        others, owners = list(wanted), owners | wanted
        broken = {each: "its status is unknown" for each in free if standings[each][0] not in set(BatchStatus)}
        claimed: list[Loaded] = []
        if left or ((free or others) and question.room > 0):
            claim = partial(batches.claim, owner=self._owner.id, provider=self._rules.provider)
            with self._tools.storage.database.begin():
                for batch_id in left:
                    batches.release_idle(batch_id, owner=self._owner.id, wanted=releasing[batch_id])
                ids = claim(free, limit=question.room)
                ids += claim(others, limit=question.room - len(ids), only_wanted=True)
                claimed = [loaded for each in ids if (loaded := self._load_or_note(each, owners, broken)) is not None]
        self._tools.observer.takeovers(sum(each.former not in {None, self._owner.id} for each in claimed))
        for batch_id, error in broken.items():
            logger.error(
                "could not load a batch; failing it",
                extra={"action": "unreadable_batch", "batch_id": batch_id, "error": error},
            )
            with self._tools.storage.database.begin():
                fail_unreadable(self._tools.storage, batch_id, error, self._tools.storage.database.time())
        return Seen(tuple(claimed), tuple(lost), tuple(ended), tuple(left))

    def _wanted_by_others(self, question: Question, free: list[str]) -> dict[str, str | None]:
        """Wanted batches without a live owner, oldest first, as many as there is room for, each with its dead owner."""
        storage = self._tools.storage
        for owner in storage.owners.neighbours(self._owner.host, self._owner.boot):
            self._reap_dead_owner(owner)
        lease, stores = self._tools.settings.batch_lease.total_seconds(), self._tools.stores
        for owner in storage.owners.lapsed():  # its folder may be shared, or not; in a bucket any machine can clean up
            reap(storage, stores, owner, lease, self._tools.clean_up, here=stores.bucket is not None)
        besides = question.running | question.spared | set(free)
        wanted = storage.batches.wanted(self._rules.provider, owner=self._owner.id, limit=question.room + len(besides))
        chosen = [batch_id for batch_id in wanted if batch_id not in besides][: question.room]
        return {batch_id: wanted[batch_id] for batch_id in chosen}

    def _claimable(self, batch_ids: Iterable[str], owners: dict[str, str | None]) -> list[str]:
        """Those without a live owner: on this host a death is known at once, elsewhere by the lease."""
        storage = self._tools.storage
        neighbours = {owner.id: owner for owner in storage.owners.neighbours(self._owner.host, self._owner.boot)}
        free = []
        for batch_id in batch_ids:
            owner_id = owners.get(batch_id)
            owner = neighbours.get(owner_id) if owner_id else None
            if owner is not None:
                self._reap_dead_owner(owner)
            if owner_id is None or not storage.owners.alive(owner_id) or owner_id == self._owner.id:
                free.append(batch_id)
        return free

    def _reap_dead_owner(self, owner: OwnerRecord) -> None:
        """Record that a neighbour is dead, after removing what it left of ended batches.

        When a batch was cancelled, it may just have put a file into place, or have been about to remove others.
        """
        if owner.lease_until and owner.id != self._owner.id and is_dead(owner):
            lease = self._tools.settings.batch_lease.total_seconds()
            reap(self._tools.storage, self._tools.stores, owner, lease, self._tools.clean_up)

    def _load_or_note(self, batch_id: str, owners: dict[str, str | None], broken: dict[str, str]) -> Loaded | None:
        """Load a batch, or note why it can't be loaded: it must not stop the others."""
        try:
            return replace(self._load(batch_id), former=owners[batch_id])
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            broken[batch_id] = repr(error)
            return None

    def _load(self, batch_id: str) -> Loaded:
        return load(self._tools.storage, batch_id)

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
                self._asked.discard(batch_id)
                self._releasing.pop(batch_id, None)
                self._deaths.pop(batch_id, None)
                self._own.discard(batch_id)
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
        logger.error(
            "could not read the database; retrying",
            extra={"action": "look_failed", "error": repr(error), "failures": len(self._failures)},
        )
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
            self._supervisor_lost(batch_id, repr(error))
            return
        self._supervisors[batch_id], self._epochs[batch_id] = ref, loaded.batch.epoch
        tell(ref, Begin())
        if batch_id in self._releasing:  # it was claimed while its release was requested
            tell(ref, Release(self._releasing[batch_id].wanted))

    def _renew(self) -> None:
        """Renew the lease. It is trusted from before the renewal was requested, minus a margin."""
        lease = self._tools.settings.batch_lease.total_seconds()
        asked_at = boottime()
        if asked_at - self._renewed_at < lease / 5:
            return
        self._renewed_at = asked_at
        owner, storage = self._owner, self._tools.storage

        def renew() -> float:
            storage.batches.fill_in()
            return storage.owners.renew(owner, lease)

        def trust(future: Future[float]) -> None:
            if future.exception() is None:
                self._lease.trusted_until = max(self._lease.trusted_until, asked_at + lease - LEASE_MARGIN)

        self._tools.recorder.write(renew).add_done_callback(trust)

    def _supervisor_ended(self, batch_id: str, *, released: bool) -> None:
        self._forget(batch_id)
        if released:
            self._note_release(batch_id)
        if self._closing:
            self._close()
        else:
            self._look()

    def _supervisor_lost(self, batch_id: str, error: str) -> None:
        """Start it again from storage, under a new epoch, unless it dies too often."""
        self._forget(batch_id)
        deaths = self._deaths.setdefault(batch_id, [])
        now = time.monotonic()
        self._asked.add(batch_id)
        about = {"action": "supervisor_lost", "batch_id": batch_id, "deaths": len(deaths) + 1, "error": error}
        if restart_allowed(deaths, now):
            logger.error("the supervisor of a batch died; restarting it", extra=about)
            deaths.append(now)
        else:
            logger.error(
                "the supervisor of a batch died too often; releasing the batch to other processes", extra=about
            )
            # Another process may have more luck.
            text = f"its supervisor died {len(deaths) + 1} times: {error}"
            self._releasing.setdefault(batch_id, ReleaseOrder(wanted=True, error=text))
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
        self._asked.discard(batch_id)
        self._own.discard(batch_id)
        leave = self._releasing.pop(batch_id, None)
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

    def _forget(self, batch_id: str) -> None:
        self._supervisors.pop(batch_id, None)
        self._epochs.pop(batch_id, None)
        self._callbacks.waits.pop(batch_id, None)
