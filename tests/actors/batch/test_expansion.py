"""Defaults, matrix, takes and seeds: what a request becomes."""

import json
import tracemalloc
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.batch.factory import new_batch
from actors.batch.field_errors import BATCH_FIELDS, VIDEO_FIELDS
from actors.batch.fields import LARGEST_SEED
from actors.batch.job_views import Job
from actors.batch.requests import BatchVideoRequest, VideoDefaults, VideoRequest
from actors.errors import InvalidRequest
from actors.settings import Settings
from tests.builders import NOON

PICTURE = "data:image/png;base64,iVBORw0KGgo="


def batch_of(request, max_size=10_000, **settings):
    parsed = BatchVideoRequest.parse(request, max_size=max_size)
    return new_batch(parsed, Settings(_env_file=None, **settings), NOON)


def jobs_of(request, **settings):
    return batch_of(request, **settings).jobs


def jobs_with(**video):
    return jobs_of({"videos": [{"prompt": "a lake", **video}]})


def refused(request, max_size=10_000):
    with pytest.raises(InvalidRequest) as caught:
        batch_of(request, max_size)
    return caught.value


def digest_of(request, **settings):
    return batch_of(request, **settings).batch.digest


def test_the_names_that_advice_is_given_from_are_those_of_the_models():
    assert set(VIDEO_FIELDS) == set(VideoRequest.model_fields) == set(VideoDefaults.model_fields)
    assert set(BATCH_FIELDS) == set(BatchVideoRequest.model_fields)


# --- defaults


def test_defaults_say_what_a_video_does_not():
    first, second = jobs_of(
        {
            "videos": [{"prompt": "a"}, {"prompt": "b", "duration": 4, "model": "n", "metadata": {"own": 1}}],
            "defaults": {"seconds": 8, "model": "m", "size": "64x64", "seed": 5, "metadata": {"shared": 1}},
        },
        sora_model="settings",
    )
    assert (first.duration, first.model, first.size, first.seed, first.metadata) == (8, "m", "64x64", 5, {"shared": 1})
    assert (second.duration, second.model, second.size, second.seed) == (4, "n", "64x64", 5)
    assert second.metadata == {"own": 1}


def test_params_of_defaults_and_video_are_merged_key_by_key_and_null_leaves_one_out():
    first, second = jobs_of(
        {
            "videos": [{"prompt": "a"}, {"prompt": "b", "params": {"fps": 30, "negative_prompt": None, "x": [1]}}],
            "defaults": {"params": {"fps": 24, "negative_prompt": "blur"}},
        }
    )
    assert first.params == {"fps": 24, "negative_prompt": "blur"}
    assert second.params == {"fps": 30, "x": [1]}


def test_a_prompt_may_stand_in_the_defaults_alone():
    jobs = jobs_of({"videos": [{}, {"prompt": "own"}], "defaults": {"prompt": "usual"}})
    assert [job.prompt for job in jobs] == ["usual", "own"]
    assert [error.field for error in refused({"videos": [{}], "defaults": {"duration": 4}}).errors] == [
        "/videos/0/prompt"
    ]


def test_a_video_takes_the_takes_of_the_defaults_unless_it_says_its_own():
    jobs = jobs_of({"videos": [{"prompt": "a"}, {"prompt": "b", "takes": 1}], "defaults": {"takes": 2}})
    assert [(job.prompt, job.take) for job in jobs] == [("a", 1), ("a", 2), ("b", 1)]


def test_a_field_that_the_defaults_and_a_video_have_is_sent_once():
    files = {"prompt": "a", "files": {"mask": {"file_id": "f"}}}
    error = refused({"videos": [files], "defaults": {"params": {"mask": "text"}}})
    assert error.message == "videos[0].files: contains mask, which is also in params: give only one of them"
    (job,) = jobs_of({"videos": [files | {"params": {"mask": None}}], "defaults": {"params": {"mask": "text"}}})
    assert (job.params, list(job.files)) == ({}, ["mask"])


@pytest.mark.parametrize("field", ["input_reference", "files"])
def test_a_file_of_the_defaults_that_no_video_needs_is_named_by_its_place(field):
    def given(reference):
        return {field: {"mask": reference} if field == "files" else reference}

    error = refused({"videos": [{"prompt": "a", **given({"file_id": "f"})}], "defaults": given("/nowhere.png")})
    assert error.errors[0].field.startswith(f"/defaults/{field}")


def test_an_unknown_field_of_the_defaults_is_named_with_the_nearest_known_one():
    error = refused({"videos": [{"prompt": "a"}], "defaults": {"metdata": {}}})
    assert error.message == "defaults.metdata: unknown field; did you mean metadata? (got {})"


# --- matrix


def test_videos_come_first_then_the_matrix_with_its_first_name_slowest_then_takes():
    jobs = jobs_of(
        {
            "videos": [{"prompt": "{product}, {style}", "takes": 2}, {"prompt": "only {style}"}],
            "matrix": {"product": ["cup", "pen"], "style": ["noir", "pop"]},
        }
    )
    assert [(job.prompt, job.take) for job in jobs[:8]] == [
        (f"{product}, {style}", take) for product in ("cup", "pen") for style in ("noir", "pop") for take in (1, 2)
    ]
    assert [job.prompt for job in jobs[8:]] == ["only noir", "only pop", "only noir", "only pop"]
    assert jobs[2].metadata == {"product": "cup", "style": "pop"}
    assert [job.id for job in jobs] == [f"{jobs[0].batch_id}-{number:02d}" for number in range(1, 13)]


def test_the_values_of_the_matrix_are_filled_into_prompt_params_and_metadata():
    (job,) = jobs_of(
        {
            "videos": [
                {
                    "prompt": "{n} {{braces}} {x}",
                    "params": {
                        "fps": "{n}",
                        "text": "fps {n}",
                        "deep": [{"on": "{flag}", "{n}": 1}],
                        "flags": "a{flag}",
                    },
                    "metadata": {"note": "{x}-{n}", "number": "{n}"},
                }
            ],
            "matrix": {"n": [24], "x": ["y"], "flag": [True]},
        }
    )
    assert job.prompt == "24 {braces} y"
    assert job.params == {"fps": 24, "text": "fps 24", "deep": [{"on": True, "{n}": 1}], "flags": "atrue"}
    assert job.metadata == {"note": "y-24", "number": 24, "n": 24, "x": "y", "flag": True}


def test_braces_mean_nothing_without_a_matrix():
    (job,) = jobs_with(prompt="{x} {{y}} {", params={"t": "{x}"}, metadata={"{": "}"})
    assert (job.prompt, job.params, job.metadata) == ("{x} {{y}} {", {"t": "{x}"}, {"{": "}"})


@pytest.mark.parametrize(
    ("video", "field", "words"),
    [
        (
            {"prompt": "{stlye}"},
            "/videos/0/prompt",
            "unknown placeholder {stlye}: did you mean {style}? the matrix has style",
        ),
        ({"prompt": "{}"}, "/videos/0/prompt", "the matrix has style"),
        ({"prompt": "a { b"}, "/videos/0/prompt", "a single {: write {{ for a literal brace"),
        ({"prompt": "a } b"}, "/videos/0/prompt", "a single }: write }} for a literal brace"),
        ({"prompt": "a", "params": {"x": [["{y}"]]}}, "/videos/0/params", "{y}"),
        ({"prompt": "a", "metadata": {"x": "{y}"}}, "/videos/0/metadata", "{y}"),
        ({"prompt": "a", "metadata": {"style": 1}}, "/videos/0/metadata/style", "is also a name in the matrix"),
        ({"prompt": "a", "model": "{style}"}, "/videos/0/model", "can't contain {style}: placeholders work only in"),
        ({"prompt": "a", "input_reference": "{style}.png"}, "/videos/0/input_reference", "can't contain {style}"),
    ],
)
def test_what_is_wrong_with_a_template_is_said(tmp_path, monkeypatch, video, field, words):
    (tmp_path / "{style}.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    monkeypatch.chdir(tmp_path)
    error = refused({"videos": [video], "matrix": {"style": ["noir"]}})
    assert [entry.field for entry in error.errors] == [field]
    assert words in error.message


def test_what_is_wrong_with_a_template_of_the_defaults_is_said_of_the_defaults():
    error = refused({"videos": [{}], "defaults": {"prompt": "{x}"}, "matrix": {"y": [1]}})
    assert [entry.field for entry in error.errors] == ["/defaults/prompt"]


@pytest.mark.parametrize(
    ("matrix", "field"),
    [
        ({}, "/matrix"),
        ([], "/matrix"),
        ({"x": []}, "/matrix/x"),
        ({"x": "noir"}, "/matrix/x"),
        ({"x": [None]}, "/matrix/x/0"),
        ({"x": [{}]}, "/matrix/x/0"),
        ({"x": [float("nan")]}, "/matrix/x/0"),
        ({"x": [10**5000]}, "/matrix/x/0"),
        ({"": ["a"]}, "/matrix/"),
        ({"a{b": ["a"]}, "/matrix/a{b"),
    ],
)
def test_a_matrix_that_is_wrong_is_refused(matrix, field):
    assert [entry.field for entry in refused({"videos": [{"prompt": "a"}], "matrix": matrix}).errors] == [field]


def test_a_matrix_of_a_million_is_counted_and_not_made():
    numbers = list(range(1000))
    began = process_time()
    error = refused({"videos": [{"prompt": "{a}{b}"}] * 2, "matrix": {"a": numbers, "b": numbers}}, max_size=10)
    assert process_time() - began < 1
    assert "2 videos x 1000000 combinations = 2000000 videos" in error.message
    assert "at most 10 videos (BATCH_MAX_SIZE)" in error.message


def test_a_matrix_of_more_combinations_than_can_be_written_is_refused_in_words():
    error = refused({"videos": [{"prompt": "a"}], "matrix": {f"n{number}": [1, 2] for number in range(15_000)}})
    assert "more than 1000000000000 videos are too many" in error.message
    assert len(error.message) < 200


def test_what_a_short_request_stands_for_is_bounded():
    error = refused({"videos": [{"prompt": "x" * 32_000, "takes": 100}] * 100})
    assert "exceeds 64 MiB" in error.message


def test_what_is_filled_in_keeps_to_the_limits_of_its_field():
    long = {"x": ["y" * 20_000]}
    assert refused({"videos": [{"prompt": "{x}{x}"}], "matrix": long}).errors[0].field == "/videos/0/prompt"
    blank = {"videos": [{"prompt": "{x}"}], "matrix": {"x": [" "]}}
    assert refused(blank).errors[0].field == "/videos/0/prompt"
    params = {"prompt": "a", "params": {"a": ["{x}"] * 4}}
    assert refused({"videos": [params], "matrix": long}).errors[0].field == "/videos/0/params"


# --- takes and seeds


@pytest.mark.parametrize(
    "video",
    [
        {"prompt": "{x}" * 10_000},
        {"prompt": "a", "params": {"style": "{x}" * 20_000}},
        {"prompt": "a", "params": {"styles": ["{x}"] * 9000}},
        {"prompt": "a", "metadata": {"notes": ["{x}"] * 9000}},
    ],
    ids=["prompt", "params", "whole values", "metadata"],
)
def test_what_is_filled_in_is_refused_before_it_takes_memory(video):
    request = {"videos": [video], "matrix": {"x": ["y" * 100_000]}}  # of the size that a command may have
    tracemalloc.start()
    try:
        error = refused(request)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()
    assert "matrix values included" in str(error)
    assert error.errors[0].field == f"/videos/0/{list(video)[-1]}"


def test_takes_have_seeds_one_after_the_other():
    assert [(job.take, job.seed) for job in jobs_with(takes=3, seed=7)] == [(1, 7), (2, 8), (3, 9)]
    assert [(job.take, job.seed) for job in jobs_with(takes=2)] == [(1, None), (2, None)]
    assert [(job.take, job.seed, job.options) for job in jobs_with()] == [(1, None, None)]
    assert [job.seed for job in jobs_with(seed=0)] == [0]
    assert [job.seed for job in jobs_with(seed="12")] == [12]


def test_the_largest_seed_is_one_and_no_take_goes_beyond_it():
    assert [job.seed for job in jobs_with(seed=LARGEST_SEED - 1, takes=2)] == [LARGEST_SEED - 1, LARGEST_SEED]
    error = refused({"videos": [{"prompt": "a", "seed": LARGEST_SEED, "takes": 2}]})
    assert [entry.field for entry in error.errors] == ["/videos/0/seed"]


def test_a_random_seed_is_drawn_once_for_each_video_and_combination():
    request = {
        "videos": [{"prompt": "{x}", "seed": "random", "takes": 2}] * 2,
        "matrix": {"x": list(range(20))},
    }
    jobs = jobs_of(request)
    firsts = [job.seed for job in jobs if job.take == 1]
    assert all(second.seed == first.seed + 1 for first, second in zip(jobs[::2], jobs[1::2], strict=True))
    assert all(0 <= job.seed < 2**31 for job in jobs)
    assert len(set(firsts)) == len(firsts) == 40
    assert [job.seed for job in jobs_of(request)] != [job.seed for job in jobs]


# --- what is recorded


def test_a_job_shows_what_it_asks_for():
    job = Job.of(jobs_with(seed=3, takes=2, params={"fps": 24})[1])
    assert (job.seed, job.take, job.params, job.warnings, job.reported) == (4, 2, {"fps": 24}, [], None)


def test_the_digest_of_a_request_is_of_what_was_given_before_anything_is_drawn():
    request = {"videos": [{"prompt": "{x}", "seed": "random"}], "matrix": {"x": [1, 2]}, "defaults": {"takes": 2}}
    assert digest_of(request) == digest_of(request)
    assert digest_of(request) == digest_of(request | {"budget": {"amount": 3, "unit": "USD"}})
    for other in (
        {"matrix": {"x": [2, 1]}},
        {"defaults": {"takes": 3}},
        {"videos": [{"prompt": "{x}", "seed": 1}]},
        {"videos": [{"prompt": "{x}", "seed": "random", "params": {"fps": 1}}]},
        {"videos": [{"prompt": "{x}", "seed": "random", "files": {"mask": PICTURE}}]},
    ):
        assert digest_of(request | other) != digest_of(request), other


def test_the_order_of_the_names_of_a_matrix_counts():
    one, other = ({"videos": [{"prompt": "{a}{b}"}], "matrix": matrix} for matrix in (_matrix("ab"), _matrix("ba")))
    assert digest_of(one) != digest_of(other)


def _matrix(names):
    return {name: [1, 2] for name in names}


def test_a_request_without_the_newer_fields_has_the_digest_that_it_always_had():
    request = {"videos": [{"prompt": "a", "duration": 4}], "batch_name": "N", "metadata": {"a": 1}}
    assert digest_of(request) == "e0df47845b39a446ec23f580347f2a5f2a3c377a747ec04871a0948e90f09a24"


def test_a_file_counts_by_its_bytes_wherever_it_is_named(tmp_path):
    paths = [tmp_path / name for name in ("a.png", "b.png")]
    for path in paths:
        path.write_bytes(b"\x89PNG\r\n\x1a\nlake")
    one, other = (
        batch_of(
            {"videos": [{"prompt": "a"}], "defaults": {"input_reference": str(path), "files": {"mask": str(path)}}}
        )
        for path in paths
    )
    assert one.batch.digest == other.batch.digest
    assert len(one.references) == 1
    assert one.jobs[0].files == {"mask": one.jobs[0].reference}


def test_the_files_of_a_video_are_limited_together(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for number, path in enumerate(paths):
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes([number]) * (24 << 20))
    files = {path.stem: str(path) for path in paths}
    error = refused({"videos": [{"prompt": "a", "files": files}]})
    assert error.errors[0].field == "/videos/0/files"
    assert "must total at most 64 MiB" in error.message


def test_a_budget_is_kept_as_it_was_given():
    budget = [{"amount": 20, "unit": "USD"}, {"amount": "0.5", "unit": "seconds"}]
    assert batch_of({"videos": [{"prompt": "a"}], "budget": budget}).batch.budget == [
        {"amount": "20", "unit": "USD"},
        {"amount": "0.5", "unit": "seconds"},
    ]
    assert len(batch_of({"videos": [{"prompt": "a"}], "budget": budget[0]}).batch.budget) == 1
    for wrong, field in (
        ({"amount": 0, "unit": "USD"}, "/budget/0/amount"),
        ({"amount": True, "unit": "USD"}, "/budget/0/amount"),
        ({"amount": 1, "unit": "usd"}, "/budget/0/unit"),
        ([{"amount": 1, "unit": "USD"}] * 2, "/budget"),
    ):
        assert [entry.field for entry in refused({"videos": [{"prompt": "a"}], "budget": wrong}).errors] == [field]


def test_the_largest_request_is_expanded_within_two_seconds():
    request = {
        "videos": [{"prompt": "{a} of {b}", "params": {"fps": 24, "negative_prompt": "blur {a}"}, "seed": "random"}],
        "defaults": {"takes": 100, "metadata": {"campaign": "spring"}},
        "matrix": {"a": list(range(10)), "b": [str(number) for number in range(10)]},
    }
    began = process_time()
    assert len(jobs_of(request)) == 10_000
    assert process_time() - began < 2


@given(st.text(max_size=50))
def test_a_text_with_its_braces_doubled_is_the_text(text):
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    if "\0" in text or not text.strip():
        return
    doubled = text.replace("{", "{{").replace("}", "}}")
    (job,) = jobs_of({"videos": [{"prompt": doubled, "params": {"x": doubled}}], "matrix": {"unused": [1]}})
    assert job.prompt == job.params["x"] == text
    json.dumps(job.params)
