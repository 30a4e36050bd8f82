"""What came of a submission, for whoever makes the video."""

from __future__ import annotations

import math
from dataclasses import dataclass

from actors.errors import ErrorCode, Failure
from actors.sora.wire import RemoteVideo
from storage.records import SubmissionRecord
from storage.states import SubmissionState

SEND_WINDOW = 2.0
"""Seconds from the intent within which the POST must leave: after that, its sender must not send it any more."""


@dataclass(frozen=True, slots=True)
class Bound:
    """The video exists, and its id is recorded."""

    remote_id: str
    video: RemoteVideo | None = None
    """As the create told it, if it did."""
    told_at: float = -math.inf
    """When it did, by `time.monotonic()`."""


@dataclass(frozen=True, slots=True)
class NotPaid:
    """Nothing was made; recorded as `state`."""

    state: SubmissionState
    failure: Failure


@dataclass(frozen=True, slots=True)
class Unknown:
    """It may have been made, and nobody can tell."""

    failure: Failure


Outcome = Bound | NotPaid | Unknown


@dataclass(frozen=True, slots=True)
class Finding:
    """What a reading of the listing says of one intent: its outcome, or why there is none yet."""

    outcome: Outcome | None
    why: str = ""
    tried: bool = False
    """It might have proved something."""
    final: bool = False
    """No later reading will tell more."""


def known(submission: SubmissionRecord) -> Outcome:
    """The outcome of a submission that is not open any more."""
    if submission.state is SubmissionState.BOUND and submission.remote_id is not None:
        return Bound(submission.remote_id)
    if submission.state is SubmissionState.SURPLUS:
        return Unknown(Failure(ErrorCode.SUBMISSION_UNKNOWN, submission.note or "it was made, and no job holds it"))
    return NotPaid(submission.state, Failure(ErrorCode.UNAVAILABLE, submission.note or "nothing was paid"))
