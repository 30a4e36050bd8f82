"""The course of a batch: what follows from every report, in every state, in whatever order they come."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.batch.batch_update import request_digest
from actors.batch.events import Event
from actors.batch.run import ABSENCES, POISON_DEATHS, BatchRun
from actors.batch.scheduling import RESTART_PERIOD, RESTARTS, Rules, restart_allowed
from actors.claiming import load
from actors.errors import ACCOUNT_CODES, ErrorCode, Failure
from actors.messages import (
    Completed,
    Failed,
    Fetching,
    Progressed,
    Submitted,
    Wait,
    Waiting,
    Withdrawn,
    WorkerLost,
)
from storage.charges import BatchCosts
from storage.states import FINAL_JOB, IN_FLIGHT_JOB, BatchStatus, JobStatus, SubmissionState
from tests.builders import NOON, PROVIDER, a_batch, a_job, an_intent, put, some_jobs

VIDEO = {"path": "/videos/x.mp4", "bytes": 3, "sha256": "abc", "content_type": "video/mp4"}
REFUSED, MADE_AND_FAILED = SubmissionState.REFUSED, SubmissionState.FAILED


class Ride:
    """A BatchRun and what it recorded, driven as its supervisor drives it."""

    def __init__(self, total=1, jobs=None, live=None, *, paid_attempts=1, interval=0.0, **columns):
        columns = {"total": total, "status": BatchStatus.PROCESSING, "owner": "us", "epoch": 1} | columns
        jobs = some_jobs(total) if jobs is None else jobs
        columns.setdefault("processing", sum(job.status in IN_FLIGHT_JOB for job in jobs))
        rules = Rules(provider=PROVIDER, owner_id="us", paid_attempts=paid_attempts, progress_interval=interval)
        self.run = BatchRun(a_batch(**columns), jobs, live or {}, rules, at=NOON)
        self.jobs = {job.id: job for job in jobs}
        self.events, self.outcomes, self.intents, self.given = [], [], [], []
        self.now, self.spent = 1000.0, 0.0

    def step(self, act=lambda: None, *, start=True):
        act()
        if start and not self.run.over:
            self.given += self.run.attach()
            self.run.keep_time(self.spent)
            while self.run.wants_to_start:
                self.given.append(self.run.start_next())
        changes = self.run.take_changes(spent=self.spent, claims=0)
        self.jobs |= {job.id: job for job in changes.jobs}
        self.events += [
            *changes.events,
            *([changes.closing(changes.batch, list(self.jobs.values()), BatchCosts())] if changes.closing else []),
        ]
        self.outcomes += [(outcome.submission_id, outcome.state) for outcome in changes.outcomes]
        self.intents += changes.intents
        return self

    def begin(self):
        return self.step(self.run.begin)

    def tick(self, spent):
        self.spent = spent
        return self.step(lambda: self.run.tick(spent, self.now))

    def report(self, report):
        return self.step(lambda: self.run.report(report, self.now))

    def lose(self, assignment, error="boom"):
        lost = WorkerLost(assignment.worker, assignment.run, assignment.job.id, error)
        return self.step(lambda: self.run.worker_lost(lost, self.now))

    def submitted(self, at=0, remote_id=None):
        given = self.given[at]
        return self.report(Submitted(given.job.id, given.run, remote_id or f"video_{given.job.position}"))

    def completed(self, at=0):
        given = self.given[at]
        self.report(Fetching(given.job.id, given.run))
        return self.report(Completed(given.job.id, given.run, VIDEO))

    def failed(self, at=0, code=ErrorCode.SERVER_ERROR, outcome=None):
        given = self.given[at]
        return self.report(Failed(given.job.id, given.run, Failure(code, "no"), given.submission.id, outcome))

    def withdrawn(self, at=0, outcome=SubmissionState.NOT_SENT):
        given = self.given[at]
        failure = Failure(ErrorCode.RATE_LIMITED, "later")
        return self.report(Withdrawn(given.job.id, given.run, failure, given.submission.id, outcome))

    @property
    def told(self):
        return [event.type for event in self.events]

    @property
    def statuses(self):
        return [job.status.value for job in self.jobs.values()]


def in_hand(position, status=JobStatus.GENERATING, *, state=SubmissionState.BOUND):
    """A job that an earlier owner had in flight, and its live submission."""
    remote_id = f"video_{position}" if state is SubmissionState.BOUND else None
    job = a_job(position, status=status, attempts=1, remote_id=remote_id, started_at=NOON - 60)
    return job, an_intent(f"intent-{position}", job, state=state, remote_id=remote_id)


# --- a job, from its intent to its end


def test_a_video_is_made():
    ride = Ride().begin().submitted().completed()
    assert ride.told == ["job.submitted", "job.completed", "batch.completed"]
    job = ride.jobs["nature-01"]
    assert (job.status, job.remote_id, job.attempts, job.progress) == ("completed", "video_1", 1, 100)
    assert (job.video, job.started_at, job.completed_at) == (VIDEO, NOON, NOON)


def test_a_batch_that_was_pending_is_started_first():
    ride = Ride(status=BatchStatus.PENDING).begin()
    assert ride.told == ["batch.started"]
    assert ride.run.batch.started_at == NOON


def test_a_batch_that_goes_on_is_not_started_again():
    assert Ride(started_at=NOON - 9).begin().told == []


def test_an_intent_says_who_sends_what_and_where():
    ride = Ride().begin()
    (intent,) = ride.intents
    assert (intent.job_id, intent.attempt, intent.sender, intent.provider) == ("nature-01", 1, "us", PROVIDER)
    assert intent.digest == request_digest(a_job())
    assert ride.given[0].submission == intent
    assert ride.given[0].fresh


def test_two_jobs_have_one_digest_only_if_they_ask_for_the_same():
    job = a_job()
    assert request_digest(job) == request_digest(job._replace(id="other", metadata={"a": 1}, attempts=3))
    asked = {"prompt": "x", "duration": 4, "model": "m", "size": "1x1", "reference": {"digest": "d"}}
    digests = {request_digest(job._replace(**{name: value})) for name, value in asked.items()}
    assert len(digests | {request_digest(job)}) == 6


def test_progress_is_told_at_most_once_an_interval():
    ride = Ride(interval=1.0).begin().submitted()
    run = ride.given[0].run
    for seconds, progress in [(1.0, 10), (1.5, 20), (2.1, 30), (9.0, 30)]:
        ride.now = 1000.0 + seconds
        ride.report(Progressed("nature-01", run, progress))
    told = [Event.parse(event).data["job"]["progress"] for event in ride.events if event.type == "job.progressed"]
    assert told == [10, 30]


def test_progress_does_not_fall():
    ride = Ride().begin().submitted()
    run = ride.given[0].run
    for seconds, progress in [(1.0, 50), (2.0, 30), (3.0, 60)]:
        ride.now = 1000.0 + seconds
        ride.report(Progressed("nature-01", run, progress))
    told = [Event.parse(event).data["job"]["progress"] for event in ride.events if event.type == "job.progressed"]
    assert told == [50, 60]


def test_a_batch_tells_its_progress_at_most_once_an_interval_and_later_what_it_held_back():
    ride = Ride(total=3, interval=1.0).begin()
    ride.submitted(0).completed(0).submitted(1).completed(1)
    assert ride.told.count("batch.progressed") == 1
    ride.now += 1
    ride.tick(0).tick(0)
    (_, held_back) = [event for event in ride.events if event.type == "batch.progressed"]
    assert Event.parse(held_back).data["progress"]["completed"] == 2


def test_a_wait_is_shown_until_something_moves():
    ride = Ride().begin()
    run, wait = ride.given[0].run, Wait("rate limited", 5.0)
    ride.report(Waiting("nature-01", run, wait))
    assert ride.run.waits == {"nature-01": wait}
    ride.report(Waiting("nature-01", run, None))
    assert ride.run.waits == {}


def test_an_id_that_was_told_twice_is_recorded_once():
    ride = Ride().begin().submitted().submitted()
    assert ride.told == ["job.submitted"]


@pytest.mark.parametrize("outcome", [SubmissionState.NOT_SENT, REFUSED, SubmissionState.ABSENT])
def test_what_was_not_paid_is_submitted_anew_and_counts_for_nothing(outcome):
    ride = Ride().begin().withdrawn(outcome=outcome)
    assert ride.outcomes == [(ride.intents[0].id, outcome)]
    assert ride.told == []
    assert [intent.attempt for intent in ride.intents] == [1, 1]
    assert ride.intents[0].id != ride.intents[1].id


@pytest.mark.parametrize("outcome", [SubmissionState.ABSENT, SubmissionState.ABANDONED])
def test_a_server_that_makes_nothing_again_and_again_is_not_asked_for_ever(outcome):
    ride = Ride(2, concurrency=1).begin()
    for at in range(ABSENCES - 1):
        ride.withdrawn(at, outcome)
    ride.withdrawn(ABSENCES - 1, SubmissionState.NOT_SENT).withdrawn(ABSENCES, outcome)
    assert ride.jobs["nature-01"].status is JobStatus.FAILED
    assert ride.jobs["nature-01"].error["code"] == "rate_limited"
    known = "; nothing was made" if outcome is SubmissionState.ABSENT else ""
    assert ride.jobs["nature-01"].error["message"] == f"later (3 times{known})"
    assert ride.given[-1].job.id == "nature-02"
    assert [job_id for job_id in ride.jobs if ride.jobs[job_id].status in IN_FLIGHT_JOB] == ["nature-02"]


def test_what_was_not_sent_has_a_sentence_of_its_own():
    ride = Ride(3, concurrency=1).begin()
    given = ride.given[0]
    failure = Failure(ErrorCode.AUTHENTICATION, "HTTP 401", {"remote_id": "video_1"})
    ride.report(Failed(given.job.id, given.run, failure, given.submission.id, REFUSED))
    first, second = (ride.jobs[job_id].error for job_id in ("nature-01", "nature-02"))
    assert first["message"] == "HTTP 401"
    assert second["message"] == "not submitted: nature-01 was rejected with HTTP 401"
    assert (second["code"], second["detail"]) == ("authentication", None)


def test_a_job_that_failed_carries_its_reason():
    ride = Ride().begin().failed(code=ErrorCode.MODERATION_BLOCKED, outcome=REFUSED)
    error = ride.jobs["nature-01"].error
    assert (error["code"], error["message"], error["retryable"]) == ("moderation_blocked", "no", False)
    assert ride.outcomes == [(ride.intents[0].id, REFUSED)]
    assert ride.told == ["job.failed", "batch.failed"]


def test_a_video_that_may_exist_stays_held_by_its_submission():
    ride = Ride().begin().submitted().failed(code=ErrorCode.TIMEOUT)
    assert ride.outcomes == []
    assert ride.jobs["nature-01"].remote_id == "video_1"


# --- reports that come when nobody waits for them


REPORTS = {
    "submitted": lambda job_id, run: Submitted(job_id, run, "video_9"),
    "progressed": lambda job_id, run: Progressed(job_id, run, 50),
    "fetching": Fetching,
    "waiting": lambda job_id, run: Waiting(job_id, run, Wait("x", 1.0)),
    "completed": lambda job_id, run: Completed(job_id, run, VIDEO),
    "failed": lambda job_id, run: Failed(job_id, run, Failure(ErrorCode.NETWORK, "x"), "intent", MADE_AND_FAILED),
    "withdrawn": lambda job_id, run: Withdrawn(
        job_id, run, Failure(ErrorCode.NETWORK, "x"), "intent", SubmissionState.NOT_SENT
    ),
}


@pytest.mark.parametrize("report", REPORTS.values(), ids=REPORTS)
@pytest.mark.parametrize(
    "ended",
    [
        lambda ride: ride.submitted().completed(),
        lambda ride: ride.failed(),
        lambda ride: ride.withdrawn(),
        lambda ride: ride.lose(ride.given[0]),
    ],
    ids=["completed", "failed", "withdrawn", "worker lost"],
)
def test_a_report_of_a_run_that_has_ended_changes_nothing(report, ended):
    ride = Ride(total=2, concurrency=1, timeout=1.0).begin()
    first = ride.given[0]
    ended(ride)
    before = (ride.run.batch, dict(ride.run.jobs), list(ride.events), list(ride.run.idle))
    ride.report(report(first.job.id, first.run))
    assert (ride.run.batch, ride.run.jobs, ride.events, list(ride.run.idle)) == before
    assert "intent" not in dict(ride.outcomes)


@pytest.mark.parametrize("report", REPORTS.values(), ids=REPORTS)
def test_a_report_about_a_job_that_never_ran_changes_nothing(report):
    ride = Ride(total=2, concurrency=1).begin()
    before = (ride.run.batch, list(ride.events))
    ride.report(report("nature-02", 1)).report(report("unknown", 1))
    assert (ride.run.batch, ride.events) == before


AFTER_ATTACHING = {
    (JobStatus.SUBMITTING, "submitted"): "generating",
    (JobStatus.SUBMITTING, "failed"): "failed",
    (JobStatus.SUBMITTING, "withdrawn"): "submitting",  # anew
    (JobStatus.SUBMITTING, "waiting"): "submitting",
    (JobStatus.GENERATING, "submitted"): "generating",
    (JobStatus.GENERATING, "progressed"): "generating",
    (JobStatus.GENERATING, "fetching"): "downloading",
    (JobStatus.GENERATING, "failed"): "failed",
    (JobStatus.GENERATING, "waiting"): "generating",
    (JobStatus.DOWNLOADING, "submitted"): "downloading",
    (JobStatus.DOWNLOADING, "progressed"): "downloading",
    (JobStatus.DOWNLOADING, "fetching"): "downloading",
    (JobStatus.DOWNLOADING, "completed"): "completed",
    (JobStatus.DOWNLOADING, "failed"): "failed",
    (JobStatus.DOWNLOADING, "waiting"): "downloading",
}


@pytest.mark.parametrize(("status", "name"), AFTER_ATTACHING)
def test_a_report_that_can_come_in_a_state_leads_on_from_it(status, name):
    bound = SubmissionState.UNKNOWN if status is JobStatus.SUBMITTING else SubmissionState.BOUND
    job, submission = in_hand(1, status, state=bound)
    ride = Ride(jobs=[job], live={job.id: submission}).begin()
    ride.report(REPORTS[name](job.id, ride.given[0].run))
    assert ride.statuses == [AFTER_ATTACHING[status, name]]


# --- paying again


def test_a_generation_that_failed_is_paid_for_again_as_often_as_it_may():
    ride = Ride(paid_attempts=2).begin().submitted(0).failed(0, ErrorCode.GENERATION_FAILED, MADE_AND_FAILED)
    assert [intent.attempt for intent in ride.intents] == [1, 2]
    assert ride.jobs["nature-01"].remote_id is None
    ride.submitted(1, "video_again").failed(1, ErrorCode.GENERATION_FAILED, MADE_AND_FAILED)
    assert len(ride.intents) == 2
    assert ride.told == ["job.submitted", "job.submitted", "job.failed", "batch.failed"]
    assert [state for _, state in ride.outcomes] == ["failed", "failed"]


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        (ErrorCode.MODERATION_BLOCKED, MADE_AND_FAILED),  # a retry can't mend it
        (ErrorCode.TIMEOUT, None),  # it may still be made
        (ErrorCode.SUBMISSION_UNKNOWN, None),
        (ErrorCode.INVALID_REQUEST, REFUSED),
    ],
)
def test_nothing_else_is_paid_for_again(code, outcome):
    ride = Ride(paid_attempts=5).begin().submitted().failed(0, code, outcome)
    assert ride.statuses == ["failed"]
    assert len(ride.intents) == 1


# --- the account


@pytest.mark.parametrize("code", sorted(ACCOUNT_CODES))
def test_a_refused_account_fails_the_rest_unsent(code):
    ride = Ride(total=4, concurrency=1).begin().failed(0, code, REFUSED)
    assert len(ride.intents) == 1
    assert [job.error["code"] for job in ride.jobs.values()] == [code] * 4
    assert ride.told == ["job.failed"] * 4 + ["batch.failed"]
    assert ride.run.batch.error["code"] == code


def test_a_server_that_was_never_reached_fails_the_rest_too():
    ride = Ride(total=3, concurrency=1).begin().failed(0, ErrorCode.NETWORK, SubmissionState.NOT_SENT)
    assert [job.error["code"] for job in ride.jobs.values()] == ["network"] * 3


def test_a_refused_request_fails_alone():
    ride = Ride(total=2, concurrency=1).begin().failed(0, ErrorCode.INVALID_REQUEST, REFUSED)
    assert ride.statuses == ["failed", "submitting"]
    assert len(ride.intents) == 2


def test_a_refused_model_fails_the_jobs_with_that_model_only():
    models = ["pro", "small", "pro", None, "small"]
    jobs = [a_job(at, model=model) for at, model in enumerate(models, 1)]
    ride = Ride(5, jobs, concurrency=2).begin().failed(0, ErrorCode.PERMISSION, REFUSED)
    assert ride.statuses == ["failed", "submitting", "failed", "submitting", "pending"]
    error = ride.jobs["nature-03"].error
    assert (error["code"], error["retryable"]) == ("permission", False)
    assert error["message"] == "not submitted: nature-01 was rejected with no"
    ride.withdrawn(1)
    assert ride.jobs["nature-02"].status is JobStatus.SUBMITTING


def test_a_video_that_may_not_be_had_says_nothing_of_posts():
    ride = Ride(total=3, concurrency=1).begin().submitted(0).failed(0, ErrorCode.PERMISSION)
    assert ride.statuses == ["failed", "submitting", "pending"]


def test_a_job_of_a_refused_model_that_comes_back_unpaid_is_not_posted_again():
    jobs = [a_job(1, model="pro"), a_job(2, model="pro")]
    ride = Ride(2, jobs, concurrency=2).begin().failed(0, ErrorCode.PERMISSION, REFUSED).withdrawn(1)
    assert len(ride.intents) == 2
    assert ride.statuses == ["failed"] * 2


def test_videos_in_hand_go_on_when_the_account_is_refused():
    ride = Ride(total=3, concurrency=2).begin().submitted(0).failed(1, ErrorCode.QUOTA_EXCEEDED, REFUSED)
    assert ride.statuses == ["generating", "failed", "failed"]
    assert ride.completed(0).run.batch.status is BatchStatus.PARTIAL


def test_nothing_is_posted_again_after_the_account_was_refused():
    ride = Ride(total=2, concurrency=2, paid_attempts=3).begin()
    ride.failed(0, ErrorCode.QUOTA_EXCEEDED, REFUSED).withdrawn(1)
    assert len(ride.intents) == 2
    assert ride.jobs["nature-02"].error["code"] == "quota_exceeded"
    assert ride.told[-1] == "batch.failed"


# --- the end of a batch


def test_two_of_five_failed_gives_a_partial_batch():
    ride = Ride(total=5, concurrency=5).begin()
    for at in range(5):
        ride.submitted(at)
        if at in (1, 3):
            ride.failed(at, ErrorCode.GENERATION_FAILED, MADE_AND_FAILED)
        else:
            ride.completed(at)
    last = Event.parse(ride.events[-1])
    assert last.name == "batch.partial"
    progress = last.data["progress"]
    assert {name: progress[name] for name in ("total", "completed", "failed", "pending", "percentage")} == {
        "total": 5, "completed": 3, "failed": 2, "pending": 0, "percentage": 100,
    }  # fmt: skip
    assert last.data["batch"]["error"]["message"] == "2 of 5 videos failed; last error: no"


def test_the_code_of_a_batch_is_that_of_the_video_that_failed_last_whatever_ended_after_it():
    ride = Ride(total=3, concurrency=3).begin().submitted(2).failed(0).failed(1, ErrorCode.BUDGET_EXCEEDED).completed(2)
    assert (ride.run.batch.status, ride.run.batch.error["code"]) == (BatchStatus.PARTIAL, "budget_exceeded")


def test_who_takes_a_batch_over_knows_which_video_failed_last(storage):
    def failed(number, code, at):
        return a_job(number, status=JobStatus.FAILED, completed_at=at, error=Failure(code, "no").document())

    jobs = [failed(1, ErrorCode.BUDGET_EXCEEDED, NOON), failed(2, ErrorCode.NETWORK, NOON - 9), a_job(3)]
    with storage.database.begin():
        put(storage, a_batch(total=3, failed=2, status=BatchStatus.PROCESSING, epoch=2), jobs)
    loaded = storage.database.read(lambda: load(storage, "nature"))
    rules = Rules(provider=PROVIDER, owner_id="us", paid_attempts=1, progress_interval=0.0)
    run = BatchRun(loaded.batch, loaded.open_jobs, loaded.live, rules, at=NOON, earlier=loaded.earlier)
    run.begin()
    (given,) = [run.start_next()]
    run.report(Submitted(given.job.id, given.run, "video_3", None), 0.0)
    run.report(Fetching(given.job.id, given.run), 0.0)
    run.take_changes(spent=0.0, claims=0)
    run.report(Completed(given.job.id, given.run, VIDEO, None, None), 0.0)
    assert (run.batch.status, run.batch.error["code"]) == (BatchStatus.PARTIAL, "budget_exceeded")


def test_a_batch_whose_videos_all_failed_has_failed_and_says_why():
    ride = Ride(total=2, concurrency=2).begin().failed(0).failed(1, ErrorCode.TIMEOUT)
    assert ride.told == ["job.failed", "batch.progressed", "job.failed", "batch.failed"]
    assert ride.run.batch.error["code"] == "timeout"
    assert ride.run.batch.error["message"] == "2 of 2 videos failed; last error: no"


def test_the_sequence_has_no_gap_over_a_whole_batch():
    ride = Ride(total=3, status=BatchStatus.PENDING).begin().submitted(0).failed(1).completed(0).submitted(2)
    ride.completed(2)
    assert [event.sequence for event in ride.events] == list(range(2, len(ride.events) + 2))
    assert ride.run.batch.sequence == ride.events[-1].sequence


def test_the_last_event_is_the_last_though_progress_was_held_back():
    """A run of the chaos heard of progress after the end: the end took a while to be recorded."""
    ride = Ride(total=3, concurrency=3, interval=60.0).begin().submitted(0).submitted(1).submitted(2)
    ride.completed(0).completed(1).completed(2)
    ride.now += 60.0
    assert ride.tick(0.0).told[-1] == "batch.completed"


# --- time


def test_the_batchs_time_counts_the_rounds_and_ends_what_was_not_submitted():
    ride = Ride(total=4, concurrency=2, timeout=150.0).begin().submitted(0)
    assert ride.run.time_left(5.0) == 295.0
    assert ride.tick(299.9).told == ["job.submitted"]
    ride.tick(300.0)
    assert ride.statuses == ["generating", "submitting", "failed", "failed"]
    error = ride.jobs["nature-03"].error
    assert (error["code"], error["retryable"]) == ("batch_timeout", True)
    assert error["message"] == "not submitted within 5 min (BATCH_TIMEOUT x 2 rounds)"
    assert ride.outcomes == []


def test_what_the_server_has_when_the_time_is_up_is_made_to_its_end():
    ride = Ride(total=2, concurrency=2, timeout=90.0).begin().submitted(0).submitted(1).tick(91.0)
    assert ride.statuses == ["generating"] * 2
    ride.completed(0).completed(1)
    assert ride.run.batch.status is BatchStatus.COMPLETED


@pytest.mark.parametrize("outcome", [SubmissionState.ABSENT, SubmissionState.NOT_SENT, REFUSED])
def test_what_turns_out_late_to_have_made_nothing_is_not_submitted_again(outcome):
    ride = Ride(timeout=90.0).begin().tick(90.0).withdrawn(0, outcome)
    assert len(ride.intents) == 1
    assert ride.jobs["nature-01"].error["message"] == "not submitted within 90 s (BATCH_TIMEOUT)"
    assert ride.run.over


def test_a_video_that_fails_late_is_not_paid_for_again():
    ride = Ride(timeout=90.0, paid_attempts=5).begin().submitted().tick(90.0)
    ride.failed(0, ErrorCode.GENERATION_FAILED, MADE_AND_FAILED)
    assert len(ride.intents) == 1
    assert ride.jobs["nature-01"].error["code"] == "generation_failed"


def test_a_batch_whose_time_was_up_before_starts_nothing_and_fetches_what_is_there():
    job, submission = in_hand(1)
    ride = Ride(2, [job, a_job(2)], {job.id: submission}, timeout=30.0)
    ride.spent = 60.0
    ride.begin()
    assert (ride.statuses, ride.intents) == (["generating", "failed"], [])
    assert [given.job.id for given in ride.given] == [job.id]


def test_a_timeout_of_zero_is_none():
    assert Ride(timeout=0.0).begin().tick(1e9).statuses == ["submitting"]


def test_the_batchs_time_leaves_what_is_finished():
    ride = Ride(total=2, concurrency=1, timeout=1.0).begin().submitted(0).tick(2.0).completed(0)
    assert ride.statuses == ["completed", "failed"]
    assert ride.told[-1] == "batch.partial"


# --- deaths


def test_a_batch_that_killed_its_owners_is_ended_with_its_remote_ids_kept():
    job, submission = in_hand(1)
    ride = Ride(2, [job, a_job(2)], {job.id: submission}, claims=-POISON_DEATHS).begin()
    assert ride.given == []
    assert ride.run.batch.status is BatchStatus.FAILED
    assert ride.run.batch.error["code"] == "internal"
    assert [job.error["code"] for job in ride.jobs.values()] == ["internal"] * 2
    assert ride.jobs["nature-01"].remote_id == "video_1"
    assert ride.outcomes == []


@pytest.mark.parametrize(
    "claims", [1 - POISON_DEATHS, POISON_DEATHS + 1], ids=["deaths", "claims of the version before"]
)
def test_a_batch_whose_owners_died_less_often_is_tried_once_more(claims):
    assert Ride(claims=claims).begin().statuses == ["submitting"]


def test_a_job_whose_worker_died_goes_on_from_what_is_bound():
    ride = Ride(concurrency=1).begin().submitted()
    ride.lose(ride.given[0])
    again = ride.given[1]
    assert (again.fresh, again.submission.state, again.submission.remote_id) == (False, "bound", "video_1")
    assert again.run != ride.given[0].run
    assert len(ride.intents) == 1
    assert ride.completed(1).statuses == ["completed"]


def test_a_job_that_kills_its_workers_fails_when_the_budget_is_spent():
    ride = Ride(total=2, concurrency=1).begin()
    for _ in range(RESTARTS + 1):
        ride.lose(ride.given[-1])
    assert ride.statuses == ["failed", "submitting"]
    error = ride.jobs["nature-01"].error
    assert (error["code"], error["message"]) == ("internal", "the worker of this video died 4 times: boom")


def test_a_worker_that_died_without_a_job_costs_nothing():
    ride = Ride(total=1, concurrency=1).begin().failed(0)
    idle = list(ride.run.idle)
    lost = WorkerLost(0, 0, None, "boom")
    ride.step(lambda: ride.run.worker_lost(lost, ride.now))
    assert list(ride.run.idle) == idle


@pytest.mark.parametrize(
    ("past", "allowed"),
    [([], True), ([999.0] * (RESTARTS - 1), True), ([999.0] * RESTARTS, False), ([1000 - RESTART_PERIOD] * 9, True)],
)
def test_restarts_are_allowed_by_those_of_the_last_minute(past, allowed):
    assert restart_allowed(past, 1000.0) is allowed


# --- taking over


def test_what_is_in_flight_comes_before_what_is_new():
    (first, held), (third, bound) = in_hand(1, JobStatus.SUBMITTING, state=SubmissionState.UNKNOWN), in_hand(3)
    jobs = [first, a_job(2), third, a_job(4)]
    ride = Ride(4, jobs, {first.id: held, third.id: bound}, concurrency=3).begin()
    assert [(given.job.position, given.fresh) for given in ride.given] == [(1, False), (3, False), (2, True)]


def test_jobs_in_flight_hold_their_places_even_where_no_worker_is_idle():
    pairs = [in_hand(position) for position in (1, 2, 3)]
    jobs = [job for job, _ in pairs] + [a_job(4)]
    ride = Ride(4, jobs, {job.id: submission for job, submission in pairs}, concurrency=2).begin()
    assert ride.run.in_flight == 3
    assert ride.intents == []
    ride.completed(0)
    assert ride.intents == []
    ride.completed(1)
    assert [intent.job_id for intent in ride.intents] == ["nature-04"]


@pytest.mark.parametrize("status", [JobStatus.SUBMITTING, JobStatus.GENERATING, JobStatus.DOWNLOADING])
def test_a_job_in_flight_of_which_nothing_lives_is_submitted_anew(status):
    job, _ = in_hand(1, status)
    ride = Ride(jobs=[job]).begin()
    assert ride.statuses == ["submitting"]
    assert [(given.fresh, given.submission.attempt >= 1) for given in ride.given] == [(True, True)]
    assert ride.run.batch.processing == 1


def test_a_batch_that_is_let_go_starts_nothing_more():
    ride = Ride(total=3, concurrency=1).begin()
    ride.run.stopping = True
    ride.withdrawn(0)
    assert len(ride.intents) == 1
    assert ride.statuses == ["pending"] * 3
    assert ride.run.in_flight == 0


def test_a_batch_that_is_let_go_makes_no_second_payment():
    ride = Ride(paid_attempts=2).begin().submitted()
    ride.run.stopping = True
    assert ride.failed(0, ErrorCode.GENERATION_FAILED, MADE_AND_FAILED).statuses == ["failed"]


# --- properties


@settings(deadline=None)
@given(total=st.integers(1, 12), concurrency=st.integers(1, 5), data=st.data())
def test_the_limit_holds_and_every_job_ends_in_whatever_order_reports_come(total, concurrency, data):
    ride = Ride(total=total, concurrency=concurrency, paid_attempts=2, status=BatchStatus.PENDING).begin()
    for _ in range(total * 20):
        if ride.run.over:
            break
        in_flight = [job for job in ride.jobs.values() if job.status in IN_FLIGHT_JOB]
        assert len(in_flight) <= concurrency
        assert ride.run.batch.processing == len(in_flight) == ride.run.in_flight
        running = list(ride.run._running.values())
        assert len({given.worker for given in running}) == len(running)
        at = data.draw(st.sampled_from(running)).run - 1
        status = ride.jobs[ride.given[at].job.id].status
        if status is JobStatus.SUBMITTING:
            acts = [ride.submitted, ride.withdrawn, ride.failed, lambda at: ride.lose(ride.given[at])]
        else:
            acts = [
                ride.completed,
                lambda at: ride.failed(at, ErrorCode.GENERATION_FAILED, MADE_AND_FAILED),
                lambda at: ride.lose(ride.given[at]),
            ]
        data.draw(st.sampled_from(acts))(at)
    ride.tick(0.0)
    if ride.run.over:
        assert all(job.status in FINAL_JOB for job in ride.jobs.values())
        assert sorted(ride.run.idle) == list(range(min(concurrency, total)))
        assert ride.told[-1].startswith("batch.")
    assert [event.sequence for event in ride.events] == list(range(2, len(ride.events) + 2))
