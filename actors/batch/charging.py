"""What the jobs of a running batch cost, as far as its owner knows. Pure.

It mirrors what the submissions record, so that an event tells a job's cost without a query.
"""

from __future__ import annotations

from collections.abc import Iterable

from actors.batch.told_prices import price_in
from storage.charges import after_outcome, charged_by, cost_of, part_of
from storage.records import Document, SubmissionRecord
from storage.states import SubmissionState


class Charges:
    """The submissions of some jobs, as charges."""

    def __init__(self, known: Iterable[SubmissionRecord] = ()) -> None:
        self._charges: dict[str, SubmissionRecord] = {}
        self._of_job: dict[str, list[str]] = {}
        for each in known:
            self.intend(each)

    def intend(self, intent: SubmissionRecord) -> None:
        """A payment was reserved."""
        self._of_job.setdefault(intent.job_id, []).append(intent.id)
        self._charges[intent.id] = intent

    def take_back(self, submission_id: str) -> None:
        """It was not reserved after all."""
        intent = self._charges.pop(submission_id, None)
        if intent is not None:
            self._of_job[intent.job_id].remove(submission_id)

    def resolve(self, submission_id: str, state: SubmissionState, *, charged: bool = True) -> None:
        """The outcome of a submission is known; `charged`: whether a failed generation costs anything."""
        if (charge := self._charges.get(submission_id)) is not None:
            self._charges[submission_id] = after_outcome(charge, state, charged=charged)

    def tell(self, submission_id: str, told: Document | None) -> None:
        """The server told a price."""
        price, charge = price_in(told or {}), self._charges.get(submission_id)
        if price is not None and charge is not None and charge.settled_by is None:
            self._charges[submission_id] = charged_by(charge, price)

    def cost(self, job_id: str) -> list[Document]:
        """What a job costs, with one entry per currency."""
        charges = [self._charges[each] for each in self._of_job.get(job_id, ())]
        return cost_of(map(part_of, charges)) if charges else []

    def forget(self, job_id: str) -> None:
        """The job has ended, and its end was told."""
        for submission_id in self._of_job.pop(job_id, ()):
            del self._charges[submission_id]
