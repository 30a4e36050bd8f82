"""`create`: recorded and not started; with --dry-run shown, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actors.service import BatchService
from actors.simulator import Simulator

Call = Callable[..., Any]
PNG = b"\x89PNG\r\n\x1a\n"
CLIPS = """\
id: clips
budget: {amount: 20, unit: USD}
metadata: {team: blue}
defaults:
  takes: 2
  seed: 7
  params: {fps: 24, negative_prompt: "{product} blur"}
  files: {last_frame: shots/b.png, mask: {file_id: file-1}}
matrix: {product: [cup, lamp]}
videos:
  - prompt: A {product}
    size: 640x480
    input_reference: shots/a.png
  - prompt: A drawn {product}
    seed: random
    input_reference: https://images.example/a.png
"""


@pytest.fixture
def clips(home: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("SORA_MODEL", "sora-2")
    monkeypatch.setenv("SORA_SECONDS", "4")
    monkeypatch.setenv("SORA_REFERENCE_HOSTS", "images.example")
    (home / "in" / "shots").mkdir(parents=True)
    for name in ("a.png", "b.png"):
        (home / "in" / "shots" / name).write_bytes(PNG)
    (home / "in" / "clips.yaml").write_text(CLIPS)
    return "in/clips.yaml"


def test_a_batch_is_recorded_and_not_started(call: Call, server: Simulator, home: Path) -> None:
    result = call(
        "create", "-p", "Sea", "--id", "nature", "--takes", "2", "--seed", "7", "-c", "5", "--budget", "9 videos"
    )
    assert (result.exit_code, result.stdout) == (0, "nature\n")
    assert result.stderr == "sora-batch: recorded 2 videos; start with: sora-batch resume nature\n"
    with BatchService() as service:
        batch = service.get_batch_status("nature")
    assert (batch.status, batch.concurrency, [job.seed for job in batch.jobs]) == ("pending", 5, [7, 8])
    again = call("create", "-p", "Sea", "--id", "nature", "--takes", "2", "--seed", "7", "-c", "5", "--json", "--quiet")
    assert json.loads(again.stdout) == batch.model_dump(mode="json")
    assert again.stderr == ""
    assert server.creates == 0
    assert call("resume", "nature").exit_code == 0
    assert server.creates == 2


def test_a_dry_run_shows_every_job_and_touches_nothing(call: Call, clips: str, home: Path) -> None:
    result = call("create", clips, "--dry-run", "--json", "--duration", "8")
    assert (result.exit_code, result.stderr) == (0, "")
    document = json.loads(result.stdout)
    jobs = document.pop("jobs")
    assert document == {
        "id": "clips", "name": None, "metadata": {"team": "blue"}, "concurrency": 3, "timeout_ms": 300_000,
        "budget": [{"amount": "20", "unit": "USD"}], "total": 8,
    }  # fmt: skip
    assert jobs[1] == {
        "index": 2, "prompt": "A cup", "duration": 8, "size": "640x480", "model": "sora-2", "seed": 8, "take": 2,
        "params": {"fps": 24, "negative_prompt": "cup blur"}, "input_reference": "a.png",
        "files": {"last_frame": "b.png", "mask": {"file_id": "file-1"}}, "metadata": {"product": "cup"},
    }  # fmt: skip
    assert [(job["prompt"], job["seed"], job["take"]) for job in jobs[4:]] == [
        ("A drawn cup", "random", 1), ("A drawn cup", "random", 2), ("A drawn lamp", "random", 1), ("A drawn lamp", "random", 2),
    ]  # fmt: skip
    assert jobs[4]["input_reference"] == "https://images.example/a.png"
    assert [path.name for path in home.iterdir()] == ["in"]


def test_what_a_dry_run_shows_is_what_is_created(call: Call, clips: str, home: Path) -> None:
    (home / "in" / "clips.yaml").write_text(CLIPS.partition("  - prompt: A drawn")[0])
    shown = json.loads(call("create", clips, "--dry-run", "--json").stdout)["jobs"]
    made = json.loads(call("create", clips, "--json").stdout)["jobs"]
    for name in ("index", "prompt", "duration", "size", "model", "seed", "take", "params", "metadata"):
        assert [job[name] for job in shown] == [job[name] for job in made]


def test_a_dry_run_can_be_read(call: Call, clips: str) -> None:
    lines = call("create", clips, "--dry-run").stdout.splitlines()
    assert lines[5:10] == [
        "2  A cup",
        "   4 s, 640x480, sora-2, seed 8, take 2",
        "   params: fps=24, negative_prompt=cup blur",
        '   files: input_reference=a.png, last_frame=b.png, mask={"file_id": "file-1"}',
        "   metadata: product=cup",
    ]
    assert lines[-1] == (
        "2 videos (4 with their takes) x 2 combinations = 8 videos, 3 at a time, at most 20 USD, "
        'metadata {"team": "blue"}; nothing was recorded or sent'
    )


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("takes: 2", "takes: 0"), "clips.yaml: defaults.takes: must be 1 or more (got 0) on line 5"),
        (("seed: 7", f"seed: {2**64}"), "clips.yaml: defaults.seed: must be a whole number from 0 to 9223372036854775807"),
        (("A {product}", "A {prodct}"), "videos[0].prompt: has the unknown placeholder {prodct}: did you mean {product}?"),
        (("A {product}", "A {} {product}"), "videos[0].prompt: has the unknown placeholder {}"),
        (("A {product}", "A {product"), "videos[0].prompt: has a single {"),
        (("[cup, lamp]", str(list(range(1000)))), "are too many, expected at most 10 videos (BATCH_MAX_SIZE)"),
        (("size: 640x480", "sise: 640x480"), "videos[0].sise: unknown field; did you mean size? (got '640x480') on line 12"),
        (("size: 640x480", "fps: 24"), 'put a server-specific field into params: {"fps": ...}'),
        (("fps: 24", "size: 1x1"), "defaults.params: must not contain size: use the video's own field size"),
        (("fps: 24", f"x: {'x' * 66_560}"), "defaults.params: must be at most 65536 bytes as JSON"),
        (("shots/a.png", "shots/gone.png"), "videos[0].input_reference: the input reference 'in/shots/gone.png' can't be used: No such"),
        (("shots/b.png", "clips.yaml"), "defaults.files.last_frame: the input reference 'in/clips.yaml' can't be used: not an image"),
        (("images.example", "other.example"), "the host 'other.example' is not in SORA_REFERENCE_HOSTS"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", [("create",), ("create", "--dry-run"), ("run", "--simulate")])
def test_what_is_wrong_is_one_sentence_and_nothing_is_stored(
    call: Call, clips: str, home: Path, command: tuple[str, ...], change: tuple[str, str], complaint: str
) -> None:
    text = (home / clips).read_text()
    assert change[0] in text
    (home / clips).write_text(text.replace(*change, 1))
    result = call(command[0], clips, *command[1:])
    assert result.exit_code == 2
    assert complaint in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    if home.joinpath("sora-batch.db").exists():
        with BatchService() as service:
            assert service.list_batches() == []


def test_a_pattern_that_fits_no_video_stops_a_resume_and_a_retry_before_they_begin(
    call: Call, server: Simulator
) -> None:
    call("create", "-p", "Sea", "--id", "nature")
    for words in (("resume", "nature"), ("retry", "nature")):
        result = call(*words, "-o", "films", "--filename", "{metadata.shot}")
        assert (result.exit_code, server.creates) == (2, 0)
        assert "no video has 'shot' in its metadata: their metadata is empty" in result.stderr
    assert call("resume", "nature", "--filename", "{id}").exit_code == 2
    made = call("resume", "nature", "-o", "films", "--filename", "{id} of {prompt}", "--quiet")
    assert made.stdout == "films/nature-01 of Sea.mp4\n"
