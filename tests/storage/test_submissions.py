"""Submissions: at most one live one a job, bound whatever happened, and never overwritten once they are settled."""

import peewee
import pytest

from storage.states import LIVE_SUBMISSION, UNRESOLVED, JobStatus, SubmissionState
from storage.submissions import Bind
from storage.urls import key_of, server_of
from tests.builders import NOON, PROVIDER, a_batch, a_job, an_intent, put

S = SubmissionState
FINAL = set(S) - LIVE_SUBMISSION


@pytest.fixture
def submissions(storage):
    return storage.submissions


@pytest.fixture
def standing_at(storage):
    """Stores a submission that stands at a state."""

    def make(state, intent_id="intent-1", job=None, **columns):
        storage.submissions.intend([an_intent(intent_id, job, **columns)])
        remote_id = f"video-{intent_id}" if state in (S.BOUND, S.FAILED, S.DELETED, S.SURPLUS) else None
        sql = "UPDATE submissions SET state=?, remote_id=? WHERE id=?"
        storage.database.execute(sql, (state.value, remote_id, intent_id))
        return storage.submissions.get(intent_id)

    return make


def test_an_intent_has_the_databases_time_and_nothing_else_happened_to_it(storage, submissions):
    submissions.intend([an_intent()])
    found = submissions.get("intent-1")
    assert abs(found.intended_at - storage.database.now()) < 5
    assert found == an_intent(intended_at=found.intended_at)


@pytest.mark.parametrize("state", sorted(LIVE_SUBMISSION))
def test_a_job_with_a_live_submission_gets_no_second_one(submissions, standing_at, state):
    standing_at(state)
    with pytest.raises(peewee.IntegrityError):
        submissions.intend([an_intent("intent-2", attempt=2)])
    assert [entry.id for entry in submissions.of_batch("nature")] == ["intent-1"]


@pytest.mark.parametrize("state", sorted(FINAL))
def test_a_job_whose_submission_is_settled_gets_another(submissions, standing_at, state):
    standing_at(state)
    submissions.intend([an_intent("intent-2", attempt=2)])
    assert submissions.live_of_batch("nature")["nature-01"].id == "intent-2"


def test_a_settled_submission_does_not_come_to_life_beside_a_new_one(submissions, standing_at):
    standing_at(S.ABSENT)
    submissions.intend([an_intent("intent-2", attempt=2)])
    assert submissions.bind("intent-1", "late") is Bind.RESOLVED
    assert (submissions.get("intent-1").state, submissions.get("intent-1").remote_id) == (S.SURPLUS, "late")


@pytest.mark.parametrize("state", sorted(UNRESOLVED))
def test_an_open_submission_is_bound(submissions, standing_at, state):
    standing_at(state)
    assert submissions.bind("intent-1", "video_1") is Bind.BOUND
    bound = submissions.get("intent-1")
    assert (bound.state, bound.remote_id, bound.adopted) == (S.BOUND, "video_1", False)
    assert bound.closed_at is not None


@pytest.mark.parametrize("state", [S.NOT_SENT, S.REFUSED, S.ABSENT, S.ABANDONED])
def test_an_answer_that_comes_late_is_kept_as_surplus(submissions, standing_at, state):
    standing_at(state)
    assert submissions.bind("intent-1", "video_1") is Bind.RESOLVED
    assert (submissions.get("intent-1").state, submissions.get("intent-1").remote_id) == (S.SURPLUS, "video_1")


@pytest.mark.parametrize("state", [S.BOUND, S.FAILED, S.DELETED, S.SURPLUS])
def test_a_video_that_is_known_is_never_replaced_by_another(submissions, standing_at, state):
    before = standing_at(state)
    assert submissions.bind("intent-1", "another") is Bind.RESOLVED
    assert submissions.get("intent-1") == before


def test_binding_twice_is_binding_once(submissions):
    submissions.intend([an_intent()])
    assert submissions.bind("intent-1", "video_1") is Bind.BOUND
    assert submissions.bind("intent-1", "video_1") is Bind.BOUND
    assert submissions.get("intent-1").state is S.BOUND


def test_an_adopted_video_is_marked(submissions):
    submissions.intend([an_intent()])
    submissions.bind("intent-1", "video_1", adopted=True)
    assert submissions.get("intent-1").adopted


def test_what_was_adopted_and_is_told_by_its_own_answer_is_ours(submissions):
    submissions.intend([an_intent()])
    submissions.bind("intent-1", "video_1", adopted=True)
    assert submissions.bind("intent-1", "video_1") is Bind.BOUND
    assert not submissions.get("intent-1").adopted


@pytest.mark.parametrize("provider", [PROVIDER, "http://server/v1/#another"])
def test_a_video_is_held_by_one_submission_of_its_server(submissions, standing_at, provider):
    standing_at(S.BOUND)
    elsewhere = an_intent("intent-3", a_job(3), provider="http://other/v1#key")
    submissions.intend([an_intent("intent-2", a_job(2), provider=provider), elsewhere])
    assert submissions.bind("intent-2", "video-intent-1") is Bind.HELD
    assert submissions.get("intent-2").state is S.INTENDED
    assert submissions.bind("intent-3", "video-intent-1") is Bind.BOUND
    standing_at(S.ABSENT, "intent-4", a_job(4))
    assert submissions.bind("intent-4", "video-intent-1") is Bind.HELD


def test_an_id_that_belongs_to_another_video_is_let_go_of(submissions, standing_at):
    standing_at(S.BOUND)
    submissions.let_go_of_id("intent-1", S.UNKNOWN)
    found = submissions.get("intent-1")
    assert (found.state, found.remote_id, found.former_remote_id) == (S.UNKNOWN, None, "video-intent-1")
    assert submissions.holder(found.server, "video-intent-1") is None


@pytest.mark.parametrize("state", S)
def test_what_a_post_met_is_written_down_while_its_outcome_is_open(submissions, standing_at, state):
    before = standing_at(state)
    submissions.unanswered("intent-1", "no answer: reset", timed_out=True)
    after = submissions.get("intent-1")
    if state in UNRESOLVED:
        assert (after.state, after.met, after.timed_out) == (S.UNKNOWN, "no answer: reset", True)
        assert after.closed_at is not None
    else:
        assert after == before


def _gives_way(before, after):
    if before in UNRESOLVED:
        return True
    return before in (S.BOUND, S.CLASHED) and after in (S.FAILED, S.DELETED, S.ABANDONED)


@pytest.mark.parametrize("before", S)
def test_a_final_outcome_is_never_overwritten(submissions, standing_at, before):
    for position, after in enumerate(set(S) - {S.BOUND}):
        found = standing_at(before, f"intent-{position}", a_job(position))
        submissions.settle(found.id, after, "why")
        settled = submissions.get(found.id)
        if _gives_way(before, after):
            assert (settled.state, settled.note, settled.remote_id) == (after, "why", found.remote_id)
            assert settled.closed_at is not None
        else:
            assert settled == found


def test_nothing_is_bound_by_settling(submissions):
    with pytest.raises(ValueError, match="remote id"):
        submissions.settle("intent-1", S.BOUND)


def test_settling_twice_keeps_the_first_time_and_note(submissions):
    submissions.intend([an_intent()])
    submissions.settle("intent-1", S.UNKNOWN, "no answer")
    first = submissions.get("intent-1")
    submissions.settle("intent-1", S.UNKNOWN)
    assert submissions.get("intent-1") == first


def test_a_note_changes_no_state(submissions, standing_at):
    standing_at(S.BOUND)
    submissions.annotate("intent-1", "DELETE: HTTP 405")
    assert (submissions.get("intent-1").state, submissions.get("intent-1").note) == (S.BOUND, "DELETE: HTTP 405")


def test_live_submissions_are_told_by_job(submissions, standing_at):
    for position, state in enumerate(S, 1):
        standing_at(state, f"intent-{position}", a_job(position))
    live = submissions.live_of_batch("nature")
    assert {entry.state for entry in live.values()} == LIVE_SUBMISSION
    assert all(entry.job_id == job_id for job_id, entry in live.items())


def test_open_intents_of_a_server_come_from_every_batch_and_key_in_order(storage, submissions, standing_at):
    keys = ["http://server/v1#one", "HTTP://Server:80/v1/#two", PROVIDER]
    for number, (batch_id, provider) in enumerate(zip(["one", "two", "three"], keys, strict=True)):
        standing_at(S.UNKNOWN, f"intent-{number}", a_job(batch_id=batch_id), provider=provider)
        sql = "UPDATE submissions SET intended_at=? WHERE id=?"
        storage.database.execute(sql, (NOON - number, f"intent-{number}"))
    standing_at(S.BOUND, "bound", a_job(batch_id="four"))
    standing_at(S.UNKNOWN, "elsewhere", a_job(batch_id="five"), provider="http://other/v1#key")
    found = submissions.unresolved("http://server/v1", 0.0, [])
    assert [entry.id for entry in found] == ["intent-2", "intent-1", "intent-0"]
    assert [entry.key_fingerprint for entry in found] == ["key", "two", "one"]
    found = submissions.unresolved("http://server/v1", NOON - 0.5, ["intent-2"])
    assert [entry.id for entry in found] == ["intent-2", "intent-0"]


@pytest.mark.parametrize("state", S)
def test_open_are_intents_that_nobody_has_resolved(submissions, standing_at, state):
    found = standing_at(state)
    assert submissions.unresolved("http://server/v1", 0.0, []) == ([found] if state in UNRESOLVED else [])


def test_what_the_version_before_writes_beside_us_is_known_too(submissions, standing_at):
    """It does not know of servers and fingerprints."""
    standing_at(S.UNKNOWN, server=None, key_fingerprint=None)
    standing_at(S.BOUND, "intent-2", a_job(2), server=None, key_fingerprint=None)
    (found,) = submissions.unresolved("http://server/v1", 0.0, [])
    assert (found.server, found.key_fingerprint) == ("http://server/v1", "key")
    assert submissions.holders("http://server/v1", ["video-intent-2"])["video-intent-2"].key_fingerprint == "key"


def test_held_are_the_videos_that_any_submission_at_the_server_has(submissions, standing_at):
    standing_at(S.BOUND, "a")
    standing_at(S.SURPLUS, "b", a_job(2), provider="http://server/v1#another")
    standing_at(S.BOUND, "c", a_job(3), provider="http://other/v1#key")
    asked = ["video-a", "video-b", "video-c", "video-d"]
    found = submissions.holders("http://server/v1", asked)
    assert {remote_id: entry.id for remote_id, entry in found.items()} == {"video-a": "a", "video-b": "b"}
    assert submissions.holders("http://server/v1", []) == {}


def test_we_made_a_video_there_only_if_one_has_an_id(submissions, standing_at):
    standing_at(S.UNKNOWN)
    assert not submissions.made_any("http://server/v1")
    submissions.bind("intent-1", "video_1")
    assert submissions.made_any("http://server/v1")
    assert not submissions.made_any("http://other/v1")


def test_the_tries_of_a_batch_move_with_its_server_and_keep_their_keys(submissions, standing_at):
    standing_at(S.BOUND)
    standing_at(S.BOUND, "other", a_job(1, "other"))
    assert submissions.move("nature", "http://server/v1", "https://new/v1#fresh")
    moved = submissions.get("intent-1")
    assert (moved.provider, moved.server, moved.key_fingerprint) == ("https://new/v1#key", "https://new/v1", "key")
    assert submissions.get("other").server == "http://server/v1"


def test_an_address_that_has_these_ids_already_is_another_server(submissions, standing_at):
    standing_at(S.BOUND)
    submissions.intend([an_intent("there", a_job(1, "other"), provider="https://new/v1#key")])
    submissions.bind("there", "video-intent-1")
    assert not submissions.move("nature", "http://server/v1", "https://new/v1#fresh")
    assert submissions.get("intent-1").server == "http://server/v1"


@pytest.mark.parametrize("state", S)
def test_only_an_open_outcome_is_given_up(submissions, standing_at, state):
    before = standing_at(state)
    assert submissions.give_up("intent-1", "nobody knows") is (state in UNRESOLVED)
    after = submissions.get("intent-1")
    assert after.state is (S.ABANDONED if state in UNRESOLVED else before.state)


def test_consent_lets_go_of_what_lives_and_of_nothing_else(submissions, standing_at):
    for position, state in enumerate(S, 1):
        standing_at(state, f"intent-{position}", a_job(position))
    standing_at(S.BOUND, "other", a_job(1, "other"))
    before = {entry.id: entry.state for entry in submissions.of_batch("nature")}
    submissions.abandon("nature", [f"nature-{position:02d}" for position in range(2, 99)])
    after = {entry.id: entry.state for entry in submissions.of_batch("nature")}
    assert after["intent-1"] is S.INTENDED
    let_go = {before[name] for name in before if after[name] is not before[name]}
    assert let_go == LIVE_SUBMISSION - {S.INTENDED}
    assert {after[name] for name in before if before[name] in let_go} == {S.ABANDONED}
    assert submissions.get("other").state is S.BOUND


def test_an_abandoned_video_keeps_its_id(submissions, standing_at):
    standing_at(S.BOUND)
    submissions.abandon("nature", ["nature-01"])
    assert submissions.get("intent-1").remote_id == "video-intent-1"
    assert submissions.holders("http://server/v1", ["video-intent-1"])


def test_what_nobody_can_resolve_hides_nothing_after_it(storage, submissions, standing_at):
    jobs = [a_job(number, status=JobStatus.FAILED) for number in (1, 2, 3)]
    put(storage, a_batch(total=3), jobs)
    for job in jobs:
        standing_at(S.UNKNOWN, f"intent-{job.position}", job)
    key = (server_of(PROVIDER), key_of(PROVIDER))
    (first,) = submissions.left_unknown(*key, [], 1)
    (second,) = submissions.left_unknown(*key, [first.id], 1)
    assert {first.id, second.id} | {each.id for each in submissions.left_unknown(*key, [first.id, second.id], 9)} == {
        "intent-1", "intent-2", "intent-3"
    }  # fmt: skip
    assert submissions.left_unknown(*key, ["intent-1", "intent-2", "intent-3"], 9) == []
