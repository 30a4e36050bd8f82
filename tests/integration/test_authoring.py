"""From what a person writes to what the server is sent and where the files lie: whole paths, as real processes."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.support import PATIENCE, ROOT, rows
from tests.provider.client import Provider

pytestmark = pytest.mark.integration

Run = Callable[..., subprocess.CompletedProcess[str]]
BOAT, EMPTY = (b"\x89PNG\r\n\x1a\n" + name for name in (b"boat", b"empty"))
CLIPS = """\
id: clips
defaults:
  duration: 8
  takes: 2
  seed: 7
  files: {last_frame: shots/empty.png}
  params: {fps: 24, negative_prompt: "blur, {style}"}
matrix:
  product: [cup, lamp/desk]
  style: [noir]
videos:
  - prompt: A {product}, {style}
    input_reference: shots/boat.png
"""


@pytest.fixture
def run(options: Callable[..., dict[str, Any]], tmp_path: Path) -> Run:
    """Call `sora-batch` as a process, in a folder with a folder of pictures beside the batch file."""
    folder = tmp_path / "here"
    (folder / "in" / "shots").mkdir(parents=True)
    for name, content in (("boat.png", BOAT), ("empty.png", EMPTY), ("notes.txt", b"text")):
        (folder / "in" / "shots" / name).write_bytes(content)
    settings = {name.upper(): str(value) for name, value in options(batch_max_size=90).items()}
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **settings}

    def called(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "actors.cli", *words], cwd=folder, env=environment, input=stdin,
            capture_output=True, text=True, check=False, timeout=PATIENCE,
        )  # fmt: skip

    return called


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "here"


def posts(provider: Provider) -> list[dict[str, Any]]:
    return [post["fields"] for post in provider.ledger()["posts"]]


def test_a_file_is_shown_created_resumed_and_delivered_under_the_names_that_were_asked_for(
    run: Run, folder: Path, provider: Provider, tmp_path: Path
) -> None:
    (folder / "in" / "clips.yaml").write_text(CLIPS)
    shown = run("create", "in/clips.yaml", "--dry-run", "--json")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert not list(tmp_path.glob("**/*.db"))
    created = run("create", "in/clips.yaml", "--quiet")
    assert (created.returncode, created.stdout, created.stderr) == (0, "clips\n", "")
    assert posts(provider) == []
    pattern = "{metadata.product}/{index:03} take {take} of {metadata.style}"
    made = run("resume", "clips", "--output", "films", "--filename", pattern, "--json")
    assert made.returncode == 0, made.stderr
    for name in ("prompt", "seed", "take", "params", "metadata", "duration"):
        asked = [job[name] for job in json.loads(shown.stdout)["jobs"]]
        assert asked == [job[name] for job in json.loads(made.stdout)["jobs"]]
    assert sorted(path.relative_to(folder / "films").as_posix() for path in folder.glob("films/*/*")) == [
        "cup/001 take 1 of noir.mp4", "cup/002 take 2 of noir.mp4",
        "lamp-desk/003 take 1 of noir.mp4", "lamp-desk/004 take 2 of noir.mp4",
    ]  # fmt: skip
    sent = sorted(posts(provider), key=lambda fields: (fields["prompt"], fields["seed"]))
    assert [(fields["prompt"], fields["seed"]) for fields in sent] == [
        ("A cup, noir", "7"), ("A cup, noir", "8"), ("A lamp/desk, noir", "7"), ("A lamp/desk, noir", "8"),
    ]  # fmt: skip
    for fields in sent:
        assert (fields["seconds"], fields["fps"], fields["negative_prompt"]) == ("8", "24", "blur, noir")
        assert fields["input_reference"]["sha256"] == hashlib.sha256(BOAT).hexdigest()
        assert fields["last_frame"]["sha256"] == hashlib.sha256(EMPTY).hexdigest()
    assert rows(tmp_path, "SELECT count(*) FROM input_references") == [(2,)]


def test_prompts_and_pictures_from_the_command_line(run: Run, folder: Path, provider: Provider) -> None:
    (folder / "house.yaml").write_text("params: {fps: 12, steps: 4}\nsize: 640x480\n")
    result = run(
        "run", "-p", "Pan left", "-p", "Pan right", "--input-reference", "in/shots/*.png", "--takes", "2", "--seed", "random",
        "--param", "fps=24", "--param", 'lora={"name": "film"}', "--defaults", "house.yaml", "-o", "films", "--json",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    jobs = json.loads(result.stdout)["jobs"]
    assert [(job["prompt"], job["metadata"], job["take"]) for job in jobs] == [
        (prompt, {"input_reference": name}, take)
        for prompt in ("Pan left", "Pan right") for name in ("boat.png", "empty.png") for take in (1, 2)
    ]  # fmt: skip
    assert [second["seed"] - first["seed"] for first, second in zip(jobs[::2], jobs[1::2], strict=True)] == [1] * 4
    assert [path.name for path in sorted((folder / "films").iterdir())][:3] == [
        "01-pan-left-take-1.mp4", "02-pan-left-take-2.mp4", "03-pan-left-take-1.mp4",
    ]  # fmt: skip
    for fields in posts(provider):
        assert (fields["size"], fields["fps"], fields["steps"], fields["lora"]) == (
            "640x480",
            "24",
            "4",
            '{"name": "film"}',
        )


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "prompt,seed,takes,params.fps,input_reference,files.last_frame\nSea,7,2,24,shots/boat.png,shots/empty.png\n"),
        ("a.jsonl", ('{"prompt": "Sea", "seed": 7, "takes": 2, "params": {"fps": 24}, "input_reference": "shots/boat.png", '
                     '"files": {"last_frame": "shots/empty.png"}}\n')),
    ],
)  # fmt: skip
def test_a_table_says_as_much_as_a_request(run: Run, folder: Path, provider: Provider, name: str, content: str) -> None:
    (folder / "in" / name).write_text(content)
    assert run("run", f"in/{name}", "--quiet").returncode == 0
    from_stdin = run("run", "-", "--quiet", stdin=content.replace("shots/", "in/shots/"))
    assert from_stdin.returncode == 0, from_stdin.stderr
    sent = posts(provider)
    assert sorted(fields["seed"] for fields in sent) == ["7", "7", "8", "8"]
    for fields in sent:
        assert (fields["prompt"], fields["fps"]) == ("Sea", "24")
        assert fields["input_reference"]["sha256"] == hashlib.sha256(BOAT).hexdigest()
        assert fields["last_frame"]["sha256"] == hashlib.sha256(EMPTY).hexdigest()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--filename", "{index} {}", "-o", "films"), "--filename '{index} {}': empty placeholder: use index, id,"),
        (("--filename", "{metadata.prodct}", "-o", "films"), "no video has 'prodct' in its metadata: use product, style"),
        (("--filename", "{index}"), "--filename needs a folder: give one with --output DIR"),
        (("--takes", "0"), "--takes: must be 1 or more (got 0)"),
        (("--param", "seed=1"), "--param: must not contain seed: use the video's own field seed"),
        (("--input-reference", "in/shots/*"), "--input-reference 'in/shots/notes.txt' can't be used: not an image, video or audio file"),
        (("--input-reference", "in/shots/*.png"), "every video of the batch names its own picture"),
    ],
)  # fmt: skip
def test_a_wrong_option_is_one_sentence_and_nothing_is_stored_or_sent(
    run: Run, folder: Path, provider: Provider, tmp_path: Path, words: tuple[str, ...], sentence: str
) -> None:
    (folder / "in" / "clips.yaml").write_text(CLIPS)
    result = run("run", "in/clips.yaml", *words)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert sentence in result.stderr
    assert posts(provider) == []
    assert not list(tmp_path.glob("**/*.db"))


def test_a_reference_that_vanished_or_is_no_picture_stops_the_batch_before_it_begins(
    run: Run, folder: Path, provider: Provider, tmp_path: Path
) -> None:
    for picture, reason in (("gone.png", "No such file"), ("shots/notes.txt", "not an image, video or audio file")):
        (folder / "in" / "clips.yaml").write_text(CLIPS.replace("shots/boat.png", picture))
        result = run("run", "in/clips.yaml")
        assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
        assert (
            f"in/clips.yaml: videos[0].input_reference: the input reference 'in/{picture}' can't be used: {reason}"
            in (result.stderr)
        )
    assert posts(provider) == []
    assert rows(tmp_path, "SELECT count(*) FROM batches") == [(0,)]
    assert rows(tmp_path, "SELECT count(*) FROM input_references") == [(0,)]


@pytest.mark.parametrize("name", ["many.yaml", "many.jsonl", "many.csv"])
def test_ten_thousand_videos_are_read_and_created_within_two_seconds(
    options: Callable[..., dict[str, Any]], tmp_path: Path, name: str
) -> None:
    """In a process of its own, by the time that it has on a processor, the best of three: others have the machine too."""
    lines = {
        "many.yaml": ("", "- prompt: A lake {0}\n  seed: {0}\n  params: {{fps: 24, steps: 4}}\n  metadata: {{shot: {0}}}\n"),
        "many.jsonl": ("", '{{"prompt": "A lake {0}", "seed": {0}, "params": {{"fps": 24}}, "metadata": {{"shot": {0}}}}}\n'),
        "many.csv": ("prompt,seed,params.fps,metadata.shot\n", "A lake {0},{0},24,{0}\n"),
    }  # fmt: skip
    head, line = lines[name]
    (tmp_path / name).write_text(head + "".join(line.format(number) for number in range(10_000)))
    settings = {key.upper(): str(value) for key, value in options(batch_max_size=10_000).items()}
    program = (
        "import time; from actors.cli.authoring import requested; from actors.cli.options import Written; from actors.service import BatchService\n"
        "with BatchService() as service:\n"
        "    times = []\n"
        "    while len(times) < 3 and min(times, default=2) >= 2:\n"
        "        began = time.process_time()\n"
        f"        batch = service.create_batch(requested(Written({name!r}, None)))\n"
        "        times.append(time.process_time() - began)\n"
        "    print(min(times), batch.progress.total)\n"
    )
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **settings}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    seconds, total = done.stdout.split()
    assert (float(seconds) < 2, total) == (True, "10000")
