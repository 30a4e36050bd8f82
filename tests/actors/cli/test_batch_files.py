from __future__ import annotations

import io
import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from actors.batch.requests import BatchVideoRequest
from actors.cli.batch_files import located, read_defaults, read_request
from actors.errors import InvalidRequest
from actors.formats.reading import sniff

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
        ("a.csv", 'Prompt;inputReference;metadata.Scene;;\n"Sea; calm";a.png;1;;\n',
         {"videos": [{"prompt": "Sea; calm", "input_reference": "FOLDER/a.png", "metadata": {"Scene": "1"}}]}),
        ("a.csv", ('prompt,seed,takes,Params.fps,params.lora,params.note,files.Mask,params.x\n'
                   'Sea,random,3,24,"{""a"": [1]}",film noir,m.png,null\n,,,,,,,NaN\n'),
         {"videos": [{"prompt": "Sea", "seed": "random", "takes": "3", "files": {"Mask": "FOLDER/m.png"},
                      "params": {"fps": 24, "lora": {"a": [1]}, "note": "film noir", "x": None}},
                     {"params": {"x": "NaN"}}]}),
        ("a.jsonl", '\ufeff{"prompt": "Sea", "seed": 7}\r\n\n"Sky"\n', {"videos": [{"prompt": "Sea", "seed": 7}, {"prompt": "Sky"}]}),
        ("a.ndjson", '{"prompt": "Sea"}', {"videos": [{"prompt": "Sea"}]}),
        ("a.dat", '{"prompt": "Sea"}\n{"prompt": "Sky"}\n', {"videos": [{"prompt": "Sea"}, {"prompt": "Sky"}]}),
        ("a.csv", "prompt,seconds\nSea,8\n", {"videos": [{"prompt": "Sea", "seconds": "8"}]}),
        ("a.csv", 'prompt,size\r\n"A\rB"\r\nSea\u2028calm\x85\x0b\x1cgrey,1x1\r\n',
         {"videos": [{"prompt": "A\rB"}, {"prompt": "Sea\u2028calm\x85\x0b\x1cgrey", "size": "1x1"}]}),
        ("a.json", '{"a": {"prompt": 1}, "b": {"prompt": 2}, "videos": [{"prompt": "x: {\\"prompt\\":"}, {"prompt": "y"}]}',
         {"a": {"prompt": 1}, "b": {"prompt": 2}, "videos": [{"prompt": 'x: {"prompt":'}, {"prompt": "y"}]}),
        ("a.yaml", "- &a {prompt: Sea, size: 1x1}\n- &b {<<: *a, size: 2x2}\n- {<<: [*b], prompt: Sky}\n- *a\n",
         {"videos": [{"prompt": "Sea", "size": "1x1"}, {"prompt": "Sea", "size": "2x2"},
                     {"prompt": "Sky", "size": "2x2"}, {"prompt": "Sea", "size": "1x1"}]}),
        ("a.csv", '\ufeffprompt\n"two\nlines"\n', {"videos": [{"prompt": "two\nlines"}]}),
        ("a.dat", '{"videos": ["Sea"]}', {"videos": [{"prompt": "Sea"}]}),
    ],
)  # fmt: skip
def test_every_format_gives_a_request(tmp_path: Path, name: str, content: str, expected: dict[str, Any] | None) -> None:
    source = written(tmp_path, name, content)
    if expected is None:
        with pytest.raises(InvalidRequest, match="contains no videos"):
            read_request(source)
    else:
        written_out = json.dumps(expected).replace("FOLDER", str(tmp_path))
        assert read_request(source) == json.loads(written_out)


def test_merges_of_merges_stand_for_no_more_than_they_hold(tmp_path: Path) -> None:
    with suppress(InvalidRequest):  # a PyYAML that writes each out
        assert read_request(written(tmp_path, "a.yaml", laughs("{{<<: [{}]}}")))["videos"] == [{"prompt": "Sea"}] * 11


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.json", '{"videos":\n ]', r"not JSON \(line 2, column 2"),
        ("a.json", "[NaN]", "NaN is not a JSON value"),
        ("a.json", "[" * 100_000, "nested too deeply"),
        ("a.json", "[" + "9" * 5000 + "]", "too many digits"),
        ("a.json", "5", "not a single int"),
        ("a.yaml", "videos:\n  - [a\n", r"not YAML \(line 3, column 1"),
        ("a.yaml", "a: \x07", "not YAML"),
        ("a.yaml", "just words", "not a single str"),
        ("a.yaml", "[" * 100_000, "nested too deeply"),
        ("a.yaml", laughs("[{}]"), "aliases expand to more than"),
        ("a.yaml", laughs("!!omap [x: [{}]]"), "aliases expand to more than"),
        ("a.yaml", "- &a [*a]", "aliases expand to more than"),
        ("a.csv", "text,duration\nSea,5\n", "no `prompt` column.*'text', 'duration'"),
        ("a.csv", "prompt,size,size\nSea,1,2\n", "two `size` columns"),
        ("a.csv", "prompt,metadata.a,Metadata.a\nSea,1,2\n", "two `metadata.a` columns"),
        (
            "a.csv",
            "prompt,duration,seconds\nSea,1,\n",
            "line 1: the columns `duration` and `seconds` are the same field",
        ),
        (
            "a.csv",
            "\nprompt,fps\nSea,24\n",
            "line 2: unknown column 'fps': to send .* params.fps; to keep .* metadata.fps; known columns: prompt, .*files.NAME",
        ),
        (
            "a.csv",
            "prompt,durration\nSea,24\n",
            r"unknown column 'durration': did you mean duration\? Otherwise: to send it",
        ),
        ("a.csv", "prompt,param.fps\nSea,24\n", r"unknown column 'param.fps': did you mean params.fps\?"),
        (
            "a.csv",
            'prompt,params.a\n\nSea,"{""k"": 1, ""k"": 2}"\n',
            r"line 3, params.a: duplicate key 'k' in one object \(line 3\)",
        ),
        ("a.csv", "prompt,Duration (s)\nSea,4\n", r"unknown column 'Duration \(s\)'"),
        ("a.csv", "prompt,metadata.\nSea,4\n", r"unknown column 'metadata\.'"),
        ("a.csv", "prompt,params.fps,params.fps\nSea,7,8\n", "two `params.fps` columns"),
        ("a.jsonl", '{"prompt": "Sea"}\n\n{"prompt": }\n', r"not JSON \(line 3, column 12"),
        ("a.jsonl", '"Sea"\n{"a": 1, "a": 2}\n', "duplicate key 'a' in one object \\(line 2\\):"),
        ("a.jsonl", '"Sea"\n7\n', r"line 2: expected a video \({...}\) or a prompt, not a single int"),
        ("a.jsonl", "\n\n", "is empty"),
        ("a.csv", "prompt,\nSea,\nSky,4\n", "line 3 has '4' in a column without a name"),
        ("a.csv", "prompt\nA lake\rSky\n", "line 2 contains a lone carriage return"),
        ("a.csv", '""\n', "it has no columns"),
        (
            "a.json",
            '{"videos": [\n{"prompt": "Sea",\n"prompt": "Sky"}]}',
            "key 'prompt' .*lines 2 and 3",
        ),
        (
            "a.json",
            '{"metadata": {"a": 1, "\\u0061": 2}, "videos": ["Sea"]}',
            "duplicate key 'a' in one object \\(line 1\\):",
        ),
        ("a.yaml", "- prompt: Sea\n  size: 1x1\n\n  prompt: Sky\n", "key 'prompt' .*lines 1 and 4"),
        ("a.yaml", "metadata: {1: a, 0x1: b}\nvideos: [Sea]\n", "duplicate key 1"),
        (
            "a.yaml",
            "a: &a {size: 1x1}\nvideos:\n- <<: *a\n  prompt: Sea\n  <<: *a\n",
            "key '<<' .*lines 3 and 5",
        ),
        ("a.csv", "prompt,size\nSea, calm,5\n", "line 2 has 3 cells for 2 columns"),
        ("a.csv", 'prompt\n"Sea\n', r"not CSV \(line 2"),
        ("a.csv", "prompt\n", "contains no videos"),
        ("a.txt", "# nothing\n", "contains no videos"),
        ("a.txt", " \n", "is empty"),
        ("a.txt", b"ab\xff", "not valid UTF-8 .byte 0xff at offset 2"),
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


@pytest.mark.parametrize("name", ["a.txt", "-"])
def test_lf_and_crlf_end_a_line_and_nothing_else_does(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = "\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e\r"
    prompts = [f"A lake{mark}calm, prompt by prompt" for mark in inside]
    text = "\ufeff" + "\r\n".join(prompts[:5]) + "\n" + "\n".join(prompts[5:])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    request = read_request("-" if name == "-" else written(tmp_path, name, text))
    assert [video["prompt"] for video in request["videos"]] == prompts


def test_comments_are_counted_aloud_and_a_hashtag_can_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = written(tmp_path, "a.txt", "# titles\n\\#sunset at sea\n\n#old\nSky\n")
    request = read_request(source)
    assert request == {"videos": [{"prompt": "#sunset at sea"}, {"prompt": "Sky"}]}
    output = capsys.readouterr()
    assert (output.out, output.err) == ("", f"sora-batch: {source}: skipped 2 comment lines\n")
    read_request(written(tmp_path, "a.txt", "Sea\n#1\n"))
    assert "skipped 1 comment line" in capsys.readouterr().err
    read_request(written(tmp_path, "a.yaml", "# a\n- Sea\n"))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.csv", 'prompt,seconds\n"two\nlines",8\n\nSea,ten\n', "videos[1].seconds: must be a whole number (got 'ten') on line 5"),
        ("a.txt", "# a\nSea\n" + "x" * 32_001, "videos[1].prompt: must have at most 32000 characters"),
        ("a.json", '[{"prompt": "Sea", "seconds": 8, "duration": 8}]', "videos[0].seconds: means the same as duration"),
        ("a.yaml", "- prompt: Sea\n  size: big\n", "videos[0].size: must be <width>x<height> in pixels, for example 1280x720 (got 'big') on line 2"),
        ("a.json", '{"batchName": 7,\n"videos": ["Sea", {"prompt": "Sky",\n "promt": 1}]}',
         "videos[1].promt: unknown field; did you mean prompt? (got 1) on line 3; batch_name: must be a string (got 7) on line 1"),
        ("a.yaml", "defaults:\n  takes: 0\nvideos: [Sea]\n", "defaults.takes: must be 1 or more (got 0) on line 2"),
        ("a.yaml", "prompt: Sea\nmatrix: {a: [1]}\n", "videos[0].matrix: unknown field; it is a field of the batch: put it next to videos (got {'a': [1]}) on line 2"),
        ("a.json", '{"prompt":\t"Sea",\n\t"size":\t"big"}', "videos[0].size: must be <width>x<height> in pixels, for example 1280x720 (got 'big') on line 2"),
        ("a.yaml", "id: a b\nprompt: Sea\nseed: -1\n", "videos[0].seed: must be a whole number from 0 to 9223372036854775807"),
        ("a.jsonl", '"Sea"\n\n{"size": "1x1"}', "videos[1].prompt: is required on line 3; videos[1].size: must be"),
        ("a.csv", "prompt,params.seed\nSea,7\n", "videos[0].params: must not contain seed: use the video's own field seed (got {'seed': 7}) on line 2"),
        ("a.csv", "prompt,takes\n,3\n", "videos[0].prompt: is required on line 2"),
        ("a.csv", 'prompt,takes\n\n"Sea\n\nSky",0\n', "videos[0].takes: must be 1 or more (got '0') on line 3"),
        ("a.json", '{"videos": ["Sea"],\n"batchName": "a",\n"batch_name": "b"}', "batch_name: is given twice, also as batchName: keep one on line 3"),
        ("a.yaml", "- prompt: Sea\n  input_reference: a.png\n  inputReference: b.png\n", "videos[0].input_reference: is given twice, also as inputReference: keep one on line 2"),
    ],
)  # fmt: skip
def test_a_field_that_is_wrong_is_named_with_the_file_and_its_line(
    tmp_path: Path, name: str, content: str, complaint: str
) -> None:
    source = written(tmp_path, name, content)
    request = read_request(source)
    with pytest.raises(InvalidRequest) as caught:
        BatchVideoRequest.parse(request, max_size=9)
    told = located(caught.value, request)
    assert str(told).startswith(f"{source}: {complaint}")
    assert [entry.field for entry in told.errors] == [entry.field for entry in caught.value.errors]


def test_paths_in_a_file_are_relative_to_it_and_nothing_else_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (
        "defaults: {inputReference: a.png, files: {mask: b/m.png, x: {file_id: f}}}\n"
        "videos:\n- &v {prompt: Sea, files: {mask: m.png}}\n- *v\n- prompt: Sky\n  input_reference: /abs.png\n"
        "- prompt: Air\n  input_reference: https://h/a.png\n- prompt: Fog\n  input_reference: 'data:image/png;base64,AA=='\n"
        "- Sun\n"
    )
    (tmp_path / "folder").mkdir()
    request = read_request(written(tmp_path / "folder", "a.yaml", text))
    folder = f"{tmp_path}/folder"
    assert request["defaults"] == {
        "inputReference": f"{folder}/a.png",
        "files": {"mask": f"{folder}/b/m.png", "x": {"file_id": "f"}},
    }
    assert [video.get("files") for video in request["videos"][:2]] == [{"mask": f"{folder}/m.png"}] * 2
    assert [video.get("input_reference") for video in request["videos"][2:]] == [
        "/abs.png", "https://h/a.png", "data:image/png;base64,AA==", None,
    ]  # fmt: skip
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert read_request("-")["defaults"]["inputReference"] == "a.png"


def test_a_file_of_defaults_is_json_or_yaml_and_its_paths_are_relative_to_it(tmp_path: Path) -> None:
    expected = {"duration": 8, "input_reference": f"{tmp_path}/a.png"}
    assert read_defaults(written(tmp_path, "a.yaml", "duration: 8\ninput_reference: a.png\n")) == expected
    assert (
        read_defaults(written(tmp_path, "a.json", json.dumps({"duration": 8, "input_reference": "a.png"}))) == expected
    )
    for content, complaint in (
        ("- 1\n", "expected an object with fields of a video"),
        ("a: 1\na: 2\n", "duplicate key"),
    ):
        with pytest.raises(InvalidRequest, match=complaint):
            read_defaults(written(tmp_path, "b.yaml", content))


def test_a_file_that_is_not_there_or_a_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="does not exist"):
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
    with pytest.raises(InvalidRequest, match="give a batch file"):
        read_request(None)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('{"videos": []}', "JSON"), ('\n["Sea"]', "JSON"), ("---\n- Sea", "YAML"), ("# a\nvideos:\n  - Sea", "YAML"),
        ("batchName: x\nvideos: [Sea]", "YAML"), ("- Sea\n- Sky", "YAML"), ("prompt,size\nSea,", "CSV"),
        ("size;prompt\n;Sea", "CSV"), ("Sea\nSky", "lines"), ("Sea, calm\nSky", "lines"), ("- Sea\nSky", "lines"),
        ("Noon: a street", "lines"), ('{"prompt": "Sea"}\n{"prompt": "Sky"}', "JSON Lines"), ('{"prompt": "Sea"}', "JSON"),
        ('{"prompt":\n"Sea"}', "JSON"), ("defaults:\n  size: 1x1", "YAML"), ("matrix: {a: [1]}\nprompt: x", "YAML"),
    ],
)  # fmt: skip
def test_standard_input_is_recognized(text: str, kind: str) -> None:
    assert sniff(text) == kind


def test_standard_input_is_named_in_complaints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"{")))
    with pytest.raises(InvalidRequest, match="standard input: not JSON"):
        read_request("-")
