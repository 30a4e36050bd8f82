"""What is recorded of a finished video: a warning where the server made another one, and none where it did not."""

import json
from typing import Any

import pytest

from actors.sora.wire import parse_video
from actors.video.comparison import Measured, compare
from tests.builders import a_job


def compared(told: dict[str, Any], measured: Measured | None = None) -> dict[str, Any]:
    video = parse_video({"id": "v", "status": "completed", **told})
    assert video is not None
    asked = a_job(duration=8, size="1280x720")
    return compare(asked, video, measured) or {"reported": None, "warnings": []}


@pytest.mark.parametrize("size", ["1280X720", "1280 x 720", "1280\u00d7720", "1280*720", "01280x0720", "720p", "auto"])
def test_the_size_in_another_spelling_is_no_other_size(size: str) -> None:
    found = compared({"size": size})
    assert found["warnings"] == []
    assert found["reported"]["size"] == size


@pytest.mark.parametrize("size", ["854x480", "720x1280", "480p", "1280X721"])
def test_another_size_is_told(size: str) -> None:
    assert [warning["made"] for warning in compared({"size": size})["warnings"]] == [size]


@pytest.mark.parametrize(("told", "measured"), [({"seconds": "0"}, None), ({"seconds": -1}, None), ({}, 0.0)])
def test_a_length_that_no_video_has_says_nothing(told: dict[str, Any], measured: float | None) -> None:
    assert compared(told, Measured(measured, None))["warnings"] == []


def test_what_a_server_tells_without_end_is_cut() -> None:
    found = compared({"size": "9" * 1_000_000, "revised_prompt": "x" * 5_000_000})
    assert len(json.dumps(found)) < 40_000
    assert found["reported"]["revised_prompt"].endswith("x...")
