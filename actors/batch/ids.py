"""Ids of batches and jobs, and digests of what is asked for."""

from __future__ import annotations

import hashlib
import json
import secrets
from typing import Any


def canonical_digest(document: Any) -> str:
    """SHA-256 of a JSON document in its canonical form, in hexadecimal."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def new_batch_id() -> str:
    """An id for a batch whose creator names none."""
    return f"batch-{secrets.token_hex(6)}"


def job_id(batch_id: str, position: int) -> str:
    """A job's id from its batch's and its place in it, from 1."""
    return f"{batch_id}-{position:02d}"
