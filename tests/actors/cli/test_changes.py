"""What `retry --set` changes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actors.cli.retry import parse_changes
from actors.errors import InvalidRequest
from actors.simulator import Simulator

PNG = b"\x89PNG\r\n\x1a\n"


def test_fields_and_single_members_change() -> None:
    pairs = [
        "2.params.fps=24", "2.params.lora.scale=0.5", "2.params.note=film noir", "2.params.steps=null", "2.seed=7",
        "nature-03.files.mask=a=b.png", "3.prompt=x.y=z", "3.files.audio=null", "3.inputReference=c.png",
    ]  # fmt: skip
    assert parse_changes("nature", pairs) == {
        "nature-02": {"params": {"fps": 24, "lora.scale": 0.5, "note": "film noir", "steps": None}, "seed": "7"},
        "nature-03": {"files": {"mask": "a=b.png", "audio": None}, "prompt": "x.y=z", "input_reference": "c.png"},
    }


@pytest.mark.parametrize(
    ("pair", "complaint"),
    [
        ("2.fps=24", "'fps' can't be changed; these can: prompt, duration, seconds, size, model, seed, input_reference, params.NAME, files.NAME"),
        ("2.fps=24", "; for a field of the server: --set 2.params.fps=24"),
        ("2.promt=x", "files.NAME; did you mean prompt?"), ("2.takes=2", "'takes' can't be changed; "), ("2.params=1", "'params' can't"),
        ("2.params.=1", "'params.' can't be changed"), ("2.metadata.a=1", "'metadata.a' can't be changed"),
        ('2.params.a={"k":1,"k":2}', "duplicate key 'k'"), (".seed=7", "expected JOB.FIELD=VALUE"), ("2.seed", "expected"),
    ],
)  # fmt: skip
def test_what_can_not_change_is_named_with_the_way_out(pair: str, complaint: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_changes("nature", [pair])
    assert str(caught.value).startswith(f"--set {pair!r}: ")
    assert complaint in str(caught.value)


def test_a_retry_sends_what_was_set(call: Callable[..., Any], server: Simulator, home: Path) -> None:
    (home / "mask.png").write_bytes(PNG)
    (home / "text.png").write_bytes(b"text")
    assert (
        call("run", "-p", "blood", "--param", "fps=12", "--param", "steps=9", "--seed", "3", "--id", "nature").exit_code
        == 1
    )
    assert call("retry", "nature", "--set", "1.seed=random").exit_code == 2
    refused = call("retry", "nature", "--set", "1.files.mask=text.png")
    assert (
        "files.mask: the input reference 'text.png' can't be used: not an image, video or audio file" in refused.stderr
    )
    sets = ["1.prompt=Sea", "1.params.fps=24", "1.params.steps=null", "1.seed=7", "1.files.mask=mask.png"]
    result = call("retry", "nature", "--json", *(word for each in sets for word in ("--set", each)))
    assert result.exit_code == 0, result.stderr
    (job,) = json.loads(result.stdout)["jobs"]
    assert (job["prompt"], job["seed"], job["params"]) == ("Sea", 7, {"fps": 24})
