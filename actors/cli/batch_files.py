"""Reads batch files, and finds the files that they and the options name: paths, patterns, data URLs.

`actors.formats` knows the formats, `actors.batch.requests` what a request may contain.
"""

from __future__ import annotations

import base64
import glob
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from actors.cli.opening import warn
from actors.cli.text import count
from actors.documents import Unreadable, load_json, load_yaml
from actors.errors import InvalidRequest, SettingsError
from actors.formats.reading import LINES, Request, comments_in, format_of, read_batch, with_lines

STDIN = "-"
_REFERENCE = ("input_reference", "inputReference")
_Place = tuple[str, ...]
_SENTENCES_MAX = 5
"""Nobody would read more at once."""


def read_request(source: str | None, prompts: Iterable[str] = ()) -> Request:
    """The request that a file (or `-`, standard input) holds, followed by one video for each of `prompts`.

    Paths in a file are relative to it, those from standard input to the current folder.

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
            f"{_name(source)} contains no videos; add at least one prompt"
            if source is not None
            else "nothing to make: give a batch file, - for standard input, or a prompt with -p"
        )
    return request


def read_defaults(source: str) -> dict[str, Any]:
    """Default video fields from a JSON or YAML file; its paths are relative to it.

    Raises:
        InvalidRequest: it can't be read, or is not an object.
    """
    text = _text(source)
    try:
        document = load_json(text) if source.lower().endswith(".json") else load_yaml(text)
    except Unreadable as error:
        raise InvalidRequest(f"{_name(source)}: {error}") from None
    if not isinstance(document, dict):
        raise InvalidRequest(f"{_name(source)}: expected an object with fields of a video, such as `duration: 8`")
    return document if source == STDIN else _beside(document, Path(source).parent)


@contextmanager
def locating(request: Request) -> Iterator[None]:
    """Add the file and the line to an error that is raised meanwhile.

    Raises:
        InvalidRequest: the same, with both.
    """
    try:
        yield
    except InvalidRequest as error:
        raise located(error, request) from None


def located(error: InvalidRequest, request: Request) -> InvalidRequest:
    """Add the file and the line to an error."""
    if request.source is None or isinstance(error, SettingsError):
        return error
    errors = with_lines(error, request)
    message = error.message if errors == error.errors else "; ".join(entry.message for entry in errors[:_SENTENCES_MAX])
    return InvalidRequest(f"{place_name(request.source)}: {message}", errors)


def place_name(source: str) -> str:
    """The file's name as the user wrote it."""
    return "standard input" if source == STDIN else source


def _read(source: str) -> Request:
    text = _text(source)
    if not text.strip():
        raise InvalidRequest(f"{_name(source)} is empty; add at least one prompt")
    kind = format_of(None if source == STDIN else source, text)
    try:
        request = read_batch(text, kind)
    except Unreadable as error:
        raise InvalidRequest(f"{_name(source)}: {error}") from None
    comments = comments_in(text) if kind == LINES else 0
    if comments:
        warn(f"{place_name(source)}: skipped {count(comments, 'comment line')}")
    if source != STDIN:
        _resolve_paths(request, Path(source).parent)
    return request


def _resolve_paths(request: Request, folder: Path) -> None:
    videos, defaults = request.get("videos"), request.get("defaults")
    if isinstance(videos, list):
        request["videos"] = [_beside(video, folder) if isinstance(video, dict) else video for video in videos]
    if isinstance(defaults, dict):
        request["defaults"] = _beside(defaults, folder)


def _name(source: str | None) -> str:
    return "standard input" if source == STDIN else f"the batch file {source!r}"


def _text(source: str) -> str:
    try:
        data = sys.stdin.buffer.read() if source == STDIN else Path(source).read_bytes()
    except FileNotFoundError:
        raise InvalidRequest(f"{_name(source)} does not exist; check its name, or give a prompt with -p") from None
    except IsADirectoryError:
        raise InvalidRequest(f"{_name(source)} is a folder; name a file in it") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidRequest(f"{_name(source)} can't be read: {reason}; check the file and its permissions") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        offset = error.start + (3 if data.startswith(b"\xef\xbb\xbf") else 0)
        raise InvalidRequest(
            f"{_name(source)} is not valid UTF-8 (byte 0x{data[offset]:02x} at offset {offset}); save it as UTF-8"
        ) from None


def _beside(video: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The same video, or defaults, with its paths relative to a folder."""
    return _with_paths(video, (), lambda path, _: str(folder / path))


def carried(request: dict[str, Any]) -> dict[str, Any]:
    """The same request with local files as data URLs: the service may run on another machine.

    Raises:
        InvalidRequest: a file can't be read, or is not an image, video or audio.
    """
    loaded: dict[str, str] = {}

    def load(path: str, place: _Place) -> str:
        if path not in loaded:
            loaded[path] = _data_url(path, place)
        return loaded[path]

    videos, defaults = request.get("videos"), request.get("defaults")
    if isinstance(videos, list):
        videos = [
            _with_paths(video, ("videos", str(index)), load) if isinstance(video, dict) else video
            for index, video in enumerate(videos)
        ]
        request = {**request, "videos": videos}
    return (
        {**request, "defaults": _with_paths(defaults, ("defaults",), load)} if isinstance(defaults, dict) else request
    )


def _with_paths(video: dict[str, Any], place: _Place, change: Callable[[str, _Place], str]) -> dict[str, Any]:
    """A copy with each path changed: because of YAML's aliases, several videos may be the same object."""
    changed: dict[str, Any] = {
        name: change(video[name], (*place, _REFERENCE[0])) for name in _REFERENCE if _is_path(video.get(name))
    }
    files = video.get("files")
    if isinstance(files, dict):
        changed["files"] = {
            name: change(file, (*place, "files", str(name))) if _is_path(file) else file for name, file in files.items()
        }
    return {**video, **changed}


def _is_path(reference: Any) -> bool:
    return isinstance(reference, str) and reference != "" and not _is_url(reference)


def _is_url(reference: str) -> bool:
    return reference.startswith(("data:", "https://", "http://"))


def _data_url(path: str, place: _Place) -> str:
    """A data URL for a local file; another path may exist where the service runs."""
    from actors.batch.references import explained, read_file

    with explained(path, place):
        if not Path(path).is_file():
            return path
        record = read_file(path)
    return f"data:{record.content_type};base64,{base64.b64encode(record.data).decode()}"


def pictures(patterns: Iterable[str]) -> list[str]:
    """The files that paths and patterns such as `shots/*.png` name, those of each pattern in sorted order.

    Raises:
        InvalidRequest: a pattern matches no file, or one that is not an image, video or audio.
    """
    found: list[str] = []
    for pattern in patterns:
        found += [pattern] if _is_url(pattern) else _matching(pattern)
    return list(dict.fromkeys(found))


def _matching(pattern: str) -> list[str]:
    from actors.batch.references import read_file

    shown = pattern
    try:
        if Path(pattern).is_dir():
            raise _wrong(pattern, f"it is a folder; name files in it, such as '{pattern}/*.png'")
        found = [pattern]
        if glob.has_magic(pattern) and not Path(pattern).exists():
            paths = glob.glob(pattern, recursive=True)  # noqa: PTH207  (Path's takes no absolute pattern)
            found = sorted(path for path in paths if not Path(path).is_dir())
            if not found:
                raise _wrong(pattern, "it matches no file; check the pattern")
        for shown in found:
            read_file(shown)
    except (OSError, ValueError) as error:
        raise _wrong(shown, getattr(error, "strerror", None) or str(error)) from None
    return found


def _wrong(pattern: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"--input-reference {pattern!r} can't be used: {why}")


def picture_name(picture: str) -> str | None:
    """A picture's name, for its video's metadata; None: it has none."""
    if picture.startswith("data:"):
        return None
    return Path(urlsplit(picture).path if _is_url(picture) else picture).name or None
