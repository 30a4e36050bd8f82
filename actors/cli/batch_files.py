"""Reads batch files: JSON, YAML, JSON Lines, CSV, or one prompt per line.

`actors.formats` knows the formats, `actors.batch.requests` what a request may contain.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from actors.cli.opening import warn
from actors.cli.references import beside
from actors.cli.text import count
from actors.documents import Unreadable, load_json, load_yaml
from actors.errors import InvalidRequest, SettingsError
from actors.formats.reading import LINES, Request, comments_in, format_of, read_batch, with_lines

STDIN = "-"
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
    return document if source == STDIN else beside(document, Path(source).parent)


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
        request["videos"] = [beside(video, folder) if isinstance(video, dict) else video for video in videos]
    if isinstance(defaults, dict):
        request["defaults"] = beside(defaults, folder)


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
