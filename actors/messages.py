"""All that the actors say to one another: frozen, one closed union per receiver.

Commands are imperative and may be refused; reports are in the past tense and may not. A report carries the number
of the run that it belongs to, so that one of an earlier run is recognized and dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pykka

from actors.errors import Failure
from storage.records import BatchRecord, Document, JobRecord, SubmissionRecord
from storage.states import SubmissionState

Ref = pykka.ActorRef[Any]


@dataclass(frozen=True, slots=True)
class Wait:
    """Why a video (or a batch) is waiting, and until when by `time.monotonic()`."""

    reason: str
    until: float


# --- to a VideoWorker


@dataclass(frozen=True, slots=True)
class Generate:
    """Make this job's video, from wherever it stands."""

    run: int
    job: JobRecord
    submission: SubmissionRecord
    epoch: int
    send_before: float | None
    """By the clock that counts suspended time, until when the POST may leave; None: it has left before."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop polling and downloading, now. A POST that is out ends by itself and is bound."""


WorkerMessage = Generate | Stop


# --- from a VideoWorker to its BatchSupervisor


@dataclass(frozen=True, slots=True)
class Submitted:
    """Sora has it, and its id is recorded with the submission."""

    job_id: str
    run: int
    remote_id: str


@dataclass(frozen=True, slots=True)
class Progressed:
    """Sora told how far it is, in percent."""

    job_id: str
    run: int
    progress: int


@dataclass(frozen=True, slots=True)
class Fetching:
    """Sora has finished, and the file is on its way."""

    job_id: str
    run: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """Nothing moves for a while; None: it goes on."""

    job_id: str
    run: int
    wait: Wait | None


@dataclass(frozen=True, slots=True)
class Completed:
    """The file is on disk, whole."""

    job_id: str
    run: int
    video: dict[str, Any]
    """`{path, bytes, sha256, content_type}`."""
    made: Document | None = None
    """What is known of the video beside its file: `reported` and `warnings`."""
    told: Document | None = None
    """What the server told of its price."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The video can't be had. `outcome`: what that means for its submission, where it means anything."""

    job_id: str
    run: int
    failure: Failure
    submission_id: str
    outcome: SubmissionState | None = None
    told: Document | None = None
    """What the server told of its price."""


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """Nothing was paid; the job may be submitted anew."""

    job_id: str
    run: int
    failure: Failure
    submission_id: str
    outcome: SubmissionState


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """A VideoWorker died of an error of ours."""

    worker: int
    run: int
    job_id: str | None
    error: str


Report = Submitted | Progressed | Fetching | Waiting | Completed | Failed | Withdrawn


# --- to a BatchSupervisor, from its Dispatcher and its own surroundings


@dataclass(frozen=True, slots=True)
class Begin:
    """Go on with the batch from what is recorded."""


@dataclass(frozen=True, slots=True)
class PlaceFree:
    """The process has room for another video, or the batch may be begun now."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """The recorder has written a step, or (`refused`) found that the batch is no longer ours."""

    stamp: float
    """When the step was written, by the clock that counts suspended time."""
    refused: bool


@dataclass(frozen=True, slots=True)
class RecordingFailed:
    """The recorder could not write a step for a reason that waiting does not mend."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class Release:
    """Stop starting videos, see the POSTs in flight bound, and let the batch go without cancelling it."""

    wanted: bool
    """Whether somebody else is to go on with it."""


@dataclass(frozen=True, slots=True)
class Lost:
    """Somebody else has the batch by now: stop, and write nothing."""


SupervisorMessage = Begin | PlaceFree | Recorded | RecordingFailed | Tick | Release | Lost | Report | WorkerLost


# --- to the Dispatcher


@dataclass(frozen=True, slots=True)
class MakeBatches:
    """These batches are wanted here: claim them as soon as they are free."""

    batch_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ClaimAll:
    """Every batch of the provider is wanted here, whoever asked for it."""


@dataclass(frozen=True, slots=True)
class ReleaseBatch:
    """Let a batch go."""

    batch_id: str
    wanted: bool


@dataclass(frozen=True, slots=True)
class Close:
    """Let every batch go and stop claiming."""


@dataclass(frozen=True, slots=True)
class Look:
    """Look at the database: which batches are lost, free or ended."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A batch that was claimed, as it is recorded: its open jobs, and the live submission of each that has one."""

    batch: BatchRecord
    open_jobs: list[JobRecord]
    live: dict[str, SubmissionRecord]


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look at the database saw and claimed."""

    claimed: tuple[Loaded, ...]
    lost: tuple[str, ...]
    ended: tuple[str, ...]
    """Batches that have ended, or that are no more."""
    released: tuple[str, ...]
    """Batches that were to be let go, and that are not ours any more."""


@dataclass(frozen=True, slots=True)
class LookFailed:
    """The database could not be looked at."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class SupervisorEnded:
    """A BatchSupervisor has done its work, lost its batch, or (`released`) let it go. It says so once.

    `epoch`: under which it had the batch. By now another supervisor may have it, under another one.
    """

    batch_id: str
    epoch: int
    released: bool


@dataclass(frozen=True, slots=True)
class SupervisorLost:
    """A BatchSupervisor died of an error of ours."""

    batch_id: str
    epoch: int
    error: str


@dataclass(frozen=True, slots=True)
class KeyRefused:
    """The server refused the key of this process, and has never accepted it."""


DispatcherMessage = (
    KeyRefused
    | MakeBatches
    | ClaimAll
    | ReleaseBatch
    | Close
    | Look
    | Seen
    | LookFailed
    | SupervisorEnded
    | SupervisorLost
)
