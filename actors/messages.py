"""All messages between the actors: frozen, one closed union per receiver.

Commands are imperative and may be refused; reports are in the past tense and may not. A report carries the number of
its run, so that a report of an earlier run is recognized and dropped.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pykka

from actors.errors import Failure
from storage.budgets import Refusal
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
    """Until when the POST may leave, by the clock that counts suspended time; None: it was sent before."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop polling and downloading now. A POST in flight ends by itself and is bound."""


WorkerMessage = Generate | Stop


# --- from a VideoWorker to its BatchSupervisor


@dataclass(frozen=True, slots=True)
class Submitted:
    """The server accepted it, and its id is recorded with the submission."""

    job_id: str
    run: int
    remote_id: str
    told: Document | None = None
    """What the server said about its price."""


@dataclass(frozen=True, slots=True)
class Progressed:
    """The server reported its progress, in percent."""

    job_id: str
    run: int
    progress: int


@dataclass(frozen=True, slots=True)
class Fetching:
    """The server has finished it, and the file is being downloaded."""

    job_id: str
    run: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """It waits; None: it continues."""

    job_id: str
    run: int
    wait: Wait | None


@dataclass(frozen=True, slots=True)
class Completed:
    """The complete file is on disk."""

    job_id: str
    run: int
    video: dict[str, Any]
    """`{path, bytes, sha256, content_type}`."""
    made: Document | None = None
    """What is known about the video besides its file: `reported` and `warnings`."""
    told: Document | None = None
    """What the server said about its price."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The video failed. `outcome`: the new state of its submission, if that changes."""

    job_id: str
    run: int
    failure: Failure
    submission_id: str
    outcome: SubmissionState | None = None
    told: Document | None = None
    """What the server said about its price."""


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """Nothing was paid for; the job may be submitted again."""

    job_id: str
    run: int
    failure: Failure
    submission_id: str
    outcome: SubmissionState


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """A VideoWorker died of a bug."""

    worker: int
    run: int
    job_id: str | None
    error: str


Report = Submitted | Progressed | Fetching | Waiting | Completed | Failed | Withdrawn


# --- to a BatchSupervisor, from its Dispatcher and its own surroundings


@dataclass(frozen=True, slots=True)
class Begin:
    """Continue the batch from the records."""


@dataclass(frozen=True, slots=True)
class PlaceFree:
    """The process has a slot for another video, or the batch may begin now."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """The recorder has written an update, or (`refused`) found that the batch is no longer ours."""

    stamp: float
    """When the update was written, by the clock that counts suspended time."""
    refused: bool
    refusal: Refusal | None = None
    """Nothing was written, as a payment does not fit into a budget: the batch decides again."""


@dataclass(frozen=True, slots=True)
class RecordingFailed:
    """The recorder could not write an update, for a reason that waiting does not fix."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class Release:
    """Start no more videos, wait until the POSTs in flight are bound, and release the batch without cancelling it."""

    wanted: bool
    """Whether another process is to continue it."""


@dataclass(frozen=True, slots=True)
class Lost:
    """Another process has the batch by now: stop, and write nothing."""


SupervisorMessage = Begin | PlaceFree | Recorded | RecordingFailed | Tick | Release | Lost | Report | WorkerLost


# --- to the Dispatcher


@dataclass(frozen=True, slots=True)
class MakeBatches:
    """These batches are wanted here: claim them as soon as they are free."""

    batch_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ClaimAll:
    """Every batch of the provider is wanted here, whoever requested it."""


@dataclass(frozen=True, slots=True)
class ReleaseBatch:
    """Release a batch."""

    batch_id: str
    wanted: bool


@dataclass(frozen=True, slots=True)
class Close:
    """Release every batch and stop claiming."""


@dataclass(frozen=True, slots=True)
class Look:
    """Read from the database which batches are lost, free or ended."""


class Earlier(NamedTuple):
    """What happened to a batch before it was claimed."""

    submissions: tuple[SubmissionRecord, ...] = ()
    """Those of the open jobs that are not live."""
    failure: Document | None = None
    """The error of the job that failed last."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A claimed batch as recorded: its open jobs, and the live submission of each that has one."""

    batch: BatchRecord
    open_jobs: list[JobRecord]
    live: dict[str, SubmissionRecord]
    former: str | None = None
    """The owner until it was claimed: a dead one, or the new one, whose supervisor died. None: there was none."""
    earlier: Earlier = field(default_factory=Earlier)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look at the database found and claimed."""

    claimed: tuple[Loaded, ...]
    lost: tuple[str, ...]
    ended: tuple[str, ...]
    """Batches that have ended or no longer exist."""
    released: tuple[str, ...]
    """Batches that were to be released and are no longer ours."""


@dataclass(frozen=True, slots=True)
class LookFailed:
    """The database could not be read."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class SupervisorEnded:
    """A BatchSupervisor has finished, lost or (`released`) released its batch. Sent once.

    `epoch`: its own. By now another supervisor may have the batch under a newer one.
    """

    batch_id: str
    epoch: int
    released: bool


@dataclass(frozen=True, slots=True)
class SupervisorLost:
    """A BatchSupervisor died of a bug."""

    batch_id: str
    epoch: int
    error: str


@dataclass(frozen=True, slots=True)
class KeyRefused:
    """The server refused the key of this process and has never accepted it."""


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
