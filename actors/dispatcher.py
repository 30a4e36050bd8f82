"""Dispatcher: claims the batches that are wanted here, notices lost and ended ones, restarts supervisors.

One a process. Starting, going on after a crash, taking over and resuming are one mechanism: a wanted batch whose
owner is none or dead is claimed, under a new epoch, and a BatchSupervisor goes on from what is recorded.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from actors.clocks import awake_or_not
from actors.course import Rules, restart_allowed
from actors.loop import LoopActor, tell
from actors.messages import (
    Begin,
    Close,
    DispatcherMessage,
    LetGo,
    Loaded,
    Look,
    LookFailed,
    Lost,
    Process,
    Ref,
    Release,
    Seen,
    SupervisorEnded,
    SupervisorLost,
    Wait,
)
from actors.places import Places
from actors.production import Tools
from actors.sora.submission import LeaseMargin
from actors.supervisor import BatchSupervisor
from storage.owners import is_dead
from storage.records import OwnerRecord
from storage.states import FINAL_BATCH

LOOK = 0.25
LEASE_MARGIN = 3.0


@dataclass(frozen=True, slots=True)
class Doors:
    """What the world outside the actors hears and sees of them."""

    ended: Callable[[str], None]
    """Called on the loop with the id of a batch that has ended."""
    released: Callable[[str, str | None], None]
    """Called on the loop with the id of a batch that was let go, and what went wrong, if anything did."""
    closed: Future[None]
    """Done when every batch has been let go after `Close`."""
    waits: dict[str, dict[str, Wait]]
    """Why videos are waiting: by batch id, then job id."""


class Dispatcher(LoopActor):
    """Watches the batches that somebody asked for."""

    def __init__(
        self,
        tools: Tools,
        places: Places,
        rules: Rules,
        owner: OwnerRecord,
        lease: LeaseMargin,
        doors: Doors,
    ) -> None:
        super().__init__(tools.io)
        self._tools, self._places, self._rules, self._owner, self._lease = tools, places, rules, owner, lease
        self._doors = doors
        self._asked: set[str] = set()
        self._supervisors: dict[str, Ref] = {}
        self._epochs: dict[str, int] = {}
        self._deaths: dict[str, list[float]] = {}
        self._looking = self._look_again = False
        self._next_look: asyncio.TimerHandle | None = None
        self._renewed_at = -1e9
        self._closing = False

    def on_receive(self, message: DispatcherMessage) -> None:
        """One line a message."""
        match message:
            case Process(batch_ids):
                self._asked.update(batch_ids)
                self._look()
            case Look():
                self._look()
            case Seen():
                self._seen(message)
            case LookFailed(error):
                raise error
            case SupervisorEnded(batch_id, released):
                self._supervisor_ended(batch_id, released=released)
            case SupervisorLost(batch_id, error):
                self._supervisor_lost(batch_id, error)
            case Release(batch_id, wanted):
                self._release(batch_id, wanted=wanted)
            case Close():
                self._close()

    def on_failure(self, _kind: Any, error: BaseException | None, _traceback: Any) -> None:
        """Nobody supervises the Dispatcher: whoever waits for a batch hears of it."""
        for ref in self._supervisors.values():
            tell(ref, Lost())
        for batch_id in self._asked | set(self._supervisors):
            self._doors.released(batch_id, f"the dispatcher died: {error}")
        if not self._doors.closed.done():
            self._doors.closed.set_result(None)

    def _look(self) -> None:
        """Look at the database, beside the loop; one look at a time, and one timer for the next."""
        self._renew()
        if self._next_look is not None:
            self._next_look.cancel()
            self._next_look = None
        if self._looking or self._closing:
            self._look_again = True
            return
        self._looking, self._look_again = True, False
        asked, running, epochs = set(self._asked), set(self._supervisors), dict(self._epochs)
        room = self._tools.settings.batch_parallel - len(running)
        future = self._tools.recorder.read(lambda: self._look_at_database(asked, running, epochs, room))
        future.add_done_callback(self._looked)

    def _looked(self, future: Future[Seen]) -> None:
        error = future.exception()
        tell(self.actor_ref, LookFailed(error) if error is not None else future.result())

    def _look_at_database(self, asked: set[str], running: set[str], epochs: dict[str, int], room: int) -> Seen:
        """In the recorder's thread, outside a transaction."""
        storage = self._tools.storage
        standings = storage.batches.standings(asked | running)
        lost = [batch_id for batch_id in running if _moved_on(standings.get(batch_id), epochs[batch_id])]
        ended = [batch_id for batch_id in asked if batch_id not in standings or standings[batch_id][0] in FINAL_BATCH]
        free = self._claimable(asked - running - set(ended), {i: s[2] for i, s in standings.items()})
        claimed: list[Loaded] = []
        if free and room > 0:
            with storage.database.begin():
                ids = storage.batches.claim(free, owner=self._owner.id, provider=self._rules.provider, limit=room)
                claimed = [self._load(batch_id) for batch_id in ids]
        return Seen(tuple(claimed), tuple(lost), tuple(ended))

    def _claimable(self, batch_ids: Iterable[str], owners: dict[str, str | None]) -> list[str]:
        """Those whose owner is none, or dead: known at once on this host, by its lease elsewhere."""
        storage = self._tools.storage
        neighbours = {owner.id: owner for owner in storage.owners.neighbours(self._owner.host, self._owner.boot)}
        free = []
        for batch_id in batch_ids:
            owner_id = owners.get(batch_id)
            owner = neighbours.get(owner_id) if owner_id else None
            if owner is not None and owner.id != self._owner.id and is_dead(owner):
                storage.owners.expire(owner.id)
            if owner_id is None or not storage.owners.alive(owner_id) or owner_id == self._owner.id:
                free.append(batch_id)
        return free

    def _load(self, batch_id: str) -> Loaded:
        storage = self._tools.storage
        batch = storage.batches.get(batch_id)
        assert batch is not None
        open_jobs = storage.jobs.of_batch(batch_id, open_only=True)
        return Loaded(batch, open_jobs, storage.submissions.live_of_batch(batch_id))

    def _seen(self, seen: Seen) -> None:
        self._looking = False
        for batch_id in seen.lost:
            if batch_id in self._supervisors:
                tell(self._supervisors[batch_id], Lost())
        for loaded in seen.claimed:
            self._start(loaded)
        for batch_id in seen.ended:
            if batch_id not in self._supervisors:
                self._asked.discard(batch_id)
                self._doors.ended(batch_id)
        if self._closing:
            self._close()
        elif self._look_again:
            self._look()
        elif self._asked or self._supervisors:
            self._next_look = self.io.loop.call_later(LOOK, tell, self.actor_ref, Look())

    def _start(self, loaded: Loaded) -> None:
        batch_id = loaded.batch.id
        waits = self._doors.waits.setdefault(batch_id, {})
        ref = BatchSupervisor.start(self._tools, self._places, self.actor_ref, self._rules, loaded, waits)
        self._supervisors[batch_id], self._epochs[batch_id] = ref, loaded.batch.epoch
        tell(ref, Begin())

    def _renew(self) -> None:
        """Prolong the lease. It is trusted from before it was asked for, less a margin."""
        lease = self._tools.settings.batch_lease.total_seconds()
        asked_at = awake_or_not()
        if asked_at - self._renewed_at < lease / 5:
            return
        self._renewed_at = asked_at
        owner, renew = self._owner, self._tools.storage.owners.renew
        renewed = self._tools.recorder.write(lambda: renew(owner, lease))

        def trust(future: Future[float]) -> None:
            if future.exception() is None:
                self._lease.trusted_until = max(self._lease.trusted_until, asked_at + lease - LEASE_MARGIN)

        renewed.add_done_callback(trust)

    def _supervisor_ended(self, batch_id: str, *, released: bool) -> None:
        self._forget(batch_id)
        if released:
            self._asked.discard(batch_id)
            self._doors.released(batch_id, None)
        if self._closing:
            self._close()
        else:
            self._look()

    def _supervisor_lost(self, batch_id: str, error: str) -> None:
        """Start it again from storage, under a new epoch, unless it dies too often."""
        self._forget(batch_id)
        deaths = self._deaths.setdefault(batch_id, [])
        now = time.monotonic()
        if not restart_allowed(deaths, now):
            self._asked.discard(batch_id)
            self._doors.released(batch_id, f"its supervisor died {len(deaths) + 1} times: {error}")
            return
        deaths.append(now)
        self._asked.add(batch_id)
        self._look()

    def _release(self, batch_id: str, *, wanted: bool) -> None:
        self._asked.discard(batch_id)
        if batch_id in self._supervisors:
            tell(self._supervisors[batch_id], LetGo(wanted))
        else:
            self._doors.released(batch_id, None)

    def _close(self) -> None:
        """Let every batch go; done when the last supervisor has."""
        self._closing = True
        for ref in self._supervisors.values():
            tell(ref, LetGo(wanted=True))
        if not self._supervisors and not self._looking:
            for batch_id in self._asked:
                self._doors.released(batch_id, None)
            self._asked.clear()
            if not self._doors.closed.done():
                self._doors.closed.set_result(None)
            self.stop()

    def _forget(self, batch_id: str) -> None:
        self._supervisors.pop(batch_id, None)
        self._epochs.pop(batch_id, None)
        self._doors.waits.pop(batch_id, None)


def _moved_on(standing: tuple[Any, int, str | None] | None, epoch: int) -> bool:
    """Whether a batch of ours was cancelled, taken over or deleted."""
    return standing is None or standing[1] != epoch
