"""What a submission costs, told after its job has ended: by a late answer, or by a person."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

from actors.batch.events import EventName, job_event
from actors.errors import InvalidRequest, NotFound
from storage.charges import ToldPrice
from storage.records import SubmissionRecord
from storage.states import FINAL_JOB
from storage.storage import Storage

RELEASED = "released"
_MOST = Decimal(10) ** 12


def settle(storage: Storage, submission_id: str, word: str, by: str, at: float) -> str:
    """Record a person's word: `released`, or an amount such as `0.40` or `0.40 USD`. Returns the batch's id.

    Raises:
        NotFound: there is no such submission.
        InvalidRequest: it is neither, or its currency is not known, or not that of the reservation.
        NotAlone: run the transaction again, alone.
    """
    storage.database.be_alone()  # the batch's owner locks a budget before the batch
    try:
        before = storage.submissions.get(submission_id)
    except ValueError:
        raise NotFound(
            f"there is no submission {submission_id!r}; list those of a batch with sora-batch status BATCH --json"
        ) from None
    price = None if word.strip().lower() == RELEASED else _read(word, before)
    settled = storage.submissions.settle_charge(submission_id, price, by)  # crash point: word
    if settled != before:  # the same word once more is nothing new
        tell_settled(storage, submission_id, at)
    return settled.batch_id


def _read(word: str, before: SubmissionRecord) -> ToldPrice:
    number, _, given = word.strip().partition(" ")
    try:
        amount = Decimal(number)
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or not 0 <= amount <= _MOST:
        raise InvalidRequest(f"--settle {word!r}: expected released, or an amount such as 0.40 USD")
    unit = given.strip() or before.currency
    if unit is None or len(unit) != len("USD") or not (unit.isascii() and unit.isupper() and unit.isalpha()):
        raise InvalidRequest(f"--settle {word!r}: give the currency too, such as '{number} USD'")
    if before.reserved_micros is not None and unit != before.currency:
        raise InvalidRequest(
            f"--settle {word!r}: the price of this submission was reserved in {before.currency}, not in {unit}; "
            f"nothing is converted, so give the amount in {before.currency}"
        )
    return ToldPrice(unit, amount)


def tell_settled(storage: Storage, submission_id: str, at: float) -> None:
    """Record `job.settled`, if the submission's job has ended. Whoever owns its batch claims it anew."""
    entry = storage.submissions.get(submission_id)
    batch = storage.batches.locked(entry.batch_id)
    job = storage.jobs.by_id([entry.job_id]).get(entry.job_id)
    if batch is None or job is None or job.status not in FINAL_JOB:
        return
    sequence = batch.sequence + 1
    # As after an update: the owner's next write would have this number.
    owner = {} if batch.owner is None else {"owner": None, "epoch": batch.epoch + 1, "claims": 0}
    storage.batches.update(batch.id, sequence=sequence, updated_at=at, **owner)
    cost = storage.costs.of_batch(batch, [job.id]).of_job(job.id)
    storage.journal.append([job_event(EventName.JOB_SETTLED, batch, job, sequence, at, cost)])
