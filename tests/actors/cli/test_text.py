from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.cli.database import parse_span
from actors.cli.filenames import SLUG_BYTES, SLUG_CHARACTERS, slug
from actors.cli.text import cells, clean, count, fold, shorten, shown_path, span
from actors.errors import InvalidRequest


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("A sunset over the ocean", "a-sunset-over-the-ocean"),
        ("  Café, at 8 o'clock!  ", "café-at-8-o-clock"),
        ("海上的日落", "海上的日落"),
        ("नमस्ते दुनिया", "नमस्ते-दुनिया"),
        ("../../etc/passwd", "etc-passwd"),
        ("🎬🎬", "video"),
        ("...", "video"),
    ],
)
def test_a_slug_keeps_letters_of_any_script_and_nothing_else(prompt: str, name: str) -> None:
    assert slug(prompt) == name


def test_a_long_slug_is_cut_between_words() -> None:
    name = slug("one two three four five six seven eight nine ten eleven twelve thirteen")
    assert name == "one-two-three-four-five-six-seven-eight-nine-ten-eleven"


@given(st.text())
def test_any_prompt_makes_a_file_name(prompt: str) -> None:
    name = slug(prompt)
    assert 0 < len(name) <= SLUG_CHARACTERS
    assert len(name.encode(errors="surrogatepass")) <= SLUG_BYTES
    assert not set(name) & set("/\\\0.\n")


@given(st.text())
def test_cleaned_text_can_not_steer_a_terminal(text: str) -> None:
    assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in clean(text))


def test_control_sequences_and_turned_writing_are_taken_out() -> None:
    assert clean("a\x1b[31mred\n\u202eb\x9b1m") == "a [31mred b 1m"


def test_a_shortened_line_says_that_it_goes_on() -> None:
    assert shorten("A sunset over the ocean", 10) == "A sunset…"


def test_a_wide_character_takes_two_columns() -> None:
    assert [cells(text) for text in ("Sea", "富士山", "é", "e\u0301", "🎬")] == [3, 6, 1, 1, 2]
    assert shorten("富士山と湖", 7) == "富士山…"
    assert shorten("富士山と湖", 8) == "富士山…"


@given(st.text(), st.integers(min_value=8, max_value=80))
def test_a_shortened_line_fits(text: str, width: int) -> None:
    assert cells(shorten(text, width)) <= width


def test_a_sentence_is_folded_between_words_and_never_within_a_command() -> None:
    text = (
        "stopped: 0 of 2 done. Resume: sora-batch resume nature --output 'my films'. Cancel: sora-batch cancel nature"
    )
    assert fold(text, 40).split("\n") == [
        "stopped: 0 of 2 done. Resume:",
        "sora-batch resume nature --output 'my films'.",
        "  Cancel: sora-batch cancel nature",
    ]
    assert fold("  ab  cd", 8) == "  ab  cd"


@pytest.mark.parametrize(("seconds", "text"), [(0.9, "0:00"), (67, "1:07"), (3723, "1:02:03")])
def test_a_span_is_written_as_a_clock_shows_it(seconds: float, text: str) -> None:
    assert span(seconds) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30d", timedelta(days=30)), ("12h", timedelta(hours=12)), ("90M", timedelta(minutes=90)),
        ("0s", timedelta(0)), ("2w", timedelta(weeks=2)),
    ],
)  # fmt: skip
def test_a_span_is_read_with_its_unit(text: str, expected: timedelta) -> None:
    assert parse_span(text) == expected


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "1.5h", "30 days", "999999999w"])
def test_what_is_no_span_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="not a duration"):
        parse_span(text)


def test_words_agree_with_their_number() -> None:
    assert [count(1, "video"), count(2, "video"), count(0, "batch")] == ["1 video", "2 videos", "0 batches"]


def test_a_path_elsewhere_is_shown_whole() -> None:
    assert shown_path("/elsewhere/a.mp4") == "/elsewhere/a.mp4"
