"""Whose a listed video is, and what a listing proves."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.sora.matching import (
    Held,
    Listing,
    OpenIntent,
    absence_disproved,
    contradicts,
    in_falling_order,
    pair,
    reused,
)
from actors.sora.requests import VideoSpec
from actors.sora.wire import parse_video

SPEC = VideoSpec("a lake", "sora-2", 8, "1280x720")
START = 10_000.0
OURS = {"prompt": "a lake", "model": "sora-2", "seconds": "8", "size": "1280x720"}
HELD = Held(ours=True, made_until=START + 10, prompt=None, ended=True)
OLD = replace(HELD, made_until=START - 100)


def listed(remote_id, at=START + 5, **fields):
    return parse_video({"id": remote_id, "status": "queued", "created_at": at, **OURS, **fields})


def listing_of(*videos, complete=True, since=START - 1000, took=0.1, ahead=0.0, skew=0.0):
    return Listing(
        tuple(videos), since=since, complete=complete, began_at=START + 67, took=took, ahead=ahead, skew=skew
    )


def intent(name="one", at=START, *, spec=SPEC, in_flight=False):
    return OpenIntent(name, spec, at, at + 67, in_flight)


def paired(*videos, intents=1, held=(), **more):
    """The remote ids that so many equal intents get, the oldest first."""
    found = pair(listing_of(*videos, **more), set(held), [intent(str(number)) for number in range(intents)])
    return tuple(found[name] for name in sorted(found))


def disproved(*videos, held=(), made_any=True, spec=SPEC, **more):
    known = dict.fromkeys(held, HELD) if not isinstance(held, dict) else held
    return absence_disproved(listing_of(*videos, **more), intent(spec=spec), known, made_any=made_any)


# --- adoption


def test_a_video_that_only_we_can_have_asked_for_is_adopted():
    assert paired(listed("a")) == ("a",)


def test_the_fields_that_a_server_does_not_tell_are_wildcards():
    assert paired(listed("a", model=None, seconds=None, size=None, created_at=None)) == ("a",)


@pytest.mark.parametrize("field", ["prompt", "model", "seconds", "size"])
def test_a_field_that_is_told_otherwise_makes_it_somebody_elses(field):
    video = listed("a", **{field: "4" if field == "seconds" else "other"})
    assert contradicts(video, SPEC)
    assert paired(video) == ()


@pytest.mark.parametrize("seconds", [8, 8.0, "8", "8.0"])
def test_a_length_is_the_same_in_every_form(seconds):
    assert not contradicts(listed("a", seconds=seconds), SPEC)


def test_what_we_left_out_contradicts_nothing():
    assert not contradicts(listed("a", model="any", seconds=4, size="1x1"), VideoSpec("a lake", None, None, None))


def test_a_video_whose_prompt_is_not_told_is_given_to_nobody():
    assert paired(listed("a", prompt=None), held=["b"]) == ()
    assert paired(listed("a", prompt=None), listed("b"), intents=2) == ()


def test_more_videos_than_open_intents_are_given_to_nobody():
    assert paired(listed("a"), listed("b"), held=["c"]) == ()


def test_as_many_videos_as_open_intents_go_to_them_in_order_of_creation():
    videos = [listed("late", START + 9), listed("early", START + 1), listed("middle", START + 5)]
    assert paired(*videos, intents=3) == ("early", "middle", "late")


def test_fewer_videos_than_open_intents_go_to_the_first_ones():
    assert paired(listed("a"), intents=3) == ("a",)


def test_a_video_that_a_submission_holds_is_no_candidate():
    assert paired(listed("a"), listed("b"), held=["a"]) == ("b",)


def test_a_video_from_before_the_window_is_no_candidate():
    assert paired(listed("old", START - 2.1), listed("new", START - 1.9), skew=2.0) == ("new",)


def test_the_window_is_in_the_servers_time():
    assert paired(listed("old", START + 50), listed("new", START + 101), ahead=100.0) == ("new",)


def test_a_video_that_is_listed_on_two_pages_is_one():
    assert paired(listed("a"), listed("a")) == ("a",)
    assert paired(listed("a"), listed("a"), intents=2) == ("a",)


def test_a_video_without_an_id_can_not_be_adopted():
    assert paired(listed(None), listed("ours"), held=["ours"]) == ()


def test_twins_are_whatever_the_listing_can_not_tell_apart():
    """Two requests that differ in what the listing does not tell, and one that differs in what it does."""
    left_out = VideoSpec("a lake", None, None, None)
    other = VideoSpec("a lake", None, None, "720x1280")
    intents = [intent("one"), intent("two", START + 1, spec=left_out), intent("three", START + 2, spec=other)]
    found = pair(listing_of(listed("a", START + 3), listed("b", START + 4)), set(), intents)
    assert found == {"one": "a", "two": "b"}
    assert pair(listing_of(listed("a"), listed("b"), listed("c")), set(), intents) == {}
    assert pair(listing_of(listed("a", size="720x1280")), set(), intents) == {"two": "a"}


def test_nothing_is_adopted_while_the_answer_of_a_twin_may_tell():
    intents = [intent("one"), intent("two", START + 1, in_flight=True)]
    assert pair(listing_of(listed("a")), set(), intents) == {}
    later = [intent("one"), intent("two", START + 50, in_flight=True)]
    assert pair(listing_of(listed("a")), set(), later) == {"one": "a"}  # it can't have made this one


def test_an_intent_of_yesterday_does_not_take_what_one_of_today_has_made():
    intents = [intent("yesterday", START - 86_400), intent("today")]
    assert pair(listing_of(listed("a")), set(), intents) == {"today": "a"}
    assert pair(listing_of(listed("a")), set(), intents[:1]) == {"yesterday": "a"}  # it may have come late


# --- absence


def test_a_listing_that_shows_one_of_ours_and_no_candidate_proves_absence():
    assert disproved(listed("ours"), held=["ours"]) is None


def test_others_videos_that_contradict_the_request_do_not_hinder_the_proof():
    assert disproved(listed("ours"), listed("theirs", prompt="a dog"), held=["ours"]) is None


@pytest.mark.parametrize("field", ["model", "seconds", "size"])
def test_a_video_of_our_prompt_may_be_ours_whatever_the_server_made_of_the_rest(field):
    video = listed("a", **{field: "4" if field == "seconds" else "other"})
    assert "may be this one" in disproved(video, listed("ours"), held=["ours"])


@pytest.mark.parametrize("at", [START - 599, None])
def test_a_video_of_our_prompt_hinders_the_proof_from_ten_minutes_before_the_intent_on(at):
    assert "may be this one" in disproved(listed("a", at), listed("ours"), held=["ours"])
    assert disproved(listed("a", START - 601), listed("ours"), held=["ours"]) is None


def test_a_video_of_no_told_prompt_is_never_proved_to_be_somebody_elses():
    assert "may be this one" in disproved(listed("ours"), listed("a", prompt=None, size="1x1"), held=["ours"])


@pytest.mark.parametrize("told", [" a  lake\n", "A lake"])
def test_a_prompt_may_be_told_in_other_letters_and_spaces(told):
    assert "may be this one" in disproved(listed("ours"), listed("a", prompt=told), held=["ours"])


def test_a_long_prompt_may_be_told_in_part():
    spec = VideoSpec("a lake at dawn, with mist and two swans on it", None, None, None)
    assert disproved(listed("x"), listed("a", prompt="a lake at dawn, with mist and two..."), held=["x"], spec=spec)
    assert disproved(listed("x"), listed("a", prompt="a lake..."), held=["x"], spec=spec) is None


@pytest.mark.parametrize("more", [{"complete": False}, {"since": START - 599}])
def test_a_listing_that_was_not_read_far_enough_proves_nothing(more):
    assert "reach back" in disproved(listed("ours"), held=["ours"], **more)


def test_a_listing_that_was_kept_waiting_proves_nothing():
    assert "6 s to list" in disproved(listed("ours"), held=["ours"], took=6.0)


def test_a_listing_that_shows_none_of_the_videos_we_made_proves_nothing():
    assert "no video known to be ours" in disproved()
    assert "no video known to be ours" in disproved(listed("theirs", prompt="a dog"))


def test_a_video_that_another_key_made_does_not_show_that_ours_are_listed():
    theirs = replace(HELD, ours=False)
    assert disproved(listed("x"), held={"x": theirs})


def test_an_empty_listing_proves_absence_where_we_never_made_a_video():
    assert disproved(made_any=False) is None
    assert disproved(made_any=False, complete=False)


def test_a_first_video_is_not_proved_absent_by_somebody_elses():
    assert disproved(listed("theirs", prompt="a dog"), made_any=False)


def test_our_own_old_video_shows_that_it_is_the_server_we_know():
    assert disproved(listed("ours", START - 5000), held=["ours"]) is None


def test_an_id_whose_job_has_ended_may_have_been_given_again():
    """A server that counts from 1 after a restart, and does not tell when a video was made."""
    assert "may have reused the id 1" in disproved(listed("1", None), listed("2"), held=["1", "2"])
    assert disproved(listed("1", None, prompt="a dog"), listed("2"), held=["1", "2"]) is None


@pytest.mark.parametrize(("told", "doubtful"), [(START - 1, True), (START + 1, False)])
def test_a_video_of_this_prompt_that_was_told_before_the_intent_may_be_a_younger_one(told, doubtful):
    """The same prompt, twice within the seconds that clocks differ by, and a restart between."""
    held = {"1": replace(HELD, made_until=told)}
    why = disproved(listed("1", START - 3), held=held, skew=4.0)
    assert (why is not None) is doubtful
    assert disproved(listed("1", START - 5), held=held, skew=4.0) is None


def test_an_adopted_video_may_be_that_of_a_twin_whose_post_is_yet_to_be_admitted():
    held = {"twin": replace(HELD, doubtful=True), "ours": HELD}
    assert "may be this one" in disproved(listed("twin"), listed("ours"), held=held)
    assert disproved(listed("twin"), listed("ours"), held=["twin", "ours"]) is None


def test_an_id_is_given_again_if_its_video_is_younger_than_the_answer_that_told_it():
    assert reused(listing_of(listed("1", START)), {"1": OLD}) == "1"
    assert reused(listing_of(listed("1", START - 100)), {"1": OLD}) is None
    assert reused(listing_of(listed("1", START - 97), skew=4.0), {"1": OLD}) is None
    assert reused(listing_of(listed("1", None)), {"1": OLD}) is None


def test_an_id_is_given_again_if_its_video_has_another_prompt():
    asked = replace(HELD, prompt="a lake")
    assert reused(listing_of(listed("1", None, prompt="a dog")), {"1": asked}) == "1"
    assert reused(listing_of(listed("1", None, prompt="A  lake")), {"1": asked}) is None
    assert reused(listing_of(listed("1", None, prompt=None)), {"1": asked}) is None


videos = st.builds(
    listed,
    st.sampled_from(["a", "b", "c", "d", "e"]),
    st.one_of(st.none(), st.floats(START - 10, START + 10)),
    prompt=st.sampled_from(["a lake", "a dog", None]),
    size=st.sampled_from(["1280x720", "720x1280", None]),
)
specs = st.sampled_from([SPEC, VideoSpec("a lake", None, None, None), VideoSpec("a dog", None, None, None)])
intents = st.lists(st.tuples(specs, st.floats(START - 5, START + 5), st.booleans()), max_size=4)


@given(st.lists(videos, max_size=6), intents, st.sets(st.sampled_from("abcde")))
def test_nobody_gets_somebody_elses_video(found, given_intents, held):
    asked = [intent(str(n), at, spec=spec, in_flight=flies) for n, (spec, at, flies) in enumerate(given_intents)]
    result = pair(listing_of(*found), held, asked)
    assert len(set(result.values())) == len(result)
    assert not set(result.values()) & held
    by_id = {}
    for video in found:
        by_id.setdefault(video.id, []).append(video)
    for one in asked:
        if one.id in result:
            assert not one.in_flight
            video = by_id[result[one.id]][0]
            assert video.prompt == one.spec.prompt
            assert not contradicts(video, one.spec)
            assert video.created_at is None or video.created_at >= one.intended_at


@given(st.lists(videos, max_size=6), st.sets(st.sampled_from("abcde")), st.booleans(), st.booleans())
def test_absence_is_never_guessed(found, held, made_any, complete):
    if disproved(*found, held=held & {video.id for video in found}, made_any=made_any, complete=complete) is None:
        assert complete
        assert held & {video.id for video in found} or not (found or made_any)
        assert all(video.prompt == "a dog" for video in found if video.id not in held)


# --- order


@pytest.mark.parametrize(
    ("times", "falling"),
    [([], True), ([5], True), ([5, 5, 3], True), ([5, None, 3], True), ([3, 5], False), ([None, None], True)],
)
def test_a_page_is_newest_first_if_its_times_never_rise(times, falling):
    assert in_falling_order([listed(str(at), at) for at in times]) is falling
