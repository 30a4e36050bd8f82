from __future__ import annotations

import io
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from actors.cli.batch_files import read_request, sniff
from actors.errors import InvalidRequest

SEA = {"videos": [{"prompt": "Sea", "duration": 5}, {"prompt": "Sky"}], "batch_name": "Nature"}


def written(folder: Path, name: str, content: str | bytes) -> str:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def laughs(level: str) -> str:
    """A few lines that stand for billions of values: each holds the one above it ten times."""
    lines = [f"- &a{number} {level.format(', '.join([f'*a{number - 1}'] * 10))}" for number in range(1, 11)]
    return "\n".join(["- &a0 {prompt: Sea}", *lines])


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.json", '{"videos": [{"prompt": "Sea", "duration": 5}, "Sky"], "batch_name": "Nature"}', SEA),
        ("a.json", '[{"prompt": "Sea"}, "Sky"]', {"videos": [{"prompt": "Sea"}, {"prompt": "Sky"}]}),
        ("a.json", '{"prompt": "Sea"}', {"videos": [{"prompt": "Sea"}]}),
        ("a.json", '{"videos": [], "batchName": "x"}', None),
        ("a.yaml", "batch_name: Nature\nvideos:\n  - prompt: Sea\n    duration: 5\n  - Sky\n", SEA),
        ("a.yml", "- Sea\n- prompt: 2026-11-23\n", {"videos": [{"prompt": "Sea"}, {"prompt": "2026-11-23"}]}),
        ("a.yaml", "a: &a {size: 1x1}\nvideos: [{<<: *a, prompt: Sea}]",
         {"a": {"size": "1x1"}, "videos": [{"size": "1x1", "prompt": "Sea"}]}),
        ("a.txt", "# titles\n\n Sea \r\nSky\n", {"videos": [{"prompt": "Sea"}, {"prompt": "Sky"}]}),
        ("a.csv", "prompt,duration\nSea,5\n\nSky,\n", {"videos": [{"prompt": "Sea", "duration": "5"}, {"prompt": "Sky"}]}),
        ("a.csv", 'Prompt;inputReference;scene\n"Sea; calm";a.png;1\n',
         {"videos": [{"prompt": "Sea; calm", "input_reference": "a.png", "metadata": {"scene": "1"}}]}),
        ("a.csv", '\ufeffprompt\n"two\nlines"\n', {"videos": [{"prompt": "two\nlines"}]}),
        ("a.dat", '{"videos": ["Sea"]}', {"videos": [{"prompt": "Sea"}]}),
    ],
)  # fmt: skip
def test_every_format_gives_a_request(tmp_path: Path, name: str, content: str, expected: dict[str, Any] | None) -> None:
    source = written(tmp_path, name, content)
    if expected is None:
        with pytest.raises(InvalidRequest, match="holds no video"):
            read_request(source)
    else:
        assert read_request(source) == expected


def test_merges_of_merges_stand_for_no_more_than_they_hold(tmp_path: Path) -> None:
    with suppress(InvalidRequest):  # a PyYAML that writes each out
        assert read_request(written(tmp_path, "a.yaml", laughs("{{<<: [{}]}}")))["videos"] == [{"prompt": "Sea"}] * 11


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.json", '{"videos":\n ]', r"not JSON \(line 2, column 2"),
        ("a.json", "[NaN]", "NaN is no JSON value"),
        ("a.json", "[" * 100_000, "nested too deeply"),
        ("a.json", "[" + "9" * 5000 + "]", "too many digits"),
        ("a.json", "5", "not a single int"),
        ("a.yaml", "videos:\n  - [a\n", r"not YAML \(line 3, column 1"),
        ("a.yaml", "a: \x07", "not YAML"),
        ("a.yaml", "just words", "not a single str"),
        ("a.yaml", "[" * 100_000, "nested too deeply"),
        ("a.yaml", laughs("[{}]"), "aliases stand for more than"),
        ("a.yaml", laughs("!!omap [x: [{}]]"), "aliases stand for more than"),
        ("a.yaml", "- &a [*a]", "aliases stand for more than"),
        ("a.csv", "text,duration\nSea,5\n", "no `prompt` column.*'text', 'duration'"),
        ("a.csv", "prompt,size,size\nSea,1,2\n", "two `size` columns"),
        ("a.csv", "prompt,size\nSea, calm,5\n", "line 2 has 3 cells for 2 columns"),
        ("a.csv", 'prompt\n"Sea\n', r"not CSV \(line 2"),
        ("a.csv", "prompt\n", "holds no video"),
        ("a.txt", "# nothing\n", "holds no video"),
        ("a.txt", " \n", "is empty"),
        ("a.txt", b"ab\xff", "not UTF-8 .the byte 0xff at offset 2"),
        ("a.txt", b"\xef\xbb\xbfab\xff", "offset 5"),
    ],
)
def test_a_bad_file_is_named_with_what_is_wrong(
    tmp_path: Path, name: str, content: str | bytes, complaint: str
) -> None:
    source = written(tmp_path, name, content)
    with pytest.raises(InvalidRequest, match=complaint) as caught:
        read_request(source)
    assert source in str(caught.value)


def test_a_file_that_is_not_there_or_a_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="is not there"):
        read_request(str(tmp_path / "no.txt"))
    with pytest.raises(InvalidRequest, match="is a folder"):
        read_request(str(tmp_path))
    with pytest.raises(InvalidRequest, match="can't be read"):
        read_request("a\0b")


def test_prompts_come_after_those_of_the_file(tmp_path: Path) -> None:
    source = written(tmp_path, "a.txt", "Sea\n")
    assert read_request(source, ["Sky"]) == {"videos": [{"prompt": "Sea"}, {"prompt": "Sky"}]}
    assert read_request(None, ["Sky"]) == {"videos": [{"prompt": "Sky"}]}


def test_nothing_at_all_says_what_could_be_given() -> None:
    with pytest.raises(InvalidRequest, match="name a batch file"):
        read_request(None)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('{"videos": []}', "JSON"), ('\n["Sea"]', "JSON"), ("---\n- Sea", "YAML"), ("# a\nvideos:\n  - Sea", "YAML"),
        ("batchName: x\nvideos: [Sea]", "YAML"), ("- Sea\n- Sky", "YAML"), ("prompt,size\nSea,", "CSV"),
        ("size;prompt\n;Sea", "CSV"), ("Sea\nSky", "lines"), ("Sea, calm\nSky", "lines"), ("- Sea\nSky", "lines"),
        ("Noon: a street", "lines"),
    ],
)  # fmt: skip
def test_standard_input_is_recognized(text: str, kind: str) -> None:
    assert sniff(text) == kind


def test_standard_input_is_named_in_complaints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"{")))
    with pytest.raises(InvalidRequest, match="standard input: not JSON"):
        read_request("-")
