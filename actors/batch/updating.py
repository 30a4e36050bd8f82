"""Updating what of a batch no owner decides about: its metadata and its budget."""

from __future__ import annotations

from typing import Any

from actors.batch.events import EventName, batch_event
from actors.batch.requests import canonical_digest, check_metadata
from actors.batch.start import existing
from storage.storage import Storage


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
    told, sequence = dict(changed), batch.sequence + 1
    if batch.owner is not None:
        # The owner's next write would be numbered as this event is: it is refused, and the batch claimed anew. That is
        # no death.
        changed |= {"owner": None, "epoch": batch.epoch + 1, "claims": 0}
    storage.batches.update(batch_id, **changed, sequence=sequence, updated_at=at)  # crash point: update
    storage.journal.append([batch_event(EventName.BATCH_UPDATED, batch, sequence, at, **told)])


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
