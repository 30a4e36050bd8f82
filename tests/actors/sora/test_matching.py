"""Whose a listed video is, and what a listing proves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.sora.client import VideoSpec
from actors.sora.matching import NOTHING_PROVED, Listing, Verdict, contradicts, in_falling_order, judge
from actors.sora.wire import parse_video

SPEC = VideoSpec("a lake", "sora-2", 8, "1280x720")
START = 1000.0
OURS = {"prompt": "a lake", "model": "sora-2", "seconds": "8", "size": "1280x720"}


def listed(remote_id, at=START + 5, **fields):
    return parse_video({"id": remote_id, "status": "queued", "created_at": at, **OURS, **fields})


def ruling(*videos, intents=1, held=(), made_any=True, complete=True, spec=SPEC):
    listing = Listing(tuple(videos), complete=complete, window_start=START)
    return judge(listing, spec, open_intents=intents, held=set(held), made_any=made_any)


# --- adoption


def test_a_video_that_only_we_can_have_asked_for_is_adopted():
    assert ruling(listed("a")).adopted == ("a",)


def test_the_fields_that_a_server_does_not_tell_are_wildcards():
    video = listed("a", model=None, seconds=None, size=None, created_at=None)
    assert ruling(video).adopted == ("a",)


@pytest.mark.parametrize("field", ["prompt", "model", "seconds", "size"])
def test_a_field_that_is_told_otherwise_makes_it_somebody_elses(field):
    video = listed("a", **{field: "4" if field == "seconds" else "other"})
    assert contradicts(video, SPEC)
    assert ruling(video).adopted == ()


@pytest.mark.parametrize("seconds", [8, 8.0, "8", "8.0"])
def test_a_length_is_the_same_in_every_form(seconds):
    assert not contradicts(listed("a", seconds=seconds), SPEC)


def test_what_we_left_out_contradicts_nothing():
    assert not contradicts(listed("a", model="any", seconds=4, size="1x1"), VideoSpec("a lake", None, None, None))


def test_a_video_whose_prompt_is_not_told_is_given_to_nobody():
    assert ruling(listed("a", prompt=None), held=["b"]) == NOTHING_PROVED
    assert ruling(listed("a", prompt=None), listed("b"), intents=2) == NOTHING_PROVED


def test_more_videos_than_open_intents_are_given_to_nobody():
    assert ruling(listed("a"), listed("b"), held=["c"]) == NOTHING_PROVED


def test_as_many_videos_as_open_intents_go_to_them_in_order_of_creation():
    videos = [listed("late", START + 9), listed("early", START + 1), listed("middle", START + 5)]
    assert ruling(*videos, intents=3).adopted == ("early", "middle", "late")


def test_fewer_videos_than_open_intents_go_to_the_first_ones():
    assert ruling(listed("a"), intents=3).adopted == ("a",)


def test_a_video_that_a_submission_holds_is_no_candidate():
    assert ruling(listed("a"), listed("b"), held=["a"]).adopted == ("b",)


def test_a_video_from_before_the_window_is_no_candidate():
    assert ruling(listed("old", START - 0.1), listed("new", START)).adopted == ("new",)


def test_a_video_that_is_listed_on_two_pages_is_one():
    assert ruling(listed("a"), listed("a")).adopted == ("a",)
    assert ruling(listed("a"), listed("a"), intents=2).adopted == ("a",)


def test_a_video_without_an_id_can_neither_be_adopted_nor_be_nobodys():
    assert ruling(listed(None), listed("ours"), held=["ours"]) == NOTHING_PROVED


# --- absence


def test_a_listing_that_shows_one_of_ours_and_no_candidate_proves_absence():
    assert ruling(listed("ours"), held=["ours"]) == Verdict((), absent=True)


def test_others_videos_that_contradict_the_request_do_not_hinder_the_proof():
    assert ruling(listed("ours"), listed("theirs", prompt="a dog"), held=["ours"]).absent


@pytest.mark.parametrize("field", ["model", "seconds", "size"])
def test_a_video_of_our_prompt_may_be_ours_whatever_the_server_made_of_the_rest(field):
    video = listed("a", **{field: "4" if field == "seconds" else "other"})
    assert ruling(video, held=["ours"]) == NOTHING_PROVED


def test_a_video_of_no_told_prompt_is_never_proved_to_be_somebody_elses():
    assert ruling(listed("ours"), listed("a", prompt=None, size="1x1"), held=["ours"]) == NOTHING_PROVED


def test_what_may_be_ours_in_disguise_hinders_no_adoption():
    assert ruling(listed("a"), listed("b", size="1x1"), held=["ours"]) == Verdict(("a",), absent=False)


@pytest.mark.parametrize("told", [" a  lake\n", "A lake"])
def test_a_prompt_may_be_told_in_other_letters_and_spaces(told):
    assert ruling(listed("ours"), listed("a", prompt=told), held=["ours"]) == NOTHING_PROVED


def test_a_long_prompt_may_be_told_in_part():
    spec = VideoSpec("a lake at dawn, with mist and two swans on it", None, None, None)
    assert ruling(listed("a", prompt="a lake at dawn, with mist and two..."), held=["x"], spec=spec) == NOTHING_PROVED
    assert ruling(listed("x"), listed("a", prompt="a lake..."), held=["x"], spec=spec).absent


def test_a_listing_that_was_not_read_to_its_end_proves_nothing():
    assert not ruling(listed("ours"), held=["ours"], complete=False).absent


def test_a_listing_that_shows_none_of_the_videos_we_made_proves_nothing():
    assert not ruling().absent
    assert not ruling(listed("theirs", prompt="a dog")).absent


def test_an_empty_listing_proves_absence_where_we_never_made_a_video():
    assert ruling(made_any=False).absent
    assert not ruling(made_any=False, complete=False).absent


def test_a_first_video_is_not_proved_absent_by_somebody_elses():
    assert not ruling(listed("theirs", prompt="a dog"), made_any=False).absent


def test_an_adoption_proves_the_other_intents_absent_where_the_listing_can():
    assert ruling(listed("a"), listed("ours"), intents=2, held=["ours"]) == Verdict(("a",), absent=True)
    assert ruling(listed("a"), intents=2, complete=False, held=["x"]) == Verdict(("a",), absent=False)


def test_our_own_old_video_shows_that_it_is_the_server_we_know():
    assert ruling(listed("ours", START - 500), held=["ours"]).absent


videos = st.builds(
    listed,
    st.sampled_from(["a", "b", "c", "d", "e"]),
    st.one_of(st.none(), st.floats(START - 10, START + 10)),
    prompt=st.sampled_from(["a lake", "a dog", None]),
    size=st.sampled_from(["1280x720", "720x1280", None]),
)


@given(st.lists(videos, max_size=6), st.integers(1, 4), st.sets(st.sampled_from("abcde")), st.booleans(), st.booleans())
def test_nobody_gets_somebody_elses_video_and_absence_is_never_guessed(found, intents, held, made_any, complete):
    verdict = ruling(*found, intents=intents, held=held, made_any=made_any, complete=complete)
    assert len(set(verdict.adopted)) == len(verdict.adopted) <= intents
    assert not set(verdict.adopted) & held
    by_id = {}
    for video in found:
        by_id.setdefault(video.id, []).append(video)
    assert all(any(video.prompt == SPEC.prompt for video in by_id[remote_id]) for remote_id in verdict.adopted)
    if verdict.absent:
        assert complete
        unheld = [video for video in found if video.id not in held and (video.created_at or START) >= START]
        assert all(contradicts(video, SPEC) or video.id in verdict.adopted for video in unheld)


# --- order


@pytest.mark.parametrize(
    ("times", "falling"),
    [([], True), ([5], True), ([5, 5, 3], True), ([5, None, 3], True), ([3, 5], False), ([None, None], True)],
)
def test_a_page_is_newest_first_if_its_times_never_rise(times, falling):
    assert in_falling_order([listed(str(at), at) for at in times]) is falling
