"""Claims: which batches of the database this process owns, or may own: its lease, and what a look finds and claims."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import Any

from actors.agenda import Question
from actors.batch.loading import fail_unreadable
from actors.batch.orphans import reap
from actors.batch.scheduling import Rules
from actors.messages import Earlier, Loaded, Seen
from actors.sora.submission import LeaseMargin
from actors.video.tools import Tools
from storage.owners import OwnerRecord, is_dead
from storage.records import SubmissionRecord
from storage.rows import check
from storage.states import FINAL_BATCH, BatchStatus
from storage.storage import Storage
from storage.timing import boottime

logger = logging.getLogger(__name__)
LEASE_MARGIN = 3.0


class Claims:
    """Of one process, for its Dispatcher."""

    def __init__(self, tools: Tools, rules: Rules, owner: OwnerRecord, lease: LeaseMargin) -> None:
        self._tools, self._rules, self._owner, self._lease = tools, rules, owner, lease
        self._renewed_at = -1e9

    def renew(self) -> None:
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

    def look(self, question: Question) -> Seen:
        """In the recorder's thread, outside a transaction."""
        batches, asked, releasing = self._tools.storage.batches, question.asked, question.releasing
        standings = batches.standings(asked | question.running)
        lost = [each for each in question.running if _moved_on(standings.get(each), question.epochs[each])]
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
            return replace(load(self._tools.storage, batch_id), former=owners[batch_id])
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            broken[batch_id] = repr(error)
            return None


def _moved_on(standing: tuple[Any, int, str | None] | None, epoch: int) -> bool:
    """Whether a batch of ours was cancelled, taken over or deleted."""
    return standing is None or standing[1] != epoch


def load(storage: Storage, batch_id: str) -> Loaded:
    """A batch that was just claimed, as it is recorded.

    Raises:
        ValueError, LookupError, TypeError, RecursionError: it can't be read.
    """
    batch = storage.batches.get(batch_id)
    assert batch is not None
    open_jobs = storage.jobs.of_batch(batch_id, open_only=True)
    live = storage.submissions.live_of_batch(batch_id)
    submissions: tuple[SubmissionRecord, ...] = ()
    if batch.epoch > 1:  # somebody else may have submitted some of it
        known, mine = {each.id for each in live.values()}, {job.id for job in open_jobs}
        tries = storage.submissions.of_this_batch(batch)
        submissions = tuple(each for each in tries if each.job_id in mine and each.id not in known)
    failed = storage.jobs.last_failed(batch_id) if batch.failed else None
    loaded = Loaded(batch, open_jobs, live, earlier=Earlier(submissions, failed.error if failed else None))
    for record in (loaded.batch, *loaded.open_jobs, *loaded.live.values()):
        check(record)
    return loaded
