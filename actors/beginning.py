"""Beginning: how far this process is with a batch. Work starts once its beginning is recorded.

If the process dies before it records more, the death counts against the batch.
"""

from __future__ import annotations

from enum import Enum

from actors.messages import Ref
from actors.video.admission import Beginnings
from storage.records import BatchRecord


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
