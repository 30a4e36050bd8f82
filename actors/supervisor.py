"""BatchSupervisor: owns a batch while this process does, and is the only one to change it.

It folds each report immediately, hands the changes to the recorder, and acts on them once recorded: record, then act,
then tell. If the recorder refuses (the batch was cancelled or taken over), it stops without harm. It owns the pool of
VideoWorkers; `BatchRun` decides what to do next.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, assert_never

from actors.batch.run import BatchRun
from actors.batch.scheduling import Assignment, Rules
from actors.batch_log import BatchLog
from actors.errors import ErrorCode, Failure
from actors.loop import LoopActor, tell
from actors.messages import (
    Begin,
    Completed,
    Failed,
    Fetching,
    Generate,
    Loaded,
    Lost,
    PlaceFree,
    Progressed,
    Recorded,
    RecordingFailed,
    Ref,
    Release,
    Report,
    Stop,
    Submitted,
    SupervisorEnded,
    SupervisorLost,
    SupervisorMessage,
    Tick,
    Wait,
    Waiting,
    Withdrawn,
    WorkerLost,
)
from actors.sora.outcomes import SEND_WINDOW
from actors.starting import Starting
from actors.video.admission import Admission
from actors.video.tools import Tools
from actors.worker import VideoWorker
from storage.budgets import Refusal
from storage.changes import Changes
from storage.ledger import CeilingsChanged
from storage.recorder import Recorder
from storage.states import SubmissionState
from storage.storage import Storage
from storage.timing import boottime
from storage.traces import note_trace

TICK = 0.25
LINGER = 0.02
_SHARE_A_COMMIT = (Submitted, Progressed, Fetching)
"""Whose next state usually comes much later, so that each of them is still recorded."""
DRAIN = 5.0


@dataclass(frozen=True, slots=True)
class _Drained:
    """The POSTs in flight are bound, or timed out."""


@dataclass(frozen=True, slots=True)
class _Lingered:
    """Pending changes have waited long enough to share a commit."""


class BatchSupervisor(LoopActor):
    """One per batch and process."""

    def __init__(
        self,
        tools: Tools,
        admission: Admission,
        dispatcher: Ref,
        rules: Rules,
        loaded: Loaded,
        waits: dict[str, Wait],
        *,
        is_own: Callable[[], bool] = lambda: True,
    ) -> None:
        super().__init__(tools.io)
        self._is_own = is_own
        """Whether it was requested in this process, so that it fails if this process's key is refused."""
        self._tools, self._admission, self._dispatcher = tools, admission, dispatcher
        at = tools.storage.database.time()
        self.run = BatchRun(loaded.batch, loaded.open_jobs, loaded.live, rules, waits, at=at, earlier=loaded.earlier)
        self._id, self._epoch = loaded.batch.id, loaded.batch.epoch
        note_trace(self._id, loaded.batch.trace or {})
        self._log = BatchLog(loaded, rules.owner_id)
        self._spent_before, self._since = loaded.batch.spent, time.monotonic()
        self._stood_before = tools.client.rate_limiter.stood
        self._workers: list[Ref] = []
        self._to_start: list[Assignment] = []
        self._recording: list[Assignment] | None = None
        self._starting = Starting(loaded, admission, tools.bodies, self.actor_ref)
        self._beginning = self._starting.beginning
        self._lingering = False
        self._release: Release | None = None
        self._drained = self._released = self._has_orphans = False

    def on_receive(self, message: SupervisorMessage | _Drained | _Lingered) -> None:  # noqa: C901  (a table)
        """One line a message."""
        self.run.happens_at(self._tools.storage.database.time())
        match message:
            case Begin():
                self._begin()
            case Recorded():
                self._recorded(message)
            case RecordingFailed(error):
                raise error
            case Tick():
                self._tick()
            case _Lingered():
                self._lingering = False
                self._hand_over()
            case PlaceFree():
                self._go_on()
            case WorkerLost():
                self._replace(message)
            case Release():
                self._start_release(message)
            case _Drained():
                self._drained = True
                self._release_if_done()
            case Lost():
                self._end(lost=not self._released)
            case Submitted() | Progressed() | Fetching() | Waiting() | Completed() | Failed() | Withdrawn():
                self._report(message)
            case _:
                assert_never(message)

    def on_stop(self) -> None:
        """Stop the pool and free the slots; record recorded but unsent intents as not sent."""
        for assignment in self._recording or []:
            self._not_sent(assignment)
        self._starting.leave()
        for worker in self._workers:
            tell(worker, Stop())
        if self._has_orphans:  # after they have stopped: nobody awaits files that are put into place later
            self.io.call(self._tools.clean_up, self._id)

    def on_failure(self, _kind: Any, error: BaseException | None, _traceback: Any) -> None:
        """Leave the batch to a new supervisor, which starts from the records."""
        self.on_stop()
        tell(self._dispatcher, SupervisorLost(self._id, self._epoch, self._tools.storage.database.describe(error)))

    def _begin(self) -> None:
        self._log.claimed()
        self._workers = [VideoWorker.start(self._tools, self.actor_ref, each) for each in range(len(self.run.idle))]
        self.run.begin()
        self._go_on()
        self._tick_later()

    @property
    def _is_for_others(self) -> bool:
        """With a refused key, failures here say nothing about a batch that other processes can make."""
        return not self._is_own() and self._tools.client.rate_limiter.key.refused

    def _report(self, report: Report) -> None:
        if self._is_for_others and isinstance(report, Failed):
            if report.outcome is not SubmissionState.REFUSED:
                return
            report = Withdrawn(report.job_id, report.run, report.failure, report.submission_id, report.outcome)
        self._beginning.alive = True
        self._log.report(report, self.run.waits.get(report.job_id))
        self.run.report(report, time.monotonic())
        self._go_on(may_wait=isinstance(report, _SHARE_A_COMMIT))

    def _tick(self) -> None:
        self.run.tick(self._spent(), time.monotonic())
        self._go_on()
        self._tick_later()

    def _tick_later(self) -> None:
        self.io.loop.call_later(TICK, tell, self.actor_ref, Tick())

    def _replace(self, lost: WorkerLost) -> None:
        self._log.worker_restarted(lost.worker, lost.error)
        self._workers[lost.worker] = VideoWorker.start(self._tools, self.actor_ref, lost.worker)
        self.run.worker_lost(lost, time.monotonic())
        self._go_on()

    def _spent(self) -> float:
        """The batch's time, which stands still while the server gives no answer or has asked to wait."""
        stood = self._tools.client.rate_limiter.stood - self._stood_before + self.run.paused
        return self._spent_before + time.monotonic() - self._since - stood

    def _go_on(self, *, may_wait: bool = False) -> None:
        """Start what can be started, and record what happened; an attached job needs no record first."""
        if not self.run.over:
            self._attach()
            self.run.keep_time(self._spent())
            # Without the lease nothing would be sent: the next tick checks again.
            may_send = self._tools.submitter.may_send and not self._is_for_others
            # A step that a budget may refuse has nothing after its intents: each event tells of what was recorded.
            may_send = may_send and (self._recording is None or not self._is_limited)
            while may_send and self.run.wants_to_start and self._starting.may_start(self.run.next_job):
                self._beginning.begin()
                self._to_start.append(self.run.start_next())
                self._starting.starts(self._to_start[-1].submission.id, self.run.in_flight)
        self._admission.taken(self._id, self.run.in_flight)
        if not self.run.wants_to_start:
            self._starting.has_enough()
        if not may_wait or self._to_start or self.run.over or self._release is not None:
            self._hand_over()
        elif self._to_record and not self._lingering:
            # Reports of one moment share a commit: the recorder stays free for urgent writes.
            self._lingering = True
            self.io.loop.call_later(LINGER, tell, self.actor_ref, _Lingered())

    @property
    def _is_limited(self) -> bool:
        return bool(self.run.batch.budget or self._tools.storage.ledger.limited)

    def _attach(self) -> None:
        """Give the jobs in flight to workers, once the beginning of the batch is recorded."""
        if self._beginning.is_over:
            for assignment in self.run.attach():
                self._assign(assignment, None)
        elif self.run.in_flight and not self.run.stopping and self._beginning.is_allowed():
            self._beginning.begin()

    @property
    def _to_record(self) -> bool:
        """Whether there is anything to record; also the first sign of life since the batch began."""
        return self.run.changed or (self._beginning.is_to_be_recorded and not self.run.over)

    def _hand_over(self) -> None:
        """Give the recorder all changes since the last time; one update at a time."""
        if self._recording is not None or self._released or not self._to_record:
            return
        changes = self.run.take_changes(spent=self._spent(), claims=self._beginning.claims(ended=self.run.over))
        self._recording, self._to_start = self._to_start, []
        _record(self._tools.recorder, self._tools.storage, changes, self.actor_ref)

    def _recorded(self, recorded: Recorded) -> None:  # crash point: recorded
        """Act on what is now recorded."""
        if recorded.refusal is not None:
            self._refused(recorded.refusal)
            return
        released, self._recording = self._recording or [], None
        if recorded.refused:
            self._end(lost=True)
            return
        begun = self._beginning.recorded()
        if begun and self._epoch > 1:
            self._tools.stores.folder.sweep(self._id, self._epoch)
        for assignment in released:
            if self.run.over:
                self._not_sent(assignment)
            elif self._release is not None or self.run.bar(assignment.job):
                self._take_back(assignment)
            else:
                self._assign(assignment, recorded.stamp + SEND_WINDOW)
        if begun and not self.run.over:
            self._go_on()
        self._hand_over()
        if self.run.over and self._recording is None:
            self._end(lost=False)
        elif not self.run.over:
            self._release_if_done()

    def _refused(self, refusal: Refusal) -> None:
        """A budget has no room for one of the payments: nothing was recorded, and the batch decides again."""
        unsent, self._recording, self._to_start = [*(self._recording or []), *self._to_start], None, []
        self._beginning.refused()
        for assignment in unsent:
            self._admission.left(self._id, assignment.submission.id)
        self.run.refused(refusal, unsent, time.monotonic())
        self._go_on()

    def _assign(self, assignment: Assignment, send_before: float | None) -> None:  # crash point: assign
        order = Generate(assignment.run, assignment.job, assignment.submission, self._epoch, send_before)
        tell(self._workers[assignment.worker], order)

    def _take_back(self, assignment: Assignment) -> None:
        """Withdraw a recorded intent whose POST must not be sent any more."""
        self._admission.left(self._id, assignment.submission.id)
        self._tools.observer.submission(SubmissionState.NOT_SENT.value)
        failure = Failure(ErrorCode.UNAVAILABLE, "the POST was not sent: the batch was released")
        self._report(
            Withdrawn(assignment.job.id, assignment.run, failure, assignment.submission.id, SubmissionState.NOT_SENT)
        )

    def _not_sent(self, assignment: Assignment) -> None:
        self._tools.observer.submission(SubmissionState.NOT_SENT.value)
        self._admission.left(self._id, assignment.submission.id)
        settle, submission_id = self._tools.storage.submissions.settle, assignment.submission.id
        # crash point: not sent
        self._tools.recorder.write(lambda: settle(submission_id, SubmissionState.NOT_SENT, "its batch had ended"))

    def _start_release(self, message: Release) -> None:
        if self._release is None:
            self.run.stopping = True
            self._release = message
            self._hand_over()
            drained = self._tools.submitter.drained(DRAIN, self._id)
            self.begin(drained, lambda _: tell(self.actor_ref, _Drained()))

    def _release_if_done(self) -> None:
        """Release the batch once nothing is in flight to the server or the recorder."""
        if self._release is None or not self._drained or self._recording is not None or self._released:
            return
        self._released = True
        for worker in self._workers:
            tell(worker, Stop())
        release, spent, wanted = self._tools.storage.batches.release, self._spent(), self._release.wanted
        claims = self._beginning.claims_at_release()
        batch_id, epoch, ref, dispatcher = self._id, self._epoch, self.actor_ref, self._dispatcher
        released = self._tools.recorder.write(
            lambda: release(batch_id, epoch=epoch, spent=spent, wanted=wanted, claims=claims)
        )

        def told(future: Future[bool]) -> None:
            error = future.exception()
            if error is None:
                self._log.released(wanted=future.result())
                tell(dispatcher, SupervisorEnded(batch_id, epoch, released=True))
            else:  # as far as we know it is still ours
                tell(dispatcher, SupervisorLost(batch_id, epoch, repr(error)))
            tell(ref, Lost())

        released.add_done_callback(told)

    def _end(self, *, lost: bool) -> None:
        # Leave no orphan files: of an earlier owner, or of a video that came after the end.
        self._has_orphans = lost or (self.run.over and bool(self._epoch > 1 or self.run.batch.failed))
        if lost and not self._released:
            self._log.lost()
        if not self._released:  # otherwise reported once recorded
            tell(self._dispatcher, SupervisorEnded(self._id, self._epoch, released=False))
        self.stop()


def _record(recorder: Recorder, storage: Storage, changes: Changes, to: Ref) -> None:
    """Record an update; the supervisor is told once it is committed, or refused."""

    def write() -> tuple[bool | Refusal, float]:
        applied = storage.apply(changes)
        # The send window starts before anybody else can see the intent.
        return applied, boottime()

    def answer(future: Future[tuple[bool | Refusal, float]]) -> None:
        error = future.exception()
        if isinstance(error, CeilingsChanged):
            recorder.write(write).add_done_callback(answer)
        elif error is not None:
            tell(to, RecordingFailed(error))
        else:
            applied, stamp = future.result()
            refusal = applied if isinstance(applied, Refusal) else None
            tell(to, Recorded(stamp, refused=not applied and refusal is None, refusal=refusal))

    recorder.write(write).add_done_callback(answer)
