"""BatchRun: a running batch, and what follows from each report, from a dead worker and from a refused payment. Pure.

Time comes in as arguments; what to record goes out as `changes`, and what to do afterwards as assignments.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import assert_never

from actors.batch.batch_update import price_in
from actors.batch.events import EventName
from actors.batch.limits import Pause, has_period, lacks_amount, refused_by, rejection, repeatedly, unsent_text
from actors.batch.scheduling import Assignment, JobSchedule, restart_allowed
from actors.batch.transitions import BatchMove, JobMove
from actors.errors import ACCOUNT_CODES, ErrorCode, Failure
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
from storage.budgets import Refusal
from storage.records import JobRecord
from storage.states import BatchStatus, JobStatus, SubmissionState

POISON_DEATHS = 3
ABSENCES = 3
"""How many POSTs of a video may prove to have made nothing before the video fails."""


class BatchRun(JobSchedule):
    """The folded state of a batch and its open jobs, and what follows from each report."""

    def begin(self) -> None:
        """Start or resume the batch; fail it if it has killed its owners."""
        if self.batch.status is BatchStatus.PENDING:
            self._update.move_batch(BatchMove.START, started_at=self.batch.started_at or self._update.at)
            self._update.tell(EventName.BATCH_STARTED)
        if self.batch.deaths >= POISON_DEATHS:
            text = f"{self.batch.deaths} processes in a row died while starting this batch; retry it to try again"
            self._fail_all(Failure(ErrorCode.INTERNAL, text))
        self._settle()

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
            self.pause = self.pause or Pause()
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
