"""Reads a batch as people write it down: JSON, YAML, CSV, or one prompt a line.

Owns the formats, and saying what is wrong with a file. What a request may hold, `actors.batch.requests` says.
"""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actors.cli.options import warn
from actors.cli.text import count
from actors.errors import FieldError, InvalidRequest

if TYPE_CHECKING:
    import yaml

STDIN = "-"
_SENTENCES_MAX = 5
"""More would not be read at once."""
_MOST_VALUES = 1_000_000
_MERGE = "tag:yaml.org,2002:merge"
_COLUMNS = {name: name for name in ("prompt", "duration", "seconds", "size", "model", "input_reference")}
_SPELLINGS = _COLUMNS | {"inputreference": "input_reference"}
_METADATA = "metadata."
_RESERVED = ("seed", "takes", "params.", "files.")
"""They have a meaning that no version has yet: kept as metadata, they would have another one then."""
_JSON_PART = re.compile(r'"((?:[^"\\]|\\.)*)"(\s*:)?|[{}]', re.DOTALL)
_FORMATS = {".json": "JSON", ".yaml": "YAML", ".yml": "YAML", ".csv": "CSV", ".txt": "lines"}
_REQUEST_KEY = re.compile(
    r"\s*[\"']?(videos|prompt|batch_?name|metadata|id|concurrency|timeout_?ms)[\"']?\s*:", re.IGNORECASE
)


class Request(dict[str, Any]):
    """What a file asks for, not validated yet."""

    source: str | None = None
    lines: Sequence[int] = ()
    """Where each of its first videos stands, if every video has a line of its own."""


def read_request(source: str | None, prompts: Iterable[str] = ()) -> Request:
    """The request that a file (or `-`, standard input) holds, followed by one video for each of `prompts`.

    Raises:
        InvalidRequest: it can't be read; the text names the file, what is wrong and the way out.
    """
    request = Request(videos=[]) if source is None else _read(source)
    request.source = source
    more = [{"prompt": prompt} for prompt in prompts]
    if more and isinstance(request.get("videos"), list):
        request["videos"] += more
    if not request.get("videos", True):
        raise InvalidRequest(
            f"{_name(source)} holds no video: write at least one prompt"
            if source is not None
            else "nothing to make: name a batch file, - for standard input, or a prompt with -p"
        )
    return request


def complete(request: Request, defaults: dict[str, Any]) -> None:
    """Give the videos what they do not say themselves."""
    given = {key: value for key, value in defaults.items() if value is not None}
    videos = request.get("videos")
    if given and isinstance(videos, list):
        request["videos"] = [_completed(video, given) if isinstance(video, dict) else video for video in videos]


def _completed(video: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    if "seconds" in video:  # the same field by its other name
        given = {key: value for key, value in given.items() if key != "duration"}
    return given | video


def override(request: Request, given: dict[str, Any], metadata: dict[str, str]) -> None:
    """Let what was given besides the file count more than what the file says of the batch."""
    if given["batch_name"] is not None:
        request.pop("batchName", None)
    request |= {key: value for key, value in given.items() if value is not None}
    if metadata and isinstance(request.setdefault("metadata", {}), dict):
        request["metadata"] = request["metadata"] | metadata


def located(error: InvalidRequest, request: Request) -> InvalidRequest:
    """Say in which file it is, and in which of its lines."""
    if request.source is None:
        return error
    errors = tuple(_in_line(entry, request.lines) for entry in error.errors)
    message = error.message if errors == error.errors else "; ".join(entry.message for entry in errors[:_SENTENCES_MAX])
    return InvalidRequest(f"{_place(request.source)}: {message}", errors)


def _in_line(error: FieldError, lines: Sequence[int]) -> FieldError:
    match = re.match(r"/videos/(\d+)(?:/|$)", error.field)
    if match is None or int(match[1]) >= len(lines):
        return error
    return replace(error, message=f"{error.message} in line {lines[int(match[1])]}")


def _place(source: str) -> str:
    return "standard input" if source == STDIN else source


def _read(source: str) -> Request:
    text = _text(source)
    if not text.strip():
        raise InvalidRequest(f"{_name(source)} is empty: write at least one prompt into it")
    kind = _FORMATS.get(Path(source).suffix.lower()) if source != STDIN else None
    kind = kind or sniff(text)
    try:
        request = _READERS[kind](text)
    except _Unreadable as error:
        raise InvalidRequest(f"{_name(source)}: {error}") from None
    comments = sum(map(_is_comment, split_lines(text))) if kind == "lines" else 0
    if comments:
        warn(f"{_place(source)}: {count(comments, 'comment line')} skipped")
    return request


def _name(source: str | None) -> str:
    return "standard input" if source == STDIN else f"the batch file {source!r}"


def _text(source: str) -> str:
    try:
        data = sys.stdin.buffer.read() if source == STDIN else Path(source).read_bytes()
    except FileNotFoundError:
        raise InvalidRequest(f"{_name(source)} is not there: check its name, or give a prompt with -p") from None
    except IsADirectoryError:
        raise InvalidRequest(f"{_name(source)} is a folder: name a file in it") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidRequest(f"{_name(source)} can't be read: {reason}; check the file and its permissions") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        offset = error.start + (3 if data.startswith(b"\xef\xbb\xbf") else 0)
        raise InvalidRequest(
            f"{_name(source)} is not UTF-8 (the byte 0x{data[offset]:02x} at offset {offset}): save it as UTF-8"
        ) from None


class _Unreadable(Exception):
    """What is wrong, and the way out."""


_TOO_MUCH = _Unreadable(f"its aliases stand for more than {_MOST_VALUES} values: write out what you mean")


def split_lines(text: str) -> list[str]:
    """LF or CRLF end a line, nothing else does: a prompt may hold what others take for the end of one."""
    return [line.removesuffix("\r") for line in text.split("\n")]


def _is_comment(line: str) -> bool:
    return line.lstrip().startswith("#")


def sniff(text: str) -> str:
    """Which format a text without a telling name has."""
    lines = [line for line in split_lines(text) if line.strip() and not _is_comment(line)]
    first = lines[0] if lines else ""
    if first.lstrip().startswith(("{", "[")):
        return "JSON"
    if first.strip() == "---" or _REQUEST_KEY.match(first) or all(line.startswith(("- ", "  ")) for line in lines):
        return "YAML"
    return "CSV" if "prompt" in _cells(first, _delimiter(first)) else "lines"


def _json(text: str) -> Request:
    def refuse(constant: str) -> None:
        raise _Unreadable(f"{constant} is no JSON value: write a number, or null")

    try:
        document = json.loads(text, parse_constant=refuse)
        _refuse_doubled_keys(text)
        return _request(document)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise _Unreadable(f"not JSON ({place}: {error.msg}): mend it, or name the file for what it is") from None
    except RecursionError:
        raise _Unreadable("nested too deeply to be read: write a list of videos") from None
    except ValueError:
        raise _Unreadable("a number in it has too many digits: shorten it") from None


def _refuse_doubled_keys(text: str) -> None:
    """Find a key that stands twice in one object of valid JSON: the parser would keep the last one alone."""
    objects: list[dict[str, int]] = []
    for part in _JSON_PART.finditer(text):
        if part[0] == "{":
            objects.append({})
        elif part[0] == "}":
            objects.pop()
        elif part[2]:
            key = json.loads(f'"{part[1]}"')
            first = objects[-1].setdefault(key, part.start())
            if first != part.start():
                raise _doubled(key, *(text.count("\n", 0, place) + 1 for place in (first, part.start())))


def _doubled(key: Any, first: int, second: int) -> _Unreadable:
    where = f"line {first}" + (f" and again in line {second}" if second != first else "")
    return _Unreadable(f"the key {key!r} stands twice in one object, in {where}: remove one, or begin another object")


def _yaml(text: str) -> Request:
    import yaml

    try:
        document = yaml.load(text, _yaml_loader())  # noqa: S506  (a SafeLoader)
        _check_size(document)
        return _request(document)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise _Unreadable(f"not YAML ({place}{error.problem}): mend it, or name the file for what it is") from None
    except yaml.YAMLError as error:
        raise _Unreadable(f"not YAML ({' '.join(str(error).split())}): mend it") from None
    except RecursionError:
        raise _Unreadable("nested too deeply to be read: write a list of videos") from None
    except (ValueError, TypeError) as error:
        raise _Unreadable(f"a value in it can't be read ({error}): mend it, or put it in quotes") from None


def _yaml_loader() -> type[yaml.SafeLoader]:
    import yaml

    class Loader(yaml.SafeLoader):
        """YAML's plain values without its dates, which JSON has not, and each key once."""

        def get_single_node(self) -> yaml.Node | None:
            """Look for doubled keys before merges mix them with those that they may override."""
            root = super().get_single_node()
            known: set[int] = set()
            rest = [root]
            while rest:
                node = rest.pop()
                if isinstance(node, yaml.CollectionNode) and id(node) not in known:
                    known.add(id(node))
                    self._refuse_doubled(node)
                    rest += [value for _, value in node.value] if isinstance(node, yaml.MappingNode) else node.value
            return root

        def _refuse_doubled(self, node: yaml.CollectionNode) -> None:
            lines: dict[Any, int] = {}
            for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():
                if isinstance(key_node, yaml.ScalarNode):  # no other one can be a key
                    key = key_node.value if key_node.tag == _MERGE else self.construct_object(key_node)
                    line = key_node.start_mark.line + 1
                    if key in lines:
                        raise _doubled(key, lines[key], line)
                    lines[key] = line

        def flatten_mapping(self, node: yaml.MappingNode) -> None:
            """Merge what `<<` names: each level may hold the one below many times."""
            super().flatten_mapping(node)
            if len(node.value) > _MOST_VALUES:
                raise _TOO_MUCH

    Loader.yaml_implicit_resolvers = {
        first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:timestamp"]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    return Loader


def _check_size(document: Any) -> None:
    """Count what a document holds with every alias written out: a few lines of YAML may stand for billions."""
    count, rest = 0, [document]
    while rest:
        inner = rest.pop()
        count += 1
        if count > _MOST_VALUES:
            raise _TOO_MUCH
        if isinstance(inner, dict | list | tuple):
            rest += inner.values() if isinstance(inner, dict) else inner


def _request(document: Any) -> Request:
    """A request as in 6.1; or the list of its videos; or a single video; or prompts."""
    if isinstance(document, dict):
        single = "prompt" in document and "videos" not in document
        request = Request(videos=[document]) if single else Request(document)
    elif isinstance(document, list):
        request = Request(videos=document)
    else:
        kind = type(document).__name__
        raise _Unreadable(f"expected a batch (with `videos`) or a list of videos or prompts, not a single {kind}")
    if isinstance(request.get("videos"), list):
        request["videos"] = [{"prompt": video} if isinstance(video, str) else video for video in request["videos"]]
    return request


def _csv(text: str) -> Request:
    first = text.lstrip("\r\n").split("\n", 1)[0]
    # Split at LF alone: a CR within a cell that is in no quotes is an error then, and not the end of the prompt.
    lines = io.StringIO(text, newline="\n")
    rows = csv.reader(lines, delimiter=_delimiter(first), strict=True, skipinitialspace=True)
    try:
        numbered = [(rows.line_num, row) for row in rows if any(cell.strip() for cell in row)]
    except csv.Error as error:
        if "new-line character" in str(error):
            raise _Unreadable(
                f"line {rows.line_num} holds a carriage return, which alone ends no line: "
                "end lines with LF or CRLF, and put text of several lines in double quotes"
            ) from None
        raise _Unreadable(f"not CSV (line {rows.line_num}: {error}): mend the quotes") from None
    if not numbered:
        raise _Unreadable("it holds no columns: its first line must name them, `prompt` among them")
    columns = _columns(*numbered[0])
    request = Request(videos=[_row(columns, number, row) for number, row in numbered[1:]])
    request.lines = [number for number, _ in numbered[1:]]
    return request


def _columns(line: int, header: list[str]) -> list[str]:
    """What each column means; "" for one without a name."""
    if "prompt" not in (cell.strip().lower() for cell in header):
        named = ", ".join(repr(cell.strip()) for cell in header[:8])
        raise _Unreadable(f"there is no `prompt` column: its first line must name the columns, and has {named}")
    columns = [_column(line, cell.strip()) for cell in header]
    doubled = next((name for name in columns if name and columns.count(name) > 1), None)
    if doubled:
        raise _Unreadable(f"line {line}: there are two `{doubled}` columns: rename one")
    if "duration" in columns and "seconds" in columns:
        raise _Unreadable(f"line {line}: the columns `duration` and `seconds` mean the same: remove one")
    return columns


def _column(line: int, name: str) -> str:
    folded = name.lower()
    if not name or folded in _SPELLINGS:
        return _SPELLINGS.get(folded, "")
    if folded.startswith(_METADATA) and len(name) > len(_METADATA):
        return _METADATA + name[len(_METADATA) :]
    if any(folded == word or (word.endswith(".") and folded.startswith(word)) for word in _RESERVED):
        raise _Unreadable(
            f"line {line}: the column {name!r} is not supported yet: remove it; "
            f"to keep it as metadata, name it {_METADATA}{name}"
        )
    raise _Unreadable(
        f"line {line}: unknown column {name!r}: to keep it as metadata, name it {_METADATA}{name}; "
        f"known are {', '.join(_COLUMNS)} and {_METADATA}NAME"
    )


def _row(columns: list[str], number: int, cells: list[str]) -> dict[str, Any]:
    if any(cell.strip() for cell in cells[len(columns) :]):
        raise _Unreadable(
            f"line {number} has {len(cells)} cells for {len(columns)} columns: put text with commas in double quotes"
        )
    filled = [(name, cell.strip()) for name, cell in zip(columns, cells, strict=False) if cell.strip()]
    nameless = next((cell for name, cell in filled if not name), None)
    if nameless is not None:
        raise _Unreadable(f"line {number} has {nameless!r} in a column without a name: name it in the first line")
    video: dict[str, Any] = {"prompt": ""} | {name: cell for name, cell in filled if name in _COLUMNS}
    metadata = {name.removeprefix(_METADATA): cell for name, cell in filled if name not in _COLUMNS}
    return video | ({"metadata": metadata} if metadata else {})


def _cells(line: str, delimiter: str) -> list[str]:
    return [cell.strip().strip('"').lower() for cell in line.split(delimiter)]


def _delimiter(line: str) -> str:
    """A comma; or what spreadsheets write instead where the comma is in numbers."""
    return next((mark for mark in (",", ";", "\t") if "prompt" in _cells(line, mark) and mark in line), ",")


def _lines(text: str) -> Request:
    numbered = enumerate(map(str.strip, split_lines(text)), 1)
    prompts = {number: line for number, line in numbered if line and not _is_comment(line)}
    request = Request(videos=[{"prompt": line[line.startswith("\\#") :]} for line in prompts.values()])
    request.lines = list(prompts)
    return request


_READERS: dict[str, Callable[[str], Request]] = {"JSON": _json, "YAML": _yaml, "CSV": _csv, "lines": _lines}
