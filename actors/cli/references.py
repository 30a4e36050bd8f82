"""Input references and other files as given by users: paths relative to a batch file, patterns, data URLs."""

from __future__ import annotations

import base64
import glob
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from actors.errors import InvalidRequest

Place = tuple[str, ...]

_REFERENCE = ("input_reference", "inputReference")


def beside(video: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The same video, or defaults, with its paths relative to a folder."""
    return _with_paths(video, (), lambda path, _: str(folder / path))


def carried(request: dict[str, Any]) -> dict[str, Any]:
    """The same request with local files as data URLs: the service may run on another machine.

    Raises:
        InvalidRequest: a file can't be read, or is not an image, video or audio.
    """
    loaded: dict[str, str] = {}

    def load(path: str, place: Place) -> str:
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


def _with_paths(video: dict[str, Any], place: Place, change: Callable[[str, Place], str]) -> dict[str, Any]:
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


def _data_url(path: str, place: Place) -> str:
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
