"""When a batch begins, and starts its next video.

Work starts once the batch's beginning is recorded. If the process dies before it records more, the death counts against
the batch.
"""

from __future__ import annotations

from enum import Enum

from actors.messages import Loaded, Ref
from actors.video.admission import Admission, Beginnings
from actors.video.tools import Bodies, has_files
from storage.records import BatchRecord, JobRecord


class _Phase(Enum):
    WAITING = 0
    BEGINS = 1
    """With the next update."""
    BEGINNING = 2
    """The recorder has that update."""
    BEGUN = 3
    WORKING = 4
    """Something more is recorded."""


class Beginning:
    """That of one batch, by one supervisor."""

    def __init__(self, batch: BatchRecord, beginnings: Beginnings, supervisor: Ref) -> None:
        self._id, self._deaths, self._claims = batch.id, batch.deaths, batch.claims
        self._beginnings, self._supervisor = beginnings, supervisor
        self._phase = _Phase.WAITING
        self.is_over = False
        """Whether the beginning is recorded: the batch's jobs may go to workers."""
        self.alive = False
        """Whether something was heard of the batch since: its first sign of life is recorded."""

    @property
    def is_to_be_recorded(self) -> bool:
        """Whether the next update is due for its sake, whatever else has changed."""
        return self._phase is _Phase.BEGINS or (self.alive and self._phase is _Phase.BEGUN)

    def is_allowed(self) -> bool:
        """Whether the batch may be begun now; if not, its supervisor is notified when it may."""
        waiting = self._phase is _Phase.WAITING
        return not waiting or self._beginnings.may_begin(self._id, self._supervisor, alone=bool(self._deaths))

    def begin(self) -> None:
        """Begin the batch with the next update. Idempotent."""
        if self._phase is _Phase.WAITING:
            self._phase = _Phase.BEGINS
            self._beginnings.begins(self._id, alone=bool(self._deaths))

    def claims(self, *, ended: bool) -> int:
        """The `claims` of the update that is now handed over: this process begins, or has got further.

        Args:
            ended: whether it is the last one.
        """
        if self._phase is _Phase.BEGINS and not ended:
            self._phase = _Phase.BEGINNING
            return -self._deaths - 1
        return 0 if self.is_over or ended else self._claims

    def claims_at_release(self) -> int:
        """The `claims` of a batch that is released: a batch that was never begun keeps them."""
        return self._claims if self._phase is _Phase.WAITING else 0

    def recorded(self) -> bool:
        """Note that the update is recorded. Returns True if it began the batch."""
        if self._phase is _Phase.BEGINNING:
            self._phase, self.is_over = _Phase.BEGUN, True
            return True
        if self._phase is _Phase.BEGUN:
            self._phase = _Phase.WORKING
            self._beginnings.over(self._id)
        return False

    def refused(self) -> None:
        """Note that a budget has refused the update: nothing was recorded."""
        self._phase = _Phase.BEGINS if self._phase is _Phase.BEGINNING else self._phase


class Starting:
    """Whether a batch may start its next video: its beginning, a slot of the process, and the files that it sends."""

    def __init__(self, loaded: Loaded, admission: Admission, bodies: Bodies, supervisor: Ref) -> None:
        self._id, self._admission, self._bodies, self._supervisor = loaded.batch.id, admission, bodies, supervisor
        self.beginning = Beginning(loaded.batch, admission.beginnings, supervisor)
        self._any_files = any(map(has_files, loaded.open_jobs))

    def may_start(self, job: JobRecord) -> bool:
        """Whether this video may start now; if not, the supervisor is told when it may."""
        beginning = self.beginning
        loads = self._any_files and has_files(job)
        if loads and not beginning.is_over and not self._admission.has_place(self._id, self._supervisor):
            return False  # it has not begun: waiting for a slot counts as nothing
        if beginning.is_allowed() and self._is_loaded(job):
            may_start = self._admission.may_start(self._id, self._supervisor)
            beginning.alive |= loads and not may_start  # loading did no harm, and it waits again
            return may_start
        self._admission.has_enough(self._id)  # a slot that it was offered is for others
        return False

    def _is_loaded(self, job: JobRecord) -> bool:
        """Whether its files are. That begins once the batch has: a death meanwhile counts."""
        if self.beginning.is_over or not has_files(job):
            return self._bodies.ready(job, self._supervisor)
        self.beginning.begin()
        return False

    def starts(self, submission_id: str, in_flight: int) -> None:
        """Note that a video starts, with its intent in the next update."""
        self._admission.starting(self._id, submission_id)
        self._bodies.starts(self._supervisor, submission_id)
        self._admission.taken(self._id, in_flight)

    def has_enough(self) -> None:
        """Note that no other video is to start now."""
        self._admission.has_enough(self._id)
        if self._any_files:
            self._bodies.drop(self._supervisor)

    def leave(self) -> None:
        """Give back all slots."""
        self._admission.leave(self._id)
        self._bodies.drop(self._supervisor)
