"""Spending: quotes, budgets and costs; for `BatchService`."""

from __future__ import annotations

import getpass
import logging
import os
import socket
from typing import TYPE_CHECKING, Any

from actors.batch.limits import amount_text
from actors.batch.requests import BatchVideoRequest
from actors.batch.views import Batch
from actors.errors import NotFound, StorageError
from actors.expectations import read_ceilings
from actors.service.reading import BatchReader

if TYPE_CHECKING:
    from actors.batch.costs import Budget, CostReport
    from actors.batch.quotes import Quote

logger = logging.getLogger(__name__)


class Spending(BatchReader):
    """Knows what videos cost, and has the ceilings of SORA_BUDGET recorded."""

    _ceilings_stand: bool
    """Whether the database has the ceilings of SORA_BUDGET, as this process has seen or written them."""

    def budgets(self, batch_id: str | None = None) -> list[Budget]:
        """The budgets of the whole database for the current day and month, with what they have used.

        `batch_id`: only those of this batch.
        """
        from actors.batch.costs import Budget

        if batch_id is None:
            self.announce_budget()
        ledger = self._storage.ledger
        found = self._read(ledger.current if batch_id is None else lambda: ledger.of_batch(batch_id))
        return [
            Budget(**each._asdict() | {"period": None if batch_id is not None else each.period or None})
            for each in found
        ]

    def announce_budget(self) -> None:
        """Write SORA_BUDGET into the database, if this process has it set and has not done so.

        Where that fails, the next call tries again: who only looks is answered all the same.
        """
        if self._ceilings_stand:
            return
        try:
            self._set_ceilings()
        except StorageError as error:
            logger.warning(
                "could not write SORA_BUDGET into the database; the next call tries again",
                extra={"action": "budget_changed", "error": str(error)},
            )

    def quote(self, request: BatchVideoRequest | dict[str, Any]) -> Quote:
        """What a request would cost at most, by the prices of SORA_PRICES. Records and sends nothing.

        Raises:
            InvalidRequest: the request is invalid; `errors` names each field.
            SettingsError: the file of prices can't be used.
        """
        self._check_open()
        from actors.batch.quotes import quote

        return quote(request, self.settings)

    def costs(self, since: str | None = None, by: str | None = None) -> CostReport:
        """What all submissions cost, and what is left of the budgets of the database.

        Args:
            since: only those submitted since then: a span before now (`24h`, `30d`), or a UTC date or time.
            by: in groups: `day`, `model`, `batch`, or `metadata.KEY` of the job, else of its batch.

        Raises:
            InvalidRequest: `since` or `by` can't be read.
        """
        self._check_open()
        from actors.batch.costs import CostReport, read_group, read_since

        group, start = read_group(by), read_since(since, self.now())
        costs = self._storage.costs
        parts, flagged = self._read(lambda: (list(costs.by(group, start)), costs.flagged(start)))
        return CostReport.of(parts, group, start, self.budgets(), flagged)

    def settle_cost(self, submission_id: str, word: str, *, by: str | None = None) -> Batch | None:
        """Record a person's word on what a submission cost: nothing else changes it any more.

        Args:
            submission_id: as `submissions` and `status --json` list it.
            word: `released`, or an amount such as `0.40 USD`; without a currency: in that of its price.
            by: who says so; None: the user of this process.

        Returns:
            Its batch; None: it was deleted.

        Raises:
            NotFound: there is no such submission.
            InvalidRequest: the word can't be read.
        """
        self._check_open()
        from actors.batch.updating import settle

        who = by or getpass.getuser()
        batch_id = self._write(lambda: settle(self._storage, submission_id, word, who, self.now()))
        try:
            return self.get_batch_status(batch_id)
        except NotFound:
            return None

    # --- how

    def _set_ceilings(self) -> None:
        """Write the ceilings of SORA_BUDGET once: they hold for every process of this database."""
        self._check_open()  # in a forked process nobody lets go of the lock
        with self._lock:
            if not self._ceilings_stand:
                self._write_ceilings()
                self._ceilings_stand = True

    def _write_ceilings(self) -> None:
        ceilings = {(each.scope, each.unit): each.micros for each in read_ceilings(self.settings.sora_budget or "none")}
        there = {(each.scope, each.unit): each.ceiling_micros for each in self._read(self._storage.ledger.ceilings)}
        if ceilings.items() <= there.items() and (ceilings or not there):
            return  # reading waits for nobody who writes
        by = f"{socket.gethostname()}:{os.getpid()}"
        for before in self._write(lambda: self._storage.ledger.set_ceilings(ceilings, by)):
            after, was = ceilings.get((before.scope, before.unit)), before.ceiling_micros
            logger.warning(
                "the budget of the database was changed",
                extra={
                    "action": "budget_changed", "scope": before.scope, "unit": before.unit,
                    "before": None if was is None else amount_text(was, before.unit),
                    "after": None if after is None else amount_text(after, before.unit),
                    "set_by": before.set_by or None,
                },
            )  # fmt: skip
