"""BatchRun: a running batch, and the consequences of each report. Pure.

Time comes in as arguments; what to record goes out as `changes`, and what to do afterwards as assignments. Admission
(slots, pauses) is decided outside.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import replace
from typing import assert_never

from actors.batch.assignment import Assignment, Rules, restart_allowed
from actors.batch.batch_update import BatchUpdate, new_intent, price_in
from actors.batch.events import EventName
from actors.batch.limits import lacks_amount, out_of_time, refused_by, rejection, repeatedly, unsent_text
from actors.batch.pause import Pause, has_period
from actors.batch.transitions import BatchMove, JobMove, ended, ending
from actors.errors import ACCOUNT_CODES, ErrorCode, Failure
from actors.messages import (
    Completed,
    Earlier,
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
from storage.budgets import Refusal
from storage.changes import Changes
from storage.charges import Charges
from storage.records import BatchRecord, JobRecord, SubmissionRecord
from storage.states import IN_FLIGHT_JOB, BatchStatus, JobStatus, SubmissionState

POISON_DEATHS = 3
ABSENCES = 3
"""How many POSTs of a video may prove to have made nothing before the video fails."""


class BatchRun:
    """The folded state of a batch and its open jobs, and the worker of each."""

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
        self.pause = Pause()
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
        return self.pause.stood(self._update.at)

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
        return fits and self.in_flight < max(1, self.batch.concurrency) and self._update.at >= self.pause.until

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

    # --- what happens

    def begin(self) -> None:
        """Start or resume the batch; fail it if it has killed its owners."""
        if self.batch.status is BatchStatus.PENDING:
            self._update.move_batch(BatchMove.START, started_at=self.batch.started_at or self._update.at)
            self._update.tell(EventName.BATCH_STARTED)
        if self.batch.deaths >= POISON_DEATHS:
            text = f"{self.batch.deaths} processes in a row died while starting this batch; retry it to try again"
            self._fail_all(Failure(ErrorCode.INTERNAL, text))
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
        self.pause.end(self._update.at)
        self.waits.pop("", None)
        job = self._update.without_a_video(self.jobs[self._fresh.popleft()])
        rules = self._rules
        intent = new_intent(job, rules.provider, rules.owner_id, self._update.at, rules.price(job))
        self.jobs[job.id] = job = self._update.intend(job, intent)
        return self._assign(job, intent, fresh=True)

    def report(self, report: Report, now: float) -> None:
        """Fold a worker's report in. A report of an ended run is dropped."""
        running = self._running.get(report.job_id)
        if running is None or running.run != report.run:
            return
        job = self.jobs[report.job_id]
        self.waits.pop(job.id, None)
        match report:
            case Submitted(_, _, remote_id, told):
                self._told[job.id] = now
                self._update.charges.tell(running.submission.id, price_in(told or {}))
                self._update.charges.resolve(running.submission.id, SubmissionState.BOUND)
                self._submitted(job, remote_id)
            case Progressed(_, _, progress):
                self._progressed(job, progress, now)
            case Fetching():
                self.jobs[job.id] = self._update.move(job, JobMove.FETCH)
            case Waiting(_, _, wait):
                if wait is not None:
                    self.waits[job.id] = wait
            case Completed(_, _, video, made, told):
                self._update.note_told(running.submission.id, told)
                self._update.move(job, JobMove.COMPLETE, EventName.JOB_COMPLETED, video=video, made=made, progress=100)
                self._finished(job, now)
            case Withdrawn():
                self._withdrawn(job, report, now)
            case Failed():
                self._failed(job, report, now)
            case _:
                assert_never(report)

    def worker_lost(self, lost: WorkerLost, now: float) -> None:
        """Reassign the job of a dead worker, unless it has killed too many."""
        job_id = lost.job_id
        running = self._running.get(job_id) if job_id else None
        if running is None or running.run != lost.run or job_id is None:
            return  # its job was taken from it; the slot is already accounted for
        self.idle.append(lost.worker)
        del self._running[job_id]
        if restart_allowed(deaths := self._deaths.setdefault(job_id, []), now):
            deaths.append(now)
            self._live[job_id] = running.submission
            self._attached.append(job_id)
            return
        failure = Failure(ErrorCode.INTERNAL, f"the worker of this video died {len(deaths) + 1} times: {lost.error}")
        self._update.fail(self.jobs[job_id], failure)
        self._drop(job_id)
        self._settle()

    def refused(self, refusal: Refusal, unsent: list[Assignment], now: float) -> None:
        """Decide again: nothing of the last step was written, since one of its payments fits into no budget.

        `unsent`: the assignments that were to follow, in order.
        """
        self._update.continue_from(self._handed)
        for assignment in reversed(unsent):
            job = self.jobs[assignment.job.id]
            self._start_again(self._update.move(job, JobMove.WITHDRAW, attempts=job.attempts - 1))
        if refusal.index or self._handed.settles:
            self._fitting = refusal.index  # those before it, by themselves; or first what may give something back
            return
        failure = refused_by(refusal, self.jobs[self._fresh[0]])
        if self._rules.waits_for_budget and failure.code is ErrorCode.BUDGET_EXCEEDED and has_period(refusal.budget):
            if self.pause.begin(refusal.budget, self._update.at):
                self._update.tell(EventName.BATCH_BUDGET_REACHED, budget=failure.detail)
            self.waits[""] = Wait(failure.message, now + self.pause.until - self._update.at)
            return
        if failure.code is ErrorCode.BUDGET_EXCEEDED:
            self._halted = self._halted or failure
            self._update.tell(EventName.BATCH_BUDGET_REACHED, budget=failure.detail)
            self._drop_barred()
        else:
            for job_id in [each for each in self._fresh if lacks_amount(refusal, self._rules.price, self.jobs[each])]:
                self._fresh.remove(job_id)
                self._update.fail(self.jobs[job_id], refused_by(refusal, self.jobs[job_id]))
                self._drop(job_id)
        self._settle()

    def tick(self, spent: float, now: float) -> None:
        """Check the batch's time, and report progress that was held back."""
        self.keep_time(spent)
        if self._untold:
            self._tell_progress(now)

    # --- what follows

    def _submitted(self, job: JobRecord, remote_id: str) -> None:
        news = job.status is JobStatus.SUBMITTING
        event, started = EventName.JOB_SUBMITTED if news else None, job.started_at or self._update.at
        if news or job.remote_id != remote_id:
            self.jobs[job.id] = self._update.move(job, JobMove.ACCEPT, event, remote_id=remote_id, started_at=started)
        running = self._running[job.id]
        bound = running.submission._replace(state=SubmissionState.BOUND, remote_id=remote_id)
        self._running[job.id] = replace(running, submission=bound)

    def _progressed(self, job: JobRecord, progress: int, now: float) -> None:
        held_back = now - self._told.get(job.id, -math.inf) < self._rules.progress_interval
        if held_back or progress <= job.progress:  # a listing may lag behind the video itself
            return
        self._told[job.id] = now
        self.jobs[job.id] = self._update.move(job, JobMove.ADVANCE, EventName.JOB_PROGRESSED, progress=progress)

    def _withdrawn(self, job: JobRecord, report: Withdrawn, now: float) -> None:
        self._update.resolve(report.submission_id, report.outcome)
        if report.outcome in (SubmissionState.ABSENT, SubmissionState.ABANDONED):
            self._absences[job.id] = self._absences.get(job.id, 0) + 1
        failure = self.bar(job)
        if failure is None and self._absences.get(job.id, 0) >= ABSENCES:
            failure = repeatedly(report.failure, report.outcome, ABSENCES)
        if failure is None:
            self._start_again(self._update.move(job, JobMove.WITHDRAW, attempts=job.attempts - 1))
        else:
            self._update.fail(job, failure)
            self._finished(job, now)

    def _failed(self, job: JobRecord, report: Failed, now: float) -> None:
        failure = report.failure
        if report.outcome is not None:
            charged = self._rules.charges_failed
            self._update.resolve(report.submission_id, report.outcome, failure.message, charged=charged)
        self._update.note_told(report.submission_id, report.told)
        made_and_failed = report.outcome is SubmissionState.FAILED and failure.code.retryable
        may_pay = self.bar(job) is None and job.attempts < self._rules.paid_attempts and not self.stopping
        # We deleted it after a cancellation and only now see that it is gone: the retry needs a new one.
        deleted = report.outcome is SubmissionState.DELETED and self.bar(job) is None and not self.stopping
        if deleted or (made_and_failed and may_pay):
            self._start_again(self._update.move(job, JobMove.REMAKE, remote_id=None, progress=0, started_at=None))
            return
        self._update.fail(job, failure)
        self._halt(job, report)
        self._finished(job, now)

    def _halt(self, job: JobRecord, report: Failed) -> None:
        """Stop the POSTs that would get the same answer."""
        failure = report.failure
        unsent = report.outcome in (SubmissionState.REFUSED, SubmissionState.NOT_SENT)
        rejected = rejection(job, failure)
        if failure.code is ErrorCode.PERMISSION:
            if report.outcome is not SubmissionState.REFUSED:
                return  # no access to a video says nothing about POSTs
            self._barred.setdefault(job.model, Failure(failure.code, rejected))
        elif failure.code in ACCOUNT_CODES:
            self._halted = self._halted or Failure(failure.code, rejected)
        elif unsent and failure.code is ErrorCode.NETWORK:
            self._halted = self._halted or replace(failure, message=unsent_text(job, failure), detail={})
        else:
            return
        self._drop_barred()

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

    def _finished(self, job: JobRecord, now: float) -> None:
        self._drop(job.id)
        self._settle()
        if self.batch.status is BatchStatus.PROCESSING:
            self._untold = True
            self._tell_progress(now)

    def _tell_progress(self, now: float) -> None:
        if now - self._batch_told >= self._rules.progress_interval:
            self._batch_told, self._untold = now, False
            self._update.tell(EventName.BATCH_PROGRESSED)

    def _fail_all(self, failure: Failure) -> None:
        """Fail every open job. Submissions stay bound to the videos that the server has; a retry re-attaches."""
        self._fresh.clear()
        self._attached.clear()
        for job in list(self.jobs.values()):
            self._update.fail(job, failure)
            self._drop(job.id)

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
        self.jobs.pop(job_id, None)
        self.waits.pop(job_id, None)
        self._told.pop(job_id, None)
        self._deaths.pop(job_id, None)
        self._absences.pop(job_id, None)
        self._live.pop(job_id, None)
