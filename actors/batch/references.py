"""Input references: turns what a request names into bytes in storage, so that another machine can send them.

A path is the library's and the command line's alone; an https URL only from a host that the operator allows.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import http.client
import mimetypes
import os
import re
import stat
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

from actors.batch.field_errors import dotted, pointer
from actors.batch.fields import FileId
from actors.batch.media_types import KNOWN, media_type
from actors.errors import FieldError, InvalidRequest
from actors.settings import Settings
from storage.records import ReferenceRecord

MAX_BYTES = 32 * 1024 * 1024
_FETCH_SECONDS = 30
_PIECE = 1 << 16
_READ = os.O_RDONLY | os.O_NONBLOCK
"""A pipe that nobody writes into is not waited for."""
_LONGEST_NAME = 200
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


def load_reference(
    reference: str | FileId, settings: Settings, place: tuple[str, ...], *, paths: bool, fetch: bool = True
) -> tuple[dict[str, Any], ReferenceRecord | None]:
    """What a job keeps of its input reference, and the bytes to store, if there are any.

    Args:
        reference: as requested.
        settings: which hosts are allowed.
        place: where in the request it lies, for the error.
        paths: whether any local path may be read.
        fetch: whether a URL is fetched; else it is kept as `{url}`.

    Raises:
        InvalidRequest: it can't be had, or is not allowed.
    """
    if isinstance(reference, FileId):
        return {"file_id": reference.file_id}, None
    with explained(reference, place):
        if not fetch and _is_elsewhere(reference):
            _allowed(reference, settings)
            return {"url": reference}, None
        record = _bytes_of(reference, settings, paths=paths)
    return {"digest": record.digest}, record


@contextmanager
def explained(reference: str, place: tuple[str, ...]) -> Iterator[None]:
    """Tell why a reference can't be had as what is wrong with the field that names it.

    Raises:
        InvalidRequest: an OSError, a ValueError or an HTTPException was raised.
    """
    try:
        yield
    except (OSError, ValueError, http.client.HTTPException) as error:  # URLError is an OSError
        shown = reference if len(reference) <= 100 else f"{reference[:97]}..."
        reason = getattr(error, "strerror", None) or str(error)
        message = f"{dotted(place)}: the input reference {shown!r} can't be used: {reason}"
        raise InvalidRequest(
            message, (FieldError(pointer(place), message, "a readable image, video or audio", "input_reference"),)
        ) from None


def _bytes_of(reference: str, settings: Settings, *, paths: bool) -> ReferenceRecord:
    if reference.startswith("data:"):
        return _data_url(reference)
    if _is_elsewhere(reference):
        return _fetch(reference, settings)
    path = Path(reference)
    return _read(path, os.open(path, _READ) if paths else _open_below(path, settings.sora_reference_dirs))


def read_file(path: str) -> ReferenceRecord:
    """The image, video or audio that a local file holds.

    Raises:
        OSError: it can't be read.
        ValueError: it is no such file, is empty or too large.
    """
    return _read(Path(path), os.open(path, _READ))


def _read(path: Path, descriptor: int) -> ReferenceRecord:
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # reading a pipe or a device need not end
            raise ValueError("not a regular file; give the path of an image, video or audio file")
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read(MAX_BYTES + 1)  # what a file system tells of a size need not hold
    finally:
        os.close(descriptor)
    return _record(path.name, content)


def _open_below(path: Path, folders: tuple[str, ...]) -> int:
    """Open what lies below an allowed folder once symbolic links are resolved.

    Whoever may write into the folder may put a link there between the look and the opening: so from the folder on,
    each step is opened by itself and follows none.
    """
    try:
        real = path.resolve(strict=True)
        folder = next(each for each in map(_resolved, folders) if real != each and real.is_relative_to(each))
        return _opened(folder, real.relative_to(folder).parts)
    except (OSError, StopIteration):  # whoever may read no file is not told which ones there are
        raise ValueError("the path is outside SORA_REFERENCE_DIRS") from None


def _resolved(folder: str) -> Path:
    return Path(folder).resolve()


def _opened(folder: Path, parts: tuple[str, ...]) -> int:
    at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    for number, part in enumerate(parts, 1):
        how = _READ if number == len(parts) else os.O_RDONLY | os.O_DIRECTORY
        try:
            following = os.open(part, how | os.O_NOFOLLOW, dir_fd=at)
        finally:
            os.close(at)
        at = following
    return at


def _data_url(url: str) -> ReferenceRecord:
    head, comma, data = url.removeprefix("data:").partition(",")
    if not comma or not head.endswith(";base64"):
        raise ValueError("a data URL must be data:<type>;base64,<data>")
    try:
        content = base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise ValueError(f"invalid base64: {error}") from None
    return _record("reference", content)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would leave the host that was allowed."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _is_elsewhere(reference: str) -> bool:
    return reference.startswith(("https://", "http://"))


def _allowed(url: str, settings: Settings) -> urllib.parse.SplitResult:
    """The parts of a URL that may be fetched."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "https":
        raise ValueError("only https URLs are allowed")
    host = parts.netloc.rpartition("@")[2].lower().removesuffix(":443")
    if host not in {allowed.lower() for allowed in settings.sora_reference_hosts}:
        raise ValueError(f"the host {host!r} is not in SORA_REFERENCE_HOSTS")
    return parts


def _fetch(url: str, settings: Settings) -> ReferenceRecord:
    parts = _allowed(url, settings)
    proxy = settings.proxy_for(url)
    handlers = (_NoRedirect, urllib.request.ProxyHandler({"https": proxy} if proxy else {}))
    trusting = urllib.request.HTTPSHandler(context=settings.trust)
    with urllib.request.build_opener(*handlers, trusting).open(url, timeout=_FETCH_SECONDS) as answer:
        content = _taken_in(answer)
        return _record(Path(parts.path).name or "reference", content)


def _taken_in(answer: http.client.HTTPResponse) -> bytes:
    """Not more than shows that it is too much, nor for longer than it may take: a command waits for it."""
    content, whole, deadline = bytearray(), answer.length, monotonic() + _FETCH_SECONDS
    most = MAX_BYTES + 1 if whole is None else min(whole, MAX_BYTES + 1)
    while len(content) < most and (piece := answer.read1(min(_PIECE, most - len(content)))):
        content += piece
        if monotonic() > deadline:
            raise ValueError(f"the download took longer than {_FETCH_SECONDS} s")
    if whole is not None and len(content) < most:
        raise http.client.IncompleteRead(b"", most - len(content))
    return bytes(content)


def _record(name: str, content: bytes) -> ReferenceRecord:
    if not content or len(content) > MAX_BYTES:
        raise ValueError(f"the content exceeds the limit of {MAX_BYTES} bytes" if content else "the content is empty")
    kind = media_type(content)
    if kind is None:  # what it holds instead is not shown: whoever named it need not be allowed to read it
        raise ValueError(f"not an image, video or audio file, by its first bytes: use {KNOWN}")
    name = _CONTROL.sub("_", name)[-_LONGEST_NAME:]
    if "." not in name:
        name += mimetypes.guess_extension(kind) or ""
    return ReferenceRecord(digest=hashlib.sha256(content).hexdigest(), name=name, content_type=kind, data=content)
