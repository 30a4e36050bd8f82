"""The states that are written down, and what each means. Words only: no imports from the project.

Who may move a batch or a job from one state to another is `actors.batch.transitions`'s business.
"""

from __future__ import annotations

from enum import StrEnum


class BatchStatus(StrEnum):
    """Where a batch stands."""

    PENDING = "pending"
    """Recorded, and not started: nobody asked for it yet, or nobody had room."""
    PROCESSING = "processing"
    """Started. It has an owner, or waits for another one after its owner died."""
    COMPLETED = "completed"
    """Every video succeeded."""
    PARTIAL = "partial"
    """Some videos succeeded."""
    FAILED = "failed"
    """No video succeeded."""
    CANCELLED = "cancelled"
    """A person or a program took it back; what had finished by then is kept."""


class JobStatus(StrEnum):
    """Where one video of a batch stands."""

    PENDING = "pending"
    """Nothing was paid, or what was paid is known to be lost."""
    SUBMITTING = "submitting"
    """The POST is about to go out, or its outcome is unknown."""
    GENERATING = "generating"
    """Sora has it, and its id is recorded."""
    DOWNLOADING = "downloading"
    """Sora has finished; the file is on its way."""
    COMPLETED = "completed"
    """The file is on disk, whole."""
    FAILED = "failed"
    """It ended with an error that is recorded with it."""
    CANCELLED = "cancelled"
    """The batch was cancelled before it ended."""


class SubmissionState(StrEnum):
    """What became of one try at paying for a video."""

    INTENDED = "intended"
    """Recorded before the POST; it may be on its way, or its sender may be dead."""
    UNKNOWN = "unknown"
    """The POST ended without an answer that tells: paid or not, nobody knows yet."""
    CLASHED = "clashed"
    """The server took it, under an id that another video of ours has: it was made, and only the listing may tell it."""
    BOUND = "bound"
    """The video's remote id is known; it exists and has not failed, as far as we know."""
    NOT_SENT = "not_sent"
    """No byte left."""
    REFUSED = "refused"
    """The server said no: nothing was made."""
    ABSENT = "absent"
    """The server's listing proved that nothing was made."""
    FAILED = "failed"
    """The video was made, and failed."""
    DELETED = "deleted"
    """The video was deleted on the server, by us."""
    ABANDONED = "abandoned"
    """A person gave consent to pay again; what may exist is let go."""
    SURPLUS = "surplus"
    """An answer that came after the intent had been resolved otherwise: a video that no job needs."""


class DeleteState(StrEnum):
    """Where the DELETE of a cancelled video stands."""

    OWED = "owed"
    """The next process that uses the server sends it."""
    OUT = "out"
    """Recorded as going out: it is sent within a moment, or not at all."""
    DONE = "done"
    """The server's answer ended it, or the video had finished."""
    RECORD_ONLY = "record_only"
    """The server removed the record of the video, and may go on making it."""
    WITHDRAWN = "withdrawn"
    """A retry wants the video."""
    GIVEN_UP = "given_up"
    """The server did not do it for a day."""


FINAL_BATCH = frozenset({BatchStatus.COMPLETED, BatchStatus.PARTIAL, BatchStatus.FAILED, BatchStatus.CANCELLED})
FINAL_JOB = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED})
IN_FLIGHT_JOB = frozenset({JobStatus.SUBMITTING, JobStatus.GENERATING, JobStatus.DOWNLOADING})

UNRESOLVED = frozenset({SubmissionState.INTENDED, SubmissionState.UNKNOWN, SubmissionState.CLASHED})
LIVE_SUBMISSION = UNRESOLVED | {SubmissionState.BOUND}
"""While a job has one of these, nothing more may be paid for it. The database holds at most one a job."""
