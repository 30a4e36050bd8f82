"""A request from a file, prompts, pictures and options: what counts where several say the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actors.batch.requests import BatchVideoRequest
from actors.cli.authoring import metadata_keys, parse_budget, parse_params, parse_timeout, requested
from actors.cli.batch_files import located
from actors.cli.options import Written
from actors.errors import InvalidRequest

PNG = b"\x89PNG\r\n\x1a\n"
Asked = Callable[..., dict[str, Any]]


@pytest.fixture
def asked(home: Path) -> Asked:
    """The request that options make, with the batch file's content if there is one."""

    def make(content: Any = None, **options: Any) -> dict[str, Any]:
        if content is not None:
            (home / "batch.json").write_text(json.dumps(content))
        request = requested(Written("batch.json" if content is not None else None, **{"prompts": None, **options}))
        BatchVideoRequest.parse(dict(request), max_size=100)
        return request

    return make


def pictures(home: Path, *names: str) -> None:
    (home / "shots").mkdir()
    for name in names:
        (home / "shots" / name).write_bytes(PNG)


def test_what_the_options_of_before_say_stands_in_each_video(asked: Asked) -> None:
    videos = [{"prompt": "Sea", "seconds": 4}, {"prompt": "Sky"}]
    assert asked(videos, duration=8, size="64x64", model="m") == {
        "videos": [
            {"prompt": "Sea", "seconds": 4, "size": "64x64", "model": "m"},
            {"prompt": "Sky", "duration": 8, "size": "64x64", "model": "m"},
        ]
    }


def test_what_the_new_options_say_are_defaults(asked: Asked) -> None:
    request = asked(prompts=["Sea"], seed="7", takes=3, params=["fps=24", "negative_prompt=blur"])
    assert request == {
        "videos": [{"prompt": "Sea"}],
        "defaults": {"seed": "7", "takes": 3, "params": {"fps": 24, "negative_prompt": "blur"}},
    }


def test_the_file_counts_more_than_options_and_these_more_than_the_file_of_defaults(asked: Asked, home: Path) -> None:
    (home / "house.yaml").write_text("seconds: 4\nsize: 32x32\ntakes: 2\nparams: {fps: 1, a: 1, b: 1}\nmodel: m\n")
    content = {"videos": ["Sea"], "defaults": {"duration": 12, "params": {"fps": 3}, "seed": None}}
    request = asked(content, defaults="house.yaml", duration=8, size="64x64", seed="random", params=["fps=2", "a=2"])
    assert request["videos"] == [{"prompt": "Sea", "size": "64x64"}]
    assert request["defaults"] == {
        "duration": 12, "size": "32x32", "takes": 2, "model": "m", "seed": "random", "params": {"fps": 3, "a": 2, "b": 1},
    }  # fmt: skip


def test_a_file_of_defaults_may_have_the_prompt(asked: Asked, home: Path) -> None:
    pictures(home, "a.png")
    (home / "house.json").write_text('{"prompt": "A boat", "inputReference": "b.png"}')
    request = asked(defaults="house.json", references=["shots/a.png"])
    assert request["videos"] == [{"metadata": {"input_reference": "a.png"}}]
    assert request["defaults"] == {"prompt": "A boat", "input_reference": "shots/a.png"}


def test_each_prompt_is_made_of_each_picture_in_their_order(asked: Asked, home: Path) -> None:
    pictures(home, "b.png", "a.png", ".hidden.png", "c.jpg")
    request = asked(prompts=["Sea", "Sky"], references=["shots/*.png", "shots/a.png"])
    assert request["videos"] == [
        {"prompt": prompt, "input_reference": f"shots/{name}", "metadata": {"input_reference": name}}
        for prompt in ("Sea", "Sky")
        for name in ("a.png", "b.png")
    ]


def test_a_video_of_a_file_that_names_a_picture_is_made_of_that_alone(asked: Asked, home: Path) -> None:
    pictures(home, "a.png", "b{x}.png")
    videos = [
        {"prompt": "Sea", "metadata": {"n": 1}},
        {"prompt": "Sky", "inputReference": "own.png"},
        {"prompt": "Fog", "size": "big"},
    ]
    defaults = {"metadata": {"d": 1}}
    with pytest.raises(InvalidRequest) as caught:
        asked({"videos": videos, "defaults": defaults}, references=["shots/*"])
    assert [error.field for error in caught.value.errors] == ["/videos/3/size", "/videos/4/size"]
    videos[2]["size"] = "64x64"
    request = asked({"videos": videos, "defaults": defaults, "matrix": {"m": [1]}}, references=["shots/*"])
    assert [(video["prompt"], video.get("metadata")) for video in request["videos"]] == [
        ("Sea", {"input_reference": "a.png", "n": 1}), ("Sea", {"input_reference": "b{{x}}.png", "n": 1}), ("Sky", None),
        ("Fog", {"input_reference": "a.png", "d": 1}), ("Fog", {"input_reference": "b{{x}}.png", "d": 1}),
    ]  # fmt: skip


def test_a_video_made_of_pictures_is_found_in_its_line_of_the_file(home: Path) -> None:
    pictures(home, "a.png", "b.png")
    (home / "a.csv").write_text("prompt,size\nSea,64x64\nSky,big\n")
    request = requested(Written("a.csv", None, references=["shots/*"]))
    with pytest.raises(InvalidRequest) as caught:
        BatchVideoRequest.parse(dict(request), max_size=9)
    assert "a.csv: videos[2].size: must be" in str(located(caught.value, request))
    assert "(got 'big') on line 3; " in str(located(caught.value, request))


def test_options_of_the_batch_count_more_than_its_file(asked: Asked) -> None:
    content = {"videos": ["Sea"], "batchName": "a", "metadata": {"x": 1}, "budget": {"amount": 1, "unit": "USD"}}
    request = asked(content, name="b", metadata=["team=blue"], concurrency=2, batch_id="c", budget="5 videos")
    del request["videos"]
    assert request == {
        "batch_name": "b", "metadata": {"x": 1, "team": "blue"}, "concurrency": 2, "id": "c",
        "budget": [{"amount": "5", "unit": "videos"}],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"takes": 0}, "--takes: must be 1 or more (got 0)"),
        ({"takes": 101}, "--takes: must be 100 or less (got 101)"),
        ({"seed": str(2**64)}, "--seed: must be a whole number from 0 to 9223372036854775807, or \"random\" (got '18446"),
        ({"params": ["prompt=x"]}, "--param: must not contain prompt: use the video's own field prompt"),
        ({"params": ["a=" + "x" * 66_560]}, "--param: must be at most 65536 bytes as JSON"),
        ({"params": ["fps"]}, "--param 'fps': expected NAME=VALUE, such as fps=24"),
        ({"params": ['a={"k": 1, "k": 2}']}, "--param 'a={\"k\": 1, \"k\": 2}': duplicate key 'k'"),
        ({"size": "big"}, "--size: must be <width>x<height> in pixels"),
        ({"defaults": "no.yaml"}, "'no.yaml' does not exist"),
        ({"defaults": "wrong.yaml"}, "wrong.yaml: defaults.promt: unknown field; did you mean prompt? (got 1)"),
        ({"budget": "20"}, "--budget '20': expected amounts with their units, such as '20 USD'"),
        ({"budget": "20 USD,"}, "--budget '20 USD,': expected amounts"),
        ({"references": ["shots/*.gif"]}, "--input-reference 'shots/*.gif' can't be used: it matches no file; check the pattern"),
        ({"references": ["gone.png"]}, "--input-reference 'gone.png' can't be used: No such file or directory"),
        ({"references": ["shots"]}, "--input-reference 'shots' can't be used: it is a folder; name files in it, such as 'shots/*.png'"),
        ({"references": ["a\0b"]}, "--input-reference 'a\\x00b' can't be used: "),
        ({"references": ["shots/*", "wrong.*"]}, "--input-reference 'wrong.yaml' can't be used: not an image, video or audio file"),
        ({"references": ["shots/a.png"], "prompts": []}, "--input-reference needs a prompt"),
    ],
)  # fmt: skip
def test_a_wrong_option_is_named(asked: Asked, home: Path, options: dict[str, Any], complaint: str) -> None:
    pictures(home, "a.png")
    (home / "wrong.yaml").write_text("promt: 1\n")
    with pytest.raises(InvalidRequest) as caught:
        asked(**{"prompts": ["Sea"], **options})
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ([{"prompt": "Sea", "input_reference": "x.png"}], "every video of the batch names its own picture"),
        (
            {"videos": ["Sea"], "defaults": {"input_reference": "x.png"}},
            "the defaults of the file already name a picture",
        ),
    ],
)
def test_pictures_that_no_video_would_be_made_of_are_refused(
    asked: Asked, home: Path, content: Any, complaint: str
) -> None:
    pictures(home, "a.png")
    with pytest.raises(InvalidRequest, match=complaint):
        asked(content, references=["shots/a.png"])


@pytest.mark.parametrize("content", [{"videos": 7}, {"videos": ["Sea"], "defaults": 7}, {"videos": [7]}])
def test_what_is_no_request_is_left_for_its_own_error(asked: Asked, content: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"(videos|defaults|videos\[0\]): must be"):
        asked(content, takes=2, params=["fps=24"])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("24", 24), ("3.5", 3.5), ("true", True), ("null", None), ('"24"', "24"), ('{"a": [1]}', {"a": [1]}), ("007", "007"),
        ("film noir", "film noir"), ("", ""), (" a=b ", " a=b "), ("NaN", "NaN"), ("[" * 100_000, "[" * 100_000),
        ("9" * 5000, "9" * 5000),
    ],
)  # fmt: skip
def test_a_param_is_json_where_it_parses_as_json(text: str, value: Any) -> None:
    assert parse_params([f"name={text}"]) == {"name": value}


def test_a_budget_has_amounts_and_units() -> None:
    assert parse_budget("20 USD, 30seconds,1 video") == [
        {"amount": "20", "unit": "USD"}, {"amount": "30", "unit": "seconds"}, {"amount": "1", "unit": "videos"},
    ]  # fmt: skip
    assert parse_budget(None) is None


def test_the_keys_of_metadata_are_those_of_videos_defaults_and_matrix(asked: Asked) -> None:
    content = {
        "videos": [{"prompt": "{c}", "metadata": {"a": 1}}],
        "defaults": {"metadata": {"b": 1}},
        "matrix": {"c": [1]},
    }
    assert sorted(metadata_keys(asked(content))) == ["a", "b", "c"]  # type: ignore[arg-type]


@pytest.mark.parametrize(("text", "milliseconds"), [("90s", 90_000), ("12h", 43_200_000), ("1500", 1500), ("0", 0)])
def test_the_time_limit_is_a_span_or_milliseconds_and_counts_more_than_the_files(
    asked: Asked, text: str, milliseconds: int
) -> None:
    assert asked({"timeoutMs": 5, "videos": [{"prompt": "Sea"}]}, timeout=text) == {
        "videos": [{"prompt": "Sea"}], "timeout_ms": milliseconds,
    }  # fmt: skip


@pytest.mark.parametrize("text", ["", "soon", "-1", "5x", "1.5h", "²"])
def test_a_time_limit_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"--timeout '.*': must be a duration \(500ms, 90s"):
        parse_timeout(text)
