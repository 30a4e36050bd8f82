"""JobSchedule: which job of a running batch has which worker, which is started next, and which must not be. Pure."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from actors.batch.batch_update import BatchUpdate, new_intent
from actors.batch.limits import Pause, out_of_time
from actors.batch.transitions import BatchMove, ended, ending
from actors.errors import Failure
from actors.messages import Earlier, Wait
from storage.changes import Changes
from storage.charges import Charges
from storage.records import BatchRecord, JobRecord, SubmissionRecord
from storage.states import IN_FLIGHT_JOB, BatchStatus

if TYPE_CHECKING:
    from actors.batch.prices import Priced

RESTARTS, RESTART_PERIOD = 3, 60.0


@dataclass(frozen=True, slots=True)
class Assignment:
    """A job for a worker of the pool."""

    worker: int
    run: int
    job: JobRecord
    submission: SubmissionRecord
    fresh: bool
    """Its POST has not been sent yet."""


def _unpriced(_job: JobRecord) -> Priced | None:
    return None


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings of a BatchRun."""

    provider: str
    owner_id: str
    paid_attempts: int
    progress_interval: float
    """Seconds."""
    price: Callable[[JobRecord], Priced | None] = _unpriced
    """What a job's video costs at most; None: that is unknown."""
    charges_failed: bool = True
    """Whether a generation that failed is charged for where the server tells nothing."""
    waits_for_budget: bool = False
    """Whether a batch waits for the next period of a budget that is used up."""


def restart_allowed(past: Iterable[float], now: float) -> bool:
    """Whether something that died may be restarted, after restarts at these times."""
    return sum(now - RESTART_PERIOD < at for at in past) < RESTARTS


class JobSchedule:
    """The open jobs of a running batch. Admission (slots, pauses) is decided outside."""

    def __init__(
        self,
        batch: BatchRecord,
        open_jobs: list[JobRecord],
        live: dict[str, SubmissionRecord],
        rules: Rules,
        waits: dict[str, Wait] | None = None,
        *,
        at: float,
        earlier: Earlier = Earlier(),  # noqa: B008  (a tuple)
    ) -> None:
        self._update = BatchUpdate(batch, at, Charges([*live.values(), *earlier.submissions]), earlier.failure)
        """What has happened since the changes were last taken."""
        self.jobs = {job.id: job for job in open_jobs}
        self._live, self._rules = live, rules
        self.idle = deque(range(max(1, min(batch.concurrency, batch.total))))
        # A job holds its slot from its intent on: jobs in flight are attached before anything is started.
        self._attached = deque(job.id for job in open_jobs if job.status in IN_FLIGHT_JOB or job.id in live)
        self._fresh = deque(job.id for job in open_jobs if job.id not in self._attached)
        self._running: dict[str, Assignment] = {}
        self._runs = 0
        self._told: dict[str, float] = {}
        self._batch_told = -math.inf
        self._untold = False
        self._deaths: dict[str, list[float]] = {}
        self._absences: dict[str, int] = {}
        self.waits = {} if waits is None else waits
        self.stopping = False
        self._halted: Failure | None = None
        self._barred: dict[str | None, Failure] = {}
        """Models that the server refused, with the failure: no job with one of them is submitted any more."""
        self._barred_wait = False
        """Whether barred jobs may still be waiting."""
        self._handed = self._update  # handed over last
        self.pause: Pause | None = None
        """The times in which it waited for the next period of a budget, if it ever did."""
        self._fitting: int | None = None  # so many intents, at most, has the next step: they fitted into the budgets

    @property
    def batch(self) -> BatchRecord:
        """The current batch, recorded or not."""
        return self._update.batch

    @property
    def changed(self) -> bool:
        """Whether there is anything to record."""
        return self._update.changed

    def happens_at(self, at: float) -> None:
        """Set the time of what happens from now on, by the database's clock."""
        self._update.at = at

    @property
    def paused(self) -> float:
        """Seconds in which the batch's time stood still, since it waited for the next period of a budget."""
        return 0.0 if self.pause is None else self.pause.stood(self._update.at)

    def take_changes(self, *, spent: float, claims: int) -> Changes:
        """The changes to record since the last call, with these two columns."""
        self._update.batch = self.batch._replace(spent=spent, claims=claims)
        self._handed, self._fitting = self._update, None
        self._update = BatchUpdate(self.batch, self._update.at, self._update.charges, self._update.last_error)
        return self._handed.changes()

    @property
    def in_flight(self) -> int:
        """How many jobs hold a slot."""
        return len(self._running) + len(self._attached)

    @property
    def wants_to_start(self) -> bool:
        """Whether a video could start now, if the process has room."""
        if not self._fresh or not self.idle or self._attached or self.stopping:
            return False
        fits = self._fitting is None or self._update.intents < self._fitting
        paused = self.pause is not None and self._update.at < self.pause.until
        return fits and not paused and self.in_flight < max(1, self.batch.concurrency)

    @property
    def next_job(self) -> JobRecord:
        """The job that `start_next` starts. Requires `wants_to_start`."""
        return self.jobs[self._fresh[0]]

    def bar(self, job: JobRecord) -> Failure | None:
        """Why a job must not be submitted: a similar one was refused, or the batch's time is up; None: it may be."""
        return self._halted or self._barred.get(job.model)

    @property
    def over(self) -> bool:
        """Whether the batch has ended."""
        return self._update.batch.status not in (BatchStatus.PENDING, BatchStatus.PROCESSING)

    def rounds(self) -> int:
        """The maximum number of rounds of videos in the batch."""
        return math.ceil(self.batch.total / max(1, self.batch.concurrency))

    def time_left(self, spent: float) -> float:
        """Seconds in which a video may still be started. The batch's time runs only while the server answers."""
        return self.batch.timeout * self.rounds() - spent if self.batch.timeout else math.inf

    def keep_time(self, spent: float) -> None:
        """Start nothing more once the batch's time is up. Videos that the server has are finished."""
        if self._halted is None and self.time_left(spent) <= 0:
            self._halted, self._barred_wait = out_of_time(self.batch.timeout, self.rounds()), True
        if self._barred_wait:
            self._drop_barred()
            self._settle()

    def attach(self) -> list[Assignment]:
        """Give the jobs that are already in flight to idle workers."""
        given = []
        while self._attached and self.idle and not self.stopping:
            job_id = self._attached.popleft()
            if (submission := self._live.get(job_id)) is not None:
                given.append(self._assign(self.jobs[job_id], submission, fresh=False))
            else:
                self._fresh.appendleft(job_id)
                self._barred_wait = bool(self._halted or self._barred)
        return given

    def start_next(self) -> Assignment:
        """Record the intent of the next job. Requires `wants_to_start`."""
        if self.pause is not None:
            self.pause.end(self._update.at)
        self.waits.pop("", None)
        job = self._update.without_a_video(self.jobs[self._fresh.popleft()])
        rules = self._rules
        intent = new_intent(job, rules.provider, rules.owner_id, self._update.at, rules.price(job))
        self.jobs[job.id] = job = self._update.intend(job, intent)
        return self._assign(job, intent, fresh=True)

    def _drop_barred(self) -> None:
        """Fail the waiting jobs that are barred."""
        waiting, self._fresh, self._barred_wait = self._fresh, deque(), False
        for job_id in waiting:
            bar = self.bar(self.jobs[job_id])
            if bar is None:
                self._fresh.append(job_id)
            else:
                self._update.fail(self.jobs[job_id], bar)
                self._drop(job_id)

    def _settle(self) -> None:
        if ended(self.batch) and self.batch.status is BatchStatus.PROCESSING:
            move = ending(self.batch)
            self._untold = False  # the last event reports everything
            self._update.close(move, error=None if move is BatchMove.COMPLETE else self._update.summed_up())

    def _assign(self, job: JobRecord, submission: SubmissionRecord, *, fresh: bool) -> Assignment:
        self._runs += 1
        assignment = Assignment(self.idle.popleft(), self._runs, job, submission, fresh)
        self._running[job.id] = assignment
        return assignment

    def _start_again(self, job: JobRecord) -> None:
        """Have a job that holds a slot start as the next one."""
        self.jobs[job.id] = job
        self._free(job.id)
        self._fresh.appendleft(job.id)

    def _free(self, job_id: str) -> None:
        running = self._running.pop(job_id, None)
        if running is not None:
            self.idle.append(running.worker)

    def _drop(self, job_id: str) -> None:
        self._free(job_id)
        self._update.charges.forget(job_id)
        for of_job in (self.jobs, self.waits, self._told, self._deaths, self._absences, self._live):
            of_job.pop(job_id, None)
