"""Input references and further files as people name them: paths beside a batch file, patterns, data URLs."""

from __future__ import annotations

import base64
import glob
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from actors.errors import InvalidRequest

_REFERENCE = ("input_reference", "inputReference")


def beside(video: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The same video, or defaults, with its paths relative to a folder."""
    return _with_paths(video, lambda path: str(folder / path))


def carried(request: dict[str, Any]) -> dict[str, Any]:
    """The same request with the files that are here as data URLs: the service may run on another machine.

    Raises:
        InvalidRequest: a file can't be read, or is no image, video or audio.
    """
    loaded: dict[str, str] = {}

    def load(path: str) -> str:
        if path not in loaded:
            loaded[path] = _data_url(path)
        return loaded[path]

    videos, defaults = request.get("videos"), request.get("defaults")
    if isinstance(videos, list):
        videos = [_with_paths(video, load) if isinstance(video, dict) else video for video in videos]
        request = {**request, "videos": videos}
    return {**request, "defaults": _with_paths(defaults, load)} if isinstance(defaults, dict) else request


def _with_paths(video: dict[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """A copy in which each path is changed: with YAML's aliases several videos may be the same object."""
    changed: dict[str, Any] = {name: change(video[name]) for name in _REFERENCE if _is_path(video.get(name))}
    files = video.get("files")
    if isinstance(files, dict):
        changed["files"] = {name: change(file) if _is_path(file) else file for name, file in files.items()}
    return {**video, **changed}


def _is_path(reference: Any) -> bool:
    return isinstance(reference, str) and reference != "" and not _is_url(reference)


def _is_url(reference: str) -> bool:
    return reference.startswith(("data:", "https://", "http://"))


def _data_url(path: str) -> str:
    """A data URL for a file that is here; what is none may be one where the service runs."""
    from actors.batch.references import read_file

    try:
        if not Path(path).is_file():
            return path
        record = read_file(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidRequest(f"the input reference {path!r} can't be used: {reason}") from None
    return f"data:{record.content_type};base64,{base64.b64encode(record.data).decode()}"


def pictures(patterns: Iterable[str]) -> list[str]:
    """The files that paths and patterns such as `shots/*.png` name, those of each pattern in sorted order.

    Raises:
        InvalidRequest: a pattern matches no file, or one is a folder.
    """
    found: list[str] = []
    for pattern in patterns:
        found += [pattern] if _is_url(pattern) else _matching(pattern)
    return list(dict.fromkeys(found))


def _matching(pattern: str) -> list[str]:
    try:
        if Path(pattern).is_dir():
            raise InvalidRequest(
                f"--input-reference {pattern!r} is a folder: name files in it, such as '{pattern}/*.png'"
            )
        if Path(pattern).exists():
            return [pattern]
        if glob.has_magic(pattern):
            paths = glob.glob(pattern, recursive=True)  # noqa: PTH207  (Path's takes no absolute pattern)
            found = sorted(path for path in paths if not Path(path).is_dir())
            if not found:
                raise InvalidRequest(f"--input-reference {pattern!r} matches no file: check the pattern")
            return found
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidRequest(f"--input-reference {pattern!r} can't be used: {reason}") from None
    raise InvalidRequest(f"--input-reference {pattern!r}: there is no such file")


def picture_name(picture: str) -> str | None:
    """What a picture is called, for its video's metadata; None: it has no name."""
    if picture.startswith("data:"):
        return None
    return Path(urlsplit(picture).path if _is_url(picture) else picture).name or None
