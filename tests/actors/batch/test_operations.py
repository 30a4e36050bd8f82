"""What may be done to a batch from outside, on both databases."""

import threading

import pytest

from actors.batch import cancellation, retrying
from actors.batch.deletion import delete
from actors.batch.events import Event
from actors.batch.start import NewBatch, create, want
from actors.errors import Conflict, ErrorCode, Failure, InvalidRequest, NotFound
from storage.database import Database
from storage.records import ReferenceRecord
from storage.states import FINAL_BATCH, LIVE_SUBMISSION, JobStatus, SubmissionState
from storage.storage import Storage
from tests.builders import NOON, PROVIDER, a_batch, a_job, an_intent, an_owner, put, some_jobs

J, S = JobStatus, SubmissionState
SERVER, ELSEWHERE = "http://server/v1", "https://new:8443/v1"
LATER = NOON + 60


@pytest.fixture
def do(storage):
    """Does something in one transaction, as the recorder would."""

    def do(operation, *arguments, **options):
        with storage.database.begin():
            return operation(storage, *arguments, **options)

    return do


@pytest.fixture
def cancel(do):
    return lambda reason=None: do(cancellation.cancel, "nature", reason, LATER)


@pytest.fixture
def retry(do):
    def retry(job_ids=None, changes=None, *, references=(), provider=PROVIDER, **more):
        given = {"job_ids": job_ids, "changes": changes or {}, "changed_references": list(references), "at": LATER}
        retried = do(retrying.retry, "nature", provider, **given | {"pay_again": False} | more)
        return list(retried.job_ids)

    return retry


@pytest.fixture
def events(storage):
    return lambda: [Event.parse(record) for record in storage.journal.read("nature")]


@pytest.fixture
def ended(storage):
    """Stores a failed batch of one job that ended with an error, and with a submission in a state."""

    def ended(code=ErrorCode.TIMEOUT, state=None, status=J.FAILED, **columns):
        failure = Failure(code, "x").document()
        job = a_job(status=status, error=failure, attempts=1, progress=40, started_at=NOON, completed_at=NOON)
        put(storage, a_batch(**{"status": "failed", "failed": 1, "sequence": 5, "error": failure} | columns), [job])
        if state is not None:
            bring(storage, job, state)

    return ended


def bring(storage, job, state):
    storage.submissions.intend([an_intent(f"intent-{job.position}", job)])
    if state in (S.BOUND, S.FAILED, S.DELETED):
        storage.submissions.bind(f"intent-{job.position}", f"video_{job.position}")
    if state not in (S.INTENDED, S.BOUND):
        storage.submissions.settle(f"intent-{job.position}", state)


def job_of(storage, position=1):
    return storage.jobs.of_batch("nature")[position - 1]


# --- create


def test_a_batch_is_created_with_its_jobs_its_references_and_its_event(do, storage, events):
    reference = ReferenceRecord(digest="d", name="a.png", content_type="image/png", data=b"x")
    do(create, NewBatch(a_batch(total=2, sequence=0), some_jobs(2), [reference]))
    assert storage.batches.get("nature") == a_batch(total=2, sequence=1)
    assert storage.jobs.of_batch("nature") == some_jobs(2)
    assert storage.jobs.reference("d") == reference
    (created,) = events()
    assert (created.name, created.sequence, created.data["status"]) == ("batch.created", "0000000001", "pending")


def test_the_same_request_under_the_same_id_is_the_same_batch(do, storage):
    new = NewBatch(a_batch(sequence=0), some_jobs(1), [])
    do(create, new)
    do(create, new)
    assert len(storage.journal.read("nature")) == 1


def test_another_request_under_the_same_id_is_a_conflict(do, storage):
    do(create, NewBatch(a_batch(sequence=0), some_jobs(1), []))
    with pytest.raises(Conflict, match="nature already exists with a different request"):
        do(create, NewBatch(a_batch(total=2, digest="other"), some_jobs(2), []))
    assert storage.batches.get("nature").digest == "digest"


def test_of_two_who_create_it_at_once_one_finds_it_there(database_url, do, storage):
    """The second one asks while the first has not committed yet."""
    new = NewBatch(a_batch(sequence=0), some_jobs(1), [])
    asking, answers = threading.Event(), []

    def second():
        database = Database(database_url)
        asking.set()
        with database.connection(), database.begin():
            create(Storage(database), new)
        database.close()
        answers.append("the same")

    thread = threading.Thread(target=second)
    with storage.database.begin():
        create(storage, new)
        thread.start()
        asking.wait(10)
    thread.join(20)
    assert answers == ["the same"]
    assert len(storage.journal.read("nature")) == 1


def test_a_batch_that_is_made_again_under_an_old_id_goes_on_counting(do, storage):
    put(storage, a_batch(status="failed", failed=1, sequence=7), [a_job(status=J.FAILED)])
    do(delete, "nature", LATER)
    do(create, NewBatch(a_batch(sequence=0), some_jobs(1), []))
    assert storage.batches.get("nature").sequence == 9
    assert [event.sequence for event in storage.journal.read("nature")] == [8, 9]


# --- want


def test_a_wanted_batch_is_marked(do, storage):
    put(storage, a_batch(claims=3))
    assert do(want, "nature", PROVIDER, 7) is True
    assert storage.batches.get("nature") == a_batch(claims=0, wanted=True, concurrency=7, provider=PROVIDER)


def test_a_batch_that_others_want_is_not_newly_wanted(do, storage):
    put(storage, a_batch(wanted=True, owner="them", status="processing"))
    assert do(want, "nature", PROVIDER, None) is False


def test_the_concurrency_of_a_batch_that_runs_stays(do, storage):
    put(storage, a_batch(owner="us", status="processing"))
    do(want, "nature", PROVIDER, 7)
    assert storage.batches.get("nature").concurrency == 3


def test_an_ended_batch_is_not_wanted_again(do, storage):
    put(storage, a_batch(status="completed", provider="elsewhere#k"))
    assert do(want, "nature", PROVIDER, None) is False
    assert not storage.batches.get("nature").wanted


@pytest.mark.parametrize("key", ["key", "another"])
def test_a_batch_is_made_where_it_was_begun_with_whatever_key(do, storage, key):
    put(storage, a_batch(provider=PROVIDER))
    assert do(want, "nature", f"{SERVER}#{key}", None) is True
    assert storage.batches.get("nature").wanted


def test_an_open_batch_that_was_begun_elsewhere_is_cancelled_before_it_moves(do, storage):
    put(storage, a_batch(provider=f"{ELSEWHERE}#key", status="processing"), [a_job(1, status=J.GENERATING)])
    there = an_intent(provider=f"{ELSEWHERE}#key", state=S.BOUND, remote_id="v1")
    do(lambda storage: storage.submissions.intend([there]))
    with pytest.raises(Conflict, match="run sora-batch cancel nature, then sora-batch retry nature --move-server"):
        do(want, "nature", PROVIDER, None)


def test_a_batch_that_is_wanted_of_the_simulator_never_begins_to_cost(do, storage):
    put(storage, a_batch())
    do(want, "nature", "simulator", None)
    assert storage.batches.get("nature").provider == "simulator"
    with pytest.raises(Conflict, match="use --simulate for simulated batches"):
        do(want, "nature", PROVIDER, None)


def test_a_batch_that_may_have_videos_elsewhere_is_not_wanted_here(do, storage):
    put(storage, a_batch(provider="http://other/v1#secret"))
    bring(storage, a_job(), S.UNKNOWN)
    with pytest.raises(Conflict, match=r"was started at http://other/v1, but this is http://server/v1") as caught:
        do(want, "nature", PROVIDER, None)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "operation",
    [
        lambda storage: want(storage, "nature", PROVIDER, None),
        lambda storage: cancellation.cancel(storage, "nature", None, LATER),
        lambda storage: delete(storage, "nature", LATER),
        lambda storage: retrying.retry(
            storage, "nature", PROVIDER, job_ids=None, changes={}, changed_references=[], pay_again=False, at=LATER
        ),
    ],
    ids=["want", "cancel", "delete", "retry"],
)
def test_an_unknown_id_is_answered_with_the_database_that_was_looked_in(do, storage, operation):
    with pytest.raises(NotFound) as caught:
        do(operation)
    assert str(caught.value) == f"there is no batch 'nature' in the database {storage.database.place}"


# --- cancel


def test_a_waiting_batch_is_cancelled(cancel, storage, events):
    put(storage, a_batch(total=2, wanted=True))
    summary = cancel("too dear")
    assert summary.model_dump(mode="json") == {
        "batch_id": "nature", "status": "cancelled", "total": 2, "cancelled": 2, "completed": 0, "failed": 0,
        "already_final": 0, "may_be_charged": [],
    }  # fmt: skip
    assert [event.name for event in events()] == ["job.cancelled", "job.cancelled", "batch.cancelled"]
    assert events()[-1].data["reason"] == "too dear"
    assert job_of(storage).error["message"] == "too dear"


def test_a_batch_that_runs_is_taken_from_its_owner(cancel, storage):
    put(storage, a_batch(status="processing", owner="them", epoch=3, wanted=True))
    cancel()
    batch = storage.batches.get("nature")
    assert (batch.status, batch.owner, batch.epoch, batch.wanted) == ("cancelled", None, 4, False)
    assert not storage.batches.advance(batch, epoch=3, sequence=1)


def test_the_summary_says_what_had_ended_and_what_may_be_charged(cancel, storage, events):
    states = [J.COMPLETED, J.FAILED, J.SUBMITTING, J.SUBMITTING, J.GENERATING, J.DOWNLOADING, J.PENDING]
    jobs = [a_job(position, status=status) for position, status in enumerate(states, 1)]
    put(storage, a_batch(status="processing", total=7, completed=1, failed=1, processing=4, sequence=9), jobs)
    submissions = [S.BOUND, S.FAILED, S.INTENDED, S.UNKNOWN, S.BOUND, S.BOUND, S.REFUSED]
    for job, state in zip(jobs, submissions, strict=True):
        bring(storage, job, state)
    summary = cancel()
    assert (summary.cancelled, summary.completed, summary.failed, summary.already_final) == (5, 1, 1, 2)
    assert summary.cancelled + summary.completed + summary.failed == summary.total
    charged = [(charge.job_id[-2:], charge.remote_id, charge.state) for charge in summary.may_be_charged]
    assert sorted(charged) == [
        ("03", None, "submitting"), ("04", None, "submitting"), ("05", "video_5", "generating"),
        ("06", "video_6", "generating"),
    ]  # fmt: skip
    told = events()[-1].data
    assert told["may_be_charged"] == [charge.model_dump() for charge in summary.may_be_charged]
    assert told["progress"]["pending"] == told["progress"]["processing"] == 0
    assert [job["status"] for job in told["batch"]["jobs"]].count("cancelled") == 5


def test_cancelling_twice_gives_the_same_summary_and_tells_nothing_more(cancel, storage, events):
    jobs = [a_job(1, status=J.GENERATING), a_job(2, status=J.COMPLETED)]
    put(storage, a_batch(status="processing", total=2, completed=1, processing=1), jobs)
    bring(storage, jobs[0], S.BOUND)
    first, told, batch = cancel("a"), len(events()), storage.batches.get("nature")
    assert cancel("b") == first
    assert len(events()) == told
    assert storage.batches.get("nature") == batch


def test_what_may_be_charged_is_told_in_the_order_of_the_videos(cancel, storage):
    jobs = some_jobs(3, status=J.GENERATING)
    put(storage, a_batch(total=3, processing=3, status="processing"), jobs)
    with storage.database.begin():
        for job in reversed(jobs):
            bring(storage, job, S.BOUND)
    told = cancel()
    assert [charge.job_id for charge in told.may_be_charged] == ["nature-01", "nature-02", "nature-03"]
    assert cancel() == told


def test_an_answer_that_comes_after_the_cancellation_is_kept_and_told(cancel, storage):
    put(storage, a_batch(status="processing", processing=1), [a_job(status=J.SUBMITTING)])
    bring(storage, a_job(), S.INTENDED)
    cancel()
    assert storage.submissions.bind("intent-1", "late")
    assert [charge.remote_id for charge in cancel().may_be_charged] == ["late"]


@pytest.mark.parametrize("status", ["completed", "partial", "failed"])
def test_what_ended_otherwise_is_not_cancelled(cancel, storage, status):
    put(storage, a_batch(status=status))
    with pytest.raises(Conflict, match=f"nature is already {status}"):
        cancel()
    assert storage.journal.read("nature") == []


def test_we_ask_to_delete_what_we_made_and_nobody_else_did(cancel, do, storage):
    states = [S.BOUND, S.BOUND, S.UNKNOWN, S.BOUND]
    jobs = some_jobs(4, status=J.GENERATING)
    put(
        storage,
        a_batch(status="processing", total=4, completed=1, processing=3),
        [*jobs[:3], a_job(4, status="completed")],
    )
    for job, state in zip(jobs, states, strict=True):
        bring(storage, job, state)
    storage.database.execute("UPDATE submissions SET adopted=TRUE WHERE id='intent-2'")
    cancel()
    assert [(owed.submission.remote_id, owed.delete.state) for owed in do(lambda s: s.deletes.of_batch("nature"))] == [
        ("video_1", "owed")
    ]


def test_a_cancellation_that_is_to_delete_nothing_owes_nothing(do, storage):
    put(storage, a_batch(status="processing", total=1, processing=1), [a_job(1, status=J.GENERATING)])
    bring(storage, a_job(1), S.BOUND)
    do(cancellation.cancel, "nature", None, NOON, deletes=False)
    assert do(lambda s: s.deletes.of_batch("nature")) == []


@pytest.mark.parametrize("status", [J.SUBMITTING, J.GENERATING, J.DOWNLOADING])
def test_what_may_be_in_the_making_is_deleted_and_what_has_finished_is_not(do, cancel, storage, status):
    put(storage, a_batch(status="processing", total=1, processing=1), [a_job(1, status=status)])
    bring(storage, a_job(1), S.BOUND)
    cancel()
    assert len(do(lambda s: s.deletes.of_batch("nature"))) == (0 if status == J.DOWNLOADING else 1)


# --- retry


@pytest.mark.parametrize("state", S)
def test_any_key_of_the_same_address_goes_on_with_a_batch(ended, retry, storage, state):
    ended(state=state, provider=f"{SERVER}/#another")
    retry()
    assert storage.batches.get("nature").provider == f"{SERVER}/#another"
    assert storage.submissions.get("intent-1").key_fingerprint == "key"


@pytest.mark.parametrize("state", [None, S.REFUSED, S.NOT_SENT, S.FAILED, S.ABSENT, S.DELETED, S.ABANDONED])
def test_a_batch_of_which_nothing_can_have_been_made_goes_to_another_server(do, ended, retry, storage, state):
    ended(state=state, provider=PROVIDER)
    retry(provider=f"{ELSEWHERE}#key")
    assert storage.batches.get("nature").provider == f"{ELSEWHERE}#key"
    with storage.database.begin():
        assert storage.batches.claim(["nature"], owner="us", provider=f"{ELSEWHERE}#other", limit=1) == ["nature"]


@pytest.mark.parametrize("state", sorted({*LIVE_SUBMISSION, S.SURPLUS}))
def test_what_another_server_may_have_made_keeps_a_batch_there(ended, retry, storage, state):
    ended(state=state, provider=PROVIDER)
    with pytest.raises(Conflict, match=r"set OPENAI_BASE_URL to http://server/v1; .* add --move-server to the retry"):
        retry(provider=f"{ELSEWHERE}#key")
    assert storage.batches.get("nature").provider == PROVIDER


@pytest.mark.parametrize("state", sorted(LIVE_SUBMISSION))
def test_a_server_that_has_moved_has_its_videos_at_the_new_address(ended, retry, storage, state):
    ended(state=state, provider=PROVIDER)
    retry(provider=f"{ELSEWHERE}#new", moves_server=True)
    assert storage.batches.get("nature").provider == f"{ELSEWHERE}#new"
    moved = storage.submissions.live_of_batch("nature")["nature-01"]
    assert (moved.server, moved.key_fingerprint, moved.state) == (ELSEWHERE, "key", state)
    assert job_of(storage).status is (J.GENERATING if state is S.BOUND else J.SUBMITTING)


def test_at_another_server_what_the_first_may_have_made_is_let_go_on_a_persons_word(ended, retry, storage):
    ended(state=S.BOUND, provider=PROVIDER)
    retry(provider=f"{ELSEWHERE}#new", moves_server=True, pay_again=True)
    assert storage.submissions.get("intent-1").state is S.ABANDONED
    assert storage.submissions.get("intent-1").server == SERVER
    assert job_of(storage).status is J.PENDING


@pytest.mark.parametrize(("here", "there"), [("simulator", PROVIDER), (PROVIDER, "simulator")])
@pytest.mark.parametrize("moves", [False, True])
def test_a_simulated_batch_never_begins_to_cost(ended, retry, storage, here, there, moves):
    ended(provider=there)
    with pytest.raises(Conflict, match="simulat"):
        retry(provider=here, moves_server=moves)
    assert storage.batches.get("nature").provider == there


def test_a_batch_that_somebody_works_on_stays_where_it_is(do, storage):
    with storage.database.begin():
        storage.owners.renew(an_owner("them"), 60)
    put(storage, a_batch(status="processing", owner="them", provider=PROVIDER))
    with pytest.raises(Conflict, match="was started at http://server/v1, but this is https://new:8443/v1"):
        do(want, "nature", f"{ELSEWHERE}#key", None)
    with storage.database.begin():
        storage.owners.expire("them")
    do(want, "nature", f"{ELSEWHERE}#key", None)
    assert storage.batches.get("nature").provider == f"{ELSEWHERE}#key"


def test_videos_that_are_finished_hinder_no_move(retry, storage):
    jobs = [
        a_job(1, status=J.COMPLETED),
        a_job(2, status=J.FAILED, error=Failure(ErrorCode.PERMISSION, "x").document()),
    ]
    put(storage, a_batch(total=2, completed=1, failed=1, status="partial", provider=PROVIDER), jobs)
    with storage.database.begin():
        bring(storage, jobs[0], S.BOUND)
    assert retry(provider=f"{ELSEWHERE}#key") == ["nature-02"]
    assert storage.batches.get("nature").provider == f"{ELSEWHERE}#key"
    assert storage.submissions.get("intent-1").server == SERVER


def test_a_retry_of_all_takes_what_may_succeed_and_tells_what_it_leaves(do, storage):
    jobs = [
        a_job(position, status=J.FAILED, error=Failure(code, "x").document())
        for position, code in enumerate(ErrorCode, 1)
    ]
    put(storage, a_batch(status="failed", total=len(jobs), failed=len(jobs)), jobs)
    given = {"job_ids": None, "changes": {}, "changed_references": [], "pay_again": False, "at": LATER}
    retried = do(retrying.retry, "nature", PROVIDER, **given)
    left = {ErrorCode(job.error["code"]) for job in jobs if job.id in retried.left_alone}
    assert left == {
        ErrorCode.INVALID_REQUEST, ErrorCode.MODERATION_BLOCKED, ErrorCode.CONFLICT, ErrorCode.SUBMISSION_UNKNOWN,
    }  # fmt: skip
    assert {*retried.job_ids, *retried.left_alone} == {job.id for job in jobs}
    assert not {*retried.job_ids} & {*retried.left_alone}


def test_what_would_fail_again_is_tried_where_it_is_named(ended, retry):
    ended(code=ErrorCode.MODERATION_BLOCKED)
    with pytest.raises(Conflict, match=r"nature-01 \(moderation_blocked\) would fail again unchanged"):
        retry()
    assert retry(["nature-01"]) == ["nature-01"]


@pytest.mark.parametrize("state", [None, S.REFUSED, S.NOT_SENT, S.FAILED, S.DELETED])
def test_a_job_of_which_nothing_is_left_is_made_anew(ended, retry, storage, state):
    ended(state=state)
    assert retry() == ["nature-01"]
    job = job_of(storage)
    assert (job.status, job.error, job.progress, job.remote_id) == ("pending", None, 0, None)
    assert (job.started_at, job.completed_at, job.attempts) == (None, None, 1)


def test_a_video_that_the_server_still_has_is_attached_to(ended, retry, storage):
    ended(state=S.BOUND)
    retry()
    job = job_of(storage)
    assert (job.status, job.remote_id, job.started_at) == ("generating", "video_1", LATER)
    assert storage.batches.get("nature").processing == 1
    assert storage.submissions.live_of_batch("nature")["nature-01"].state is S.BOUND


@pytest.mark.parametrize("state", [S.INTENDED, S.UNKNOWN, S.CLASHED])
def test_an_unknown_outcome_is_looked_for_first(ended, retry, storage, state):
    ended(code=ErrorCode.BATCH_TIMEOUT, state=state)
    retry()
    assert job_of(storage).status is J.SUBMITTING
    assert "nature-01" in storage.submissions.live_of_batch("nature")


def test_a_retried_batch_is_wanted_under_a_new_epoch_and_has_all_its_time(ended, retry, storage, events):
    ended(epoch=4, spent=99.0, claims=2, completed_at=NOON)
    retry()
    batch = storage.batches.get("nature")
    assert (batch.status, batch.epoch, batch.wanted, batch.spent, batch.claims) == ("pending", 5, True, 0.0, 0)
    assert (batch.completed_at, batch.error, batch.failed) == (None, None, 0)
    assert [event.name for event in events()] == ["batch.retried", "job.retried"]
    assert events()[0].data["job_ids"] == ["nature-01"]
    assert [(event.data["progress"]["pending"], event.data["progress"]["percentage"]) for event in events()] == [
        (1, 0),
        (1, 0),
    ]


def test_what_succeeded_is_left_alone(retry, storage):
    jobs = [a_job(1, status=J.COMPLETED), a_job(2, status=J.FAILED), a_job(3, status=J.CANCELLED)]
    put(storage, a_batch(status="cancelled", total=3, completed=1, failed=1, cancelled=1), jobs)
    assert retry() == ["nature-02", "nature-03"]
    assert job_of(storage, 1) == jobs[0]
    assert storage.batches.get("nature").completed == 1


def test_only_the_named_jobs_are_retried(retry, storage):
    put(storage, a_batch(status="failed", total=3, failed=3), some_jobs(3, status=J.FAILED))
    assert retry(["nature-02"]) == ["nature-02"]
    assert storage.batches.get("nature").failed == 2


def test_a_blanket_retry_leaves_unknown_jobs_alone_and_says_so(ended, retry, storage):
    ended(code=ErrorCode.SUBMISSION_UNKNOWN, state=S.UNKNOWN)
    with pytest.raises(Conflict, match="the outcome of nature-01 is unknown; name the job to check again"):
        retry()
    assert storage.batches.get("nature").status == "failed"


@pytest.mark.parametrize(
    ("state", "status"), [(S.NOT_SENT, J.PENDING), (S.REFUSED, J.PENDING), (S.BOUND, J.GENERATING)]
)
def test_a_blanket_retry_takes_unknown_jobs_whose_answer_has_come_since(ended, retry, storage, state, status):
    ended(code=ErrorCode.SUBMISSION_UNKNOWN, state=state)
    assert retry() == ["nature-01"]
    assert job_of(storage).status is status


def test_a_blanket_retry_leaves_a_surplus_video_alone(ended, retry):
    ended(code=ErrorCode.SUBMISSION_UNKNOWN, state=S.SURPLUS)
    with pytest.raises(Conflict, match="the outcome of nature-01 is unknown"):
        retry()


def test_naming_an_unknown_job_looks_again_and_pays_nothing(ended, retry, storage):
    ended(code=ErrorCode.SUBMISSION_UNKNOWN, state=S.UNKNOWN)
    retry(["nature-01"])
    assert job_of(storage).status is J.SUBMITTING
    assert storage.submissions.get("intent-1").state is S.UNKNOWN


@pytest.mark.parametrize(
    ("code", "state", "named"),
    [
        (ErrorCode.SUBMISSION_UNKNOWN, S.UNKNOWN, None),
        (ErrorCode.SUBMISSION_UNKNOWN, S.CLASHED, None),
        (ErrorCode.NOT_FOUND, S.BOUND, None),
        (ErrorCode.TIMEOUT, S.BOUND, ["nature-01"]),
    ],
    ids=["unknown", "clashed", "lost", "named"],
)
def test_consent_pays_again_for_what_may_exist(ended, retry, storage, code, state, named):
    ended(code=code, state=state)
    retry(named, pay_again=True)
    assert job_of(storage).status is J.PENDING
    assert storage.submissions.get("intent-1").state is S.ABANDONED


def test_consent_does_not_throw_away_a_video_that_is_there(ended, retry, storage):
    ended(code=ErrorCode.TIMEOUT, state=S.BOUND)
    retry(pay_again=True)
    assert job_of(storage).status is J.GENERATING


def test_a_changed_request_is_a_new_payment(ended, retry, storage):
    ended(state=S.BOUND)
    reference = ReferenceRecord(digest="d", name="a", content_type="image/png", data=b"x")
    change = {"prompt": "a sea", "size": "10x10", "reference": {"digest": "d"}}
    retry(changes={"nature-01": change}, references=[reference])
    job = job_of(storage)
    assert (job.status, job.prompt, job.size, job.remote_id) == ("pending", "a sea", "10x10", None)
    assert storage.submissions.get("intent-1").state is S.ABANDONED
    assert storage.jobs.reference("d") == reference


def test_changed_params_and_files_join_those_of_the_job_and_null_takes_one_out(ended, retry, storage):
    ended(state=S.BOUND)
    own = {"a": {"file_id": "f"}, "c": {"digest": "e"}}
    before = {"seed": 3, "take": 2, "params": {"fps": 24, "steps": 9}, "files": own}
    storage.jobs.save([job_of(storage)._replace(options=before, made={"warnings": []})])
    change = {"params": {"fps": 30, "steps": None}, "files": {"b": {"digest": "d"}, "c": None}}
    reference = ReferenceRecord(digest="d", name="a", content_type="image/png", data=b"x")
    retry(changes={"nature-01": {"options": change}}, references=[reference])
    job = job_of(storage)
    files = {"a": {"file_id": "f"}, "b": {"digest": "d"}}
    assert job.options == {"seed": 3, "take": 2, "params": {"fps": 30}, "files": files}
    assert (job.remote_id, job.made) == (None, None)
    assert storage.submissions.get("intent-1").state is S.ABANDONED
    assert storage.jobs.drop_references(["d"]) == 0


def test_options_that_are_set_to_what_they_are_are_no_new_payment(ended, retry, storage):
    ended(state=S.BOUND)
    storage.jobs.save([job_of(storage)._replace(options={"seed": 3, "params": {"fps": 24}})])
    retry(changes={"nature-01": {"options": {"seed": 3, "params": {"fps": 24, "steps": None}}}})
    assert storage.submissions.get("intent-1").state is S.BOUND


@pytest.mark.parametrize(("value", "state"), [(1.0, S.BOUND), (True, S.ABANDONED)])
def test_true_is_another_value_than_one_and_a_number_in_another_spelling_is_not(ended, retry, storage, value, state):
    ended(state=S.BOUND)
    storage.jobs.save([job_of(storage)._replace(options={"params": {"audio": [{"on": 1}]}})])
    retry(changes={"nature-01": {"options": {"params": {"audio": [{"on": value}]}}}})
    assert storage.submissions.get("intent-1").state is state


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"params": {"b": "x" * 40_000}},
            r"\.params: must be at most 65536 bytes as JSON, the job's own params included",
        ),
        ({"params": {"mask": 1}}, r"\.params: contains mask, which is one of the job's files: omit it"),
        (
            {"files": {"a": {"file_id": "f"}}},
            r"\.files: contains a, which the job's params contain too: set it to null there",
        ),
        (
            {"files": {f"f{n}": {"file_id": "f"} for n in range(16)}},
            r"\.files: must have at most 16 entries, the job's own files included",
        ),
        ({"files": {"other": {"digest": "e"}}}, r"\.files: must total at most 64 MiB, and total 67108865 bytes"),
    ],
)
def test_what_a_change_adds_keeps_to_the_limits_of_a_request(ended, retry, storage, change, words):
    ended(state=S.BOUND)
    before = {"params": {"a": "x" * 40_000}, "files": {"mask": {"digest": "d"}}}
    storage.jobs.save([job_of(storage)._replace(options=before)])
    references = [ReferenceRecord("d", "a", "image/png", bytes(64 << 20)), ReferenceRecord("e", "a", "image/png", b"x")]
    with pytest.raises(InvalidRequest, match=rf"changes\.nature-01{words}"):
        retry(changes={"nature-01": {"options": change}}, references=references)
    assert job_of(storage).options == before
    assert storage.submissions.get("intent-1").state is S.BOUND


def test_a_change_that_changes_nothing_is_no_new_payment(ended, retry, storage):
    ended(state=S.BOUND)
    retry(changes={"nature-01": {"prompt": "lake 1", "size": None}})
    assert job_of(storage).status is J.GENERATING
    assert storage.submissions.get("intent-1").state is S.BOUND


@pytest.mark.parametrize("status", ["pending", "processing"])
def test_what_has_not_ended_is_not_retried(retry, storage, status):
    put(storage, a_batch(status=status))
    with pytest.raises(Conflict, match="wait for it to end, or cancel it"):
        retry()


@pytest.mark.parametrize(
    ("job_ids", "error", "words"),
    [
        (None, Conflict, "no job failed or was cancelled"),
        (["nature-01"], Conflict, "nature-01 is completed"),
        (["nature-09"], NotFound, "has no job 'nature-09'"),
        ([], InvalidRequest, "must name at least one job"),
    ],
)
def test_a_retry_of_nothing_is_refused(retry, storage, job_ids, error, words):
    put(storage, a_batch(status="completed", completed=1), [a_job(status=J.COMPLETED)])
    with pytest.raises(error, match=words):
        retry(job_ids)
    assert storage.journal.read("nature") == []


class Counted(str):  # noqa: SLOT000
    """An id that counts how often one is compared with another."""

    compared = 0
    __hash__ = str.__hash__

    def __eq__(self, other):
        Counted.compared += 1
        return str.__eq__(self, other)


def test_a_retry_that_names_many_jobs_and_changes_takes_no_more_time_for_each(retry, storage):
    """The only thread that writes does it."""
    count = 400
    failure = Failure(ErrorCode.TIMEOUT, "x").document()
    jobs = some_jobs(count, status=J.FAILED, error=failure)
    put(storage, a_batch(status="failed", failed=count, total=count), jobs)
    names = [Counted(job.id) for job in jobs]
    changes = {Counted(job.id): {"prompt": "anew"} for job in jobs}
    Counted.compared = 0
    assert retry(names * 5, changes) == [job.id for job in jobs]
    assert Counted.compared < 20 * count


def test_a_blanket_retry_that_leaves_many_jobs_alone_takes_no_more_time_for_each(retry, storage):
    codes = [ErrorCode.SUBMISSION_UNKNOWN, ErrorCode.TIMEOUT] * 100
    error = {code: Failure(code, "x").document() for code in codes}
    jobs = [a_job(number, status=J.FAILED, error=error[code]) for number, code in enumerate(codes, 1)]
    put(storage, a_batch(status="failed", failed=200, total=200), jobs)
    assert retry() == [job.id for job in jobs[1::2]]


# --- delete


@pytest.mark.parametrize("status", sorted(FINAL_BATCH))
def test_an_ended_batch_is_deleted_and_its_payments_are_remembered(do, storage, events, status):
    put(storage, a_batch(status=status, sequence=5), [a_job(status=J.FAILED)])
    bring(storage, a_job(), S.BOUND)
    do(delete, "nature", LATER)
    assert storage.batches.get("nature") is None
    assert [(event.name, event.sequence) for event in events()] == [("batch.deleted", "0000000006")]
    assert storage.submissions.holders(SERVER, ["video_1"]).keys() == {"video_1"}
    assert storage.submissions.live_of_batch("nature") == {}


@pytest.mark.parametrize("status", ["pending", "processing"])
def test_what_has_not_ended_is_not_deleted(do, storage, status):
    put(storage, a_batch(status=status))
    with pytest.raises(Conflict, match="cancel it first"):
        do(delete, "nature", LATER)
    assert storage.batches.get("nature") is not None
