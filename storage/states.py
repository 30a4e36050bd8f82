"""The persisted states and their meanings. Imports nothing from the project.

`actors.batch.transitions` decides which moves between them are legal.
"""

from __future__ import annotations

from enum import StrEnum


class BatchStatus(StrEnum):
    """The state of a batch."""

    PENDING = "pending"
    """Recorded but not started: nobody has asked for it yet, or no process had room."""
    PROCESSING = "processing"
    """Started. It has an owner, or waits for a new one after its owner died."""
    COMPLETED = "completed"
    """Every video succeeded."""
    PARTIAL = "partial"
    """Some videos succeeded."""
    FAILED = "failed"
    """No video succeeded."""
    CANCELLED = "cancelled"
    """A person or a program cancelled it; finished videos are kept."""


class JobStatus(StrEnum):
    """The state of one video of a batch."""

    PENDING = "pending"
    """Nothing was paid for, or what was paid for is known to be lost."""
    SUBMITTING = "submitting"
    """The POST is about to go out, or its outcome is unknown."""
    GENERATING = "generating"
    """The server has it, and its id is recorded."""
    DOWNLOADING = "downloading"
    """The server has finished it; the file is being downloaded."""
    COMPLETED = "completed"
    """The complete file is on disk."""
    FAILED = "failed"
    """It ended with the recorded error."""
    CANCELLED = "cancelled"
    """The batch was cancelled before it ended."""


class SubmissionState(StrEnum):
    """The outcome of one attempt to pay for a video."""

    INTENDED = "intended"
    """Recorded before the POST, which may be in flight; its sender may be dead."""
    UNKNOWN = "unknown"
    """The POST ended without a conclusive answer: whether it was paid for is not known yet."""
    CLASHED = "clashed"
    """The server accepted it under an id that another video of ours has: it was made; only the listing can show it."""
    BOUND = "bound"
    """The remote id is known; as far as we know the video exists and has not failed."""
    NOT_SENT = "not_sent"
    """No byte was sent."""
    REFUSED = "refused"
    """The server refused it: nothing was made."""
    ABSENT = "absent"
    """The server's listing proved that nothing was made."""
    FAILED = "failed"
    """The generation failed."""
    DELETED = "deleted"
    """We deleted the video on the server."""
    ABANDONED = "abandoned"
    """Paying again was allowed, by a person or SORA_UNKNOWN_SUBMISSION; a video that may exist is given up."""
    SURPLUS = "surplus"
    """The answer came after the intent had been resolved differently: no job needs this video."""


class ChargeState(StrEnum):
    """What a submission costs, as far as it is known."""

    RESERVED = "reserved"
    """It may be paid for: its outcome is unknown."""
    RELEASED = "released"
    """It costs nothing: not sent, refused, proved absent, or a failed generation that is not charged."""
    ASSUMED = "assumed"
    """The server accepted it and told no price: it costs what was reserved."""
    CHARGED = "charged"
    """The server, or a person, told what it costs."""


class DeleteState(StrEnum):
    """The state of the DELETE of a cancelled video."""

    OWED = "owed"
    """The next process that uses the server sends it."""
    OUT = "out"
    """Recorded as going out: it is sent within 2 s or not at all."""
    DONE = "done"
    """The server's answer ended it, or the video had finished."""
    RECORD_ONLY = "record_only"
    """The server removed its record of the video but may still be making it."""
    WITHDRAWN = "withdrawn"
    """A retry wants the video."""
    GIVEN_UP = "given_up"
    """The server did not accept it within a day."""


FINAL_BATCH = frozenset({BatchStatus.COMPLETED, BatchStatus.PARTIAL, BatchStatus.FAILED, BatchStatus.CANCELLED})
FINAL_JOB = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED})
IN_FLIGHT_JOB = frozenset({JobStatus.SUBMITTING, JobStatus.GENERATING, JobStatus.DOWNLOADING})

UNRESOLVED = frozenset({SubmissionState.INTENDED, SubmissionState.UNKNOWN, SubmissionState.CLASHED})
NOTHING_MADE = frozenset({SubmissionState.NOT_SENT, SubmissionState.REFUSED, SubmissionState.ABSENT})
LIVE_SUBMISSION = UNRESOLVED | {SubmissionState.BOUND}
"""While a job has one of these, nothing more may be paid for it. The database allows at most one per job."""
