"""The course of one batch: what follows from each thing that is reported. Pure decisions over `lifecycle`.

Time comes in as arguments, what is to be recorded goes out in a `Step`, and what is to be done afterwards as
assignments. Who may start a video when (places, pauses) is asked from outside.
"""

from __future__ import annotations

import math
import uuid
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import assert_never

from actors.errors import ACCOUNT_CODES, ErrorCode, Failure
from actors.events import EventName
from actors.lifecycle import BatchMove, JobMove, Step, ended, ending
from actors.messages import (
    Completed,
    Failed,
    Fetching,
    Progressed,
    Report,
    Submitted,
    Wait,
    Waiting,
    Withdrawn,
    WorkerLost,
)
from actors.model import canonical_digest
from storage.providers import key_of, server_of
from storage.records import BatchRecord, JobRecord, SubmissionRecord
from storage.states import IN_FLIGHT_JOB, BatchStatus, JobStatus, SubmissionState

POISON_DEATHS = 3
RESTARTS, RESTART_PERIOD = 3, 60.0
ABSENCES = 3
"""How often the outcome of a video's POST may be unknown and nothing be made, before the video is given up."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """A job for a worker of the pool."""

    worker: int
    run: int
    job: JobRecord
    submission: SubmissionRecord
    fresh: bool
    """Its POST is yet to be sent."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings that decide."""

    provider: str
    owner_id: str
    paid_attempts: int
    progress_interval: float
    """Seconds."""


def request_digest(job: JobRecord) -> str:
    """What a job asks of the server: two jobs with one digest can't be told apart by it."""
    return canonical_digest([job.prompt, job.model, job.duration, job.size, job.reference])


def restart_allowed(past: Iterable[float], now: float) -> bool:
    """Whether something that died may be started again, after restarts at these times."""
    return sum(now - RESTART_PERIOD < at for at in past) < RESTARTS


class Course:
    """The folded state of a batch and its open jobs, and which worker has which."""

    def __init__(
        self,
        batch: BatchRecord,
        open_jobs: list[JobRecord],
        live: dict[str, SubmissionRecord],
        rules: Rules,
        waits: dict[str, Wait] | None = None,
    ) -> None:
        self.batch = batch
        self.jobs = {job.id: job for job in open_jobs}
        self._live, self._rules = live, rules
        self.idle = deque(range(max(1, min(batch.concurrency, batch.total))))
        # A job holds its place from its intent on: what is in flight comes first, before anything is started.
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
        """Models that the server refused: why no job with one of them is submitted any more."""
        self._barred_wait = False
        """Whether jobs may wait that are to be submitted no more."""

    @property
    def in_flight(self) -> int:
        """How many jobs hold a place."""
        return len(self._running) + len(self._attached)

    @property
    def wants_to_start(self) -> bool:
        """Whether a video could be started now, if the process has room."""
        room = self.idle and self.in_flight < max(1, self.batch.concurrency)
        return bool(room and self._fresh and not self._attached and not self.stopping)

    def bar(self, job: JobRecord) -> Failure | None:
        """Why no POST of a job may follow: its like was refused, or the batch's time is up; None: it may."""
        return self._halted or self._barred.get(job.model)

    @property
    def over(self) -> bool:
        """Whether the batch has ended."""
        return self.batch.status not in (BatchStatus.PENDING, BatchStatus.PROCESSING)

    def rounds(self) -> int:
        """How many rounds of videos the batch has at the most."""
        return math.ceil(self.batch.total / max(1, self.batch.concurrency))

    def time_left(self, spent: float) -> float:
        """Seconds in which a video may still be started. Its time runs while the server answers, and not else."""
        return self.batch.timeout * self.rounds() - spent if self.batch.timeout else math.inf

    def keep_time(self, step: Step, spent: float) -> None:
        """See that nothing is started when the batch's time is up. What the server has in hand is made to its end."""
        if self._halted is None and self.time_left(spent) <= 0:
            rounds = self.rounds()
            of = f"BATCH_TIMEOUT x {rounds} rounds" if rounds > 1 else "BATCH_TIMEOUT"
            text = f"not submitted within {_span(self.batch.timeout * rounds)} ({of})"
            self._halted, self._barred_wait = Failure(ErrorCode.BATCH_TIMEOUT, text), True
        if self._barred_wait:
            self._drop_barred(step)
            self._settle(step)

    # --- what happens

    def begin(self, step: Step) -> None:
        """Start the batch, or go on with it; end it if it has killed its owners."""
        if step.batch.status is BatchStatus.PENDING:
            step.move_batch(BatchMove.START, started_at=step.batch.started_at or step.at)
            step.tell(EventName.BATCH_STARTED)
        if step.batch.deaths >= POISON_DEATHS:
            text = f"{step.batch.deaths} processes in a row died when they began this batch; retry it to try once more"
            self._fail_all(step, Failure(ErrorCode.INTERNAL, text))
        self._settle(step)

    def attach(self) -> list[Assignment]:
        """Give idle workers the jobs that are in flight already."""
        given = []
        while self._attached and self.idle and not self.stopping:
            job_id = self._attached.popleft()
            submission = self._live.get(job_id)
            if submission is None:
                self._fresh.appendleft(job_id)
                self._barred_wait = bool(self._halted or self._barred)
                continue
            given.append(self._assign(self.jobs[job_id], submission, fresh=False))
        return given

    def start_next(self, step: Step) -> Assignment:
        """Record the intent of the next job. `wants_to_start` said that there is one."""
        job = self.jobs[self._fresh.popleft()]
        if job.status is JobStatus.SUBMITTING:
            job = step.move(job, JobMove.WITHDRAW, attempts=max(0, job.attempts - 1))
        elif job.status is not JobStatus.PENDING:
            # Its video was deleted by us: a retry had come before the answer to the DELETE.
            job = step.move(job, JobMove.REMAKE, remote_id=None, started_at=None)
        intent = SubmissionRecord(
            id=uuid.uuid4().hex,
            job_id=job.id,
            batch_id=job.batch_id,
            attempt=job.attempts + 1,
            digest=request_digest(job),
            provider=self._rules.provider,
            sender=self._rules.owner_id,
            intended_at=step.at,
            state=SubmissionState.INTENDED,
            server=server_of(self._rules.provider),
            key_fingerprint=key_of(self._rules.provider),
        )
        self.jobs[job.id] = job = step.intend(job, intent)
        return self._assign(job, intent, fresh=True)

    def report(self, step: Step, report: Report, now: float) -> None:
        """Fold a worker's report in. One of a run that has ended is dropped."""
        running = self._running.get(report.job_id)
        if running is None or running.run != report.run:
            return
        job = self.jobs[report.job_id]
        self.waits.pop(job.id, None)
        match report:
            case Submitted(_, _, remote_id):
                self._told[job.id] = now
                self._submitted(step, job, remote_id)
            case Progressed(_, _, progress):
                self._progressed(step, job, progress, now)
            case Fetching():
                self.jobs[job.id] = step.move(job, JobMove.FETCH)
            case Waiting(_, _, wait):
                if wait is not None:
                    self.waits[job.id] = wait
            case Completed(_, _, video):
                step.move(job, JobMove.COMPLETE, EventName.JOB_COMPLETED, video=video, progress=100)
                self._finished(step, job, now)
            case Withdrawn():
                self._withdrawn(step, job, report, now)
            case Failed():
                self._failed(step, job, report, now)
            case _:
                assert_never(report)

    def worker_lost(self, step: Step, lost: WorkerLost, now: float) -> None:
        """A worker died: its job goes to another, unless it has killed too many."""
        job_id = lost.job_id
        running = self._running.get(job_id) if job_id else None
        if running is None or running.run != lost.run or job_id is None:
            return  # its job had been taken from it; the place is accounted for already
        self.idle.append(lost.worker)
        del self._running[job_id]
        deaths = self._deaths.setdefault(job_id, [])
        if restart_allowed(deaths, now):
            deaths.append(now)
            self._live[job_id] = running.submission
            self._attached.append(job_id)
            return
        failure = Failure(ErrorCode.INTERNAL, f"the worker of this video died {len(deaths) + 1} times: {lost.error}")
        step.fail(self.jobs[job_id], failure)
        self._drop(job_id)
        self._settle(step)

    def tick(self, step: Step, spent: float, now: float) -> None:
        """Time has passed: the batch's own, and progress that was held back."""
        self.keep_time(step, spent)
        if self._untold:
            self._tell_progress(step, now)

    # --- what follows

    def _submitted(self, step: Step, job: JobRecord, remote_id: str) -> None:
        news = job.status is JobStatus.SUBMITTING
        started = job.started_at or step.at
        event = EventName.JOB_SUBMITTED if news else None
        if news or job.remote_id != remote_id:
            self.jobs[job.id] = step.move(job, JobMove.ACCEPT, event, remote_id=remote_id, started_at=started)
        running = self._running[job.id]
        bound = running.submission._replace(state=SubmissionState.BOUND, remote_id=remote_id)
        self._running[job.id] = replace(running, submission=bound)

    def _progressed(self, step: Step, job: JobRecord, progress: int, now: float) -> None:
        told_at = self._told.get(job.id, -math.inf)
        # A listing may lag behind what the video itself has told.
        if progress <= job.progress or now - told_at < self._rules.progress_interval:
            return
        self._told[job.id] = now
        self.jobs[job.id] = step.move(job, JobMove.ADVANCE, EventName.JOB_PROGRESSED, progress=progress)

    def _withdrawn(self, step: Step, job: JobRecord, report: Withdrawn, now: float) -> None:
        step.resolve(report.submission_id, report.outcome)
        if report.outcome in (SubmissionState.ABSENT, SubmissionState.ABANDONED):
            self._absences[job.id] = self._absences.get(job.id, 0) + 1
        if (bar := self.bar(job)) is not None:
            step.fail(job, bar)
            self._finished(step, job, now)
            return
        if self._absences.get(job.id, 0) >= ABSENCES:
            text = f"{report.failure.message} ({ABSENCES} times, and nothing was made)"
            step.fail(job, replace(report.failure, message=text))
            self._finished(step, job, now)
            return
        self.jobs[job.id] = step.move(job, JobMove.WITHDRAW, attempts=job.attempts - 1)
        self._free(job.id)
        self._fresh.appendleft(job.id)

    def _failed(self, step: Step, job: JobRecord, report: Failed, now: float) -> None:
        failure = report.failure
        if report.outcome is not None:
            step.resolve(report.submission_id, report.outcome, failure.message)
        made_and_failed = report.outcome is SubmissionState.FAILED and failure.code.retryable
        may_pay = self.bar(job) is None and job.attempts < self._rules.paid_attempts and not self.stopping
        # We deleted it after a cancellation, and found out only now that it is gone: the retry wants another one.
        deleted = report.outcome is SubmissionState.DELETED and self.bar(job) is None and not self.stopping
        if deleted or (made_and_failed and may_pay):
            self.jobs[job.id] = step.move(job, JobMove.REMAKE, remote_id=None, progress=0, started_at=None)
            self._free(job.id)
            self._fresh.appendleft(job.id)
            return
        step.fail(job, failure)
        self._halt(step, job, report)
        self._finished(step, job, now)

    def _halt(self, step: Step, job: JobRecord, report: Failed) -> None:
        """Stop the POSTs that would meet the same answer."""
        failure = report.failure
        unsent = report.outcome in (SubmissionState.REFUSED, SubmissionState.NOT_SENT)
        status, said = failure.detail.get("status"), failure.detail.get("message")
        met = f"HTTP {status}: {said}" if status and said else failure.message
        rejected = f"not submitted: {job.id} was rejected with {met}"
        if failure.code is ErrorCode.PERMISSION:
            if report.outcome is not SubmissionState.REFUSED:
                return  # a video may not be had: that says nothing of POSTs
            self._barred.setdefault(job.model, Failure(failure.code, rejected))
        elif failure.code in ACCOUNT_CODES:
            self._halted = self._halted or Failure(failure.code, rejected)
        elif unsent and failure.code is ErrorCode.NETWORK:
            self._halted = self._halted or Failure(failure.code, f"not submitted, like {job.id}: {failure.message}")
        else:
            return
        self._drop_barred(step)

    def _drop_barred(self, step: Step) -> None:
        """Fail what waits and is to be submitted no more."""
        waiting, self._fresh, self._barred_wait = self._fresh, deque(), False
        for job_id in waiting:
            bar = self.bar(self.jobs[job_id])
            if bar is None:
                self._fresh.append(job_id)
            else:
                step.fail(self.jobs[job_id], bar)
                self._drop(job_id)

    def _finished(self, step: Step, job: JobRecord, now: float) -> None:
        self._drop(job.id)
        self._settle(step)
        if step.batch.status is BatchStatus.PROCESSING:
            self._untold = True
            self._tell_progress(step, now)

    def _tell_progress(self, step: Step, now: float) -> None:
        if now - self._batch_told >= self._rules.progress_interval:
            self._batch_told, self._untold = now, False
            step.tell(EventName.BATCH_PROGRESSED)

    def _fail_all(self, step: Step, failure: Failure) -> None:
        """End every open job. What Sora has in hand is let go: its submission stays bound, a retry re-attaches."""
        self._fresh.clear()
        self._attached.clear()
        for job in list(self.jobs.values()):
            step.fail(job, failure)
            self._drop(job.id)

    def _settle(self, step: Step) -> None:
        if ended(step.batch) and step.batch.status is BatchStatus.PROCESSING:
            move = ending(step.batch)
            self._untold = False  # what follows tells all, and is the last
            step.close(move, error=None if move is BatchMove.COMPLETE else _summed_up(step))

    def _assign(self, job: JobRecord, submission: SubmissionRecord, *, fresh: bool) -> Assignment:
        self._runs += 1
        assignment = Assignment(self.idle.popleft(), self._runs, job, submission, fresh)
        self._running[job.id] = assignment
        return assignment

    def _free(self, job_id: str) -> None:
        running = self._running.pop(job_id, None)
        if running is not None:
            self.idle.append(running.worker)

    def _drop(self, job_id: str) -> None:
        self._free(job_id)
        self.jobs.pop(job_id, None)
        self.waits.pop(job_id, None)
        self._told.pop(job_id, None)
        self._deaths.pop(job_id, None)
        self._absences.pop(job_id, None)
        self._live.pop(job_id, None)


def _span(seconds: float) -> str:
    return f"{seconds:g} s" if seconds % 60 else f"{seconds / 60:g} min"


def _summed_up(step: Step) -> Failure:
    batch = step.batch
    errors = [job.error for job in step.jobs.values() if job.error is not None]
    text = f"{batch.failed} of {batch.total} videos failed"
    if not errors:  # the last to end ended well
        return Failure(ErrorCode.GENERATION_FAILED, text)
    return Failure(ErrorCode(errors[-1]["code"]), f"{text}; the last one: {errors[-1]['message']}")
