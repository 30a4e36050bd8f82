"""Updating what of a batch no owner decides about: its metadata, its budget, and costs told after a job's end."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any

from actors.batch.events import EventName, batch_event, job_event
from actors.batch.loading import existing
from actors.batch.requests import canonical_digest, check_metadata
from actors.errors import InvalidRequest, NotFound
from storage.charges import ToldPrice
from storage.records import BatchRecord, SubmissionRecord
from storage.states import FINAL_JOB
from storage.storage import Storage

RELEASED = "released"
_MOST = Decimal(10) ** 12


def update(
    storage: Storage,
    batch_id: str,
    metadata: dict[str, Any] | None,
    budget: list[dict[str, Any]] | None,
    at: float,
    *,
    merge: bool = False,
) -> None:
    """Replace a batch's metadata, its budget, or both. A running batch moves to a new epoch, and is claimed anew.

    Args:
        storage: where.
        batch_id: of a batch in whatever state.
        metadata: None: it stays as it is.
        budget: one entry a unit; None: it stays as it is.
        at: now. Nothing is recorded, and no event, where nothing changes.
        merge: `metadata` is merged into what is there (RFC 7396).

    Raises:
        NotFound: there is no such batch.
        InvalidRequest: the merged metadata are too large.
        NotAlone: with a budget: run the transaction again, alone.
    """
    if budget is not None:
        storage.database.be_alone()  # its owner locks the budget before the batch
    batch = existing(storage, batch_id)
    if merge and metadata is not None:
        metadata = check_metadata(merged(batch.metadata, metadata))
    changed: dict[str, Any] = {}
    if metadata is not None and canonical_digest(metadata) != canonical_digest(batch.metadata):
        changed["metadata"] = metadata
    if budget is not None and canonical_digest(budget) != canonical_digest(batch.budget or []):
        changed["budget"] = budget
        storage.ledger.set_batch_budget(batch_id, budget)
    if not changed:
        return
    numbered = _next_event(batch, at)
    storage.batches.update(batch_id, **changed, **numbered)  # crash point: update
    storage.journal.append([batch_event(EventName.BATCH_UPDATED, batch, numbered["sequence"], at, **changed)])


def _next_event(batch: BatchRecord, at: float) -> dict[str, Any]:
    """The columns of a batch with one more event.

    Its owner's next write would be numbered as that event is: it is refused, and the batch claimed anew. That is no
    death.
    """
    owner = {} if batch.owner is None else {"owner": None, "epoch": batch.epoch + 1, "claims": 0}
    return {"sequence": batch.sequence + 1, "updated_at": at, **owner}


def merged(document: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """A JSON object changed by a JSON Merge Patch (RFC 7396): null removes a key, objects are merged, the rest set."""
    result = dict(document)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            there = result.get(key)
            result[key] = merged(there if isinstance(there, dict) else {}, value)
        else:
            result[key] = value
    return result


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
    numbered = _next_event(batch, at)
    storage.batches.update(batch.id, **numbered)
    cost = storage.costs.of_batch(batch, [job.id]).of_job(job.id)
    storage.journal.append([job_event(EventName.JOB_SETTLED, batch, job, numbered["sequence"], at, cost)])
