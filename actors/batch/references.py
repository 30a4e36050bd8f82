"""Input references: loads what a request names into storage, so that another machine can send it.

Paths are for the library and the command line only; https URLs only for hosts that the operator allows.
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
"""Do not wait for a pipe that nobody writes to."""
_LONGEST_NAME = 200
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


def load_reference(
    reference: str | FileId, settings: Settings, place: tuple[str, ...], *, paths: bool, fetch: bool = True
) -> tuple[dict[str, Any], ReferenceRecord | None]:
    """What a job stores for its input reference, and the bytes to store, if any.

    Args:
        reference: as requested.
        settings: which hosts are allowed.
        place: its place in the request, for errors.
        paths: whether any local path may be read.
        fetch: whether a URL is fetched; otherwise it is kept as `{url}`.

    Raises:
        InvalidRequest: it can't be loaded, or is not allowed.
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
    """Report why a reference can't be loaded as an error of the field that names it.

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
    """Load an image, video or audio file.

    Raises:
        OSError: it can't be read.
        ValueError: it is not such a file, is empty or too large.
    """
    return _read(Path(path), os.open(path, _READ))


def _read(path: Path, descriptor: int) -> ReferenceRecord:
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # reading a pipe or a device may never end
            raise ValueError("not a regular file; give the path of an image, video or audio file")
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read(MAX_BYTES + 1)  # the size that a file system reports may be wrong
    finally:
        os.close(descriptor)
    return _record(path.name, content)


def _open_below(path: Path, folders: tuple[str, ...]) -> int:
    """Open a path that is below an allowed folder after resolving symbolic links.

    Whoever can write to the folder could place a link there between the check and the opening: so from the folder on,
    each component is opened separately and no link is followed.
    """
    try:
        real = path.resolve(strict=True)
        folder = next(each for each in map(_resolved, folders) if real != each and real.is_relative_to(each))
        return _opened(folder, real.relative_to(folder).parts)
    except (OSError, StopIteration):  # do not reveal which files exist
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
    """A redirect would leave the allowed host."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _is_elsewhere(reference: str) -> bool:
    return reference.startswith(("https://", "http://"))


def _allowed(url: str, settings: Settings) -> urllib.parse.SplitResult:
    """The parts of a URL, if it may be fetched."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "https":
        raise ValueError("only https URLs are allowed")
    host = parts.netloc.rpartition("@")[2].lower().removesuffix(":443")
    if host not in settings.sora_reference_hosts:
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
    """Read no more than proves that it is too large, and no longer than allowed: a command waits for it."""
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
    if kind is None:  # its content is not shown: the caller may not be allowed to read it
        raise ValueError(f"not an image, video or audio file, by its first bytes: use {KNOWN}")
    name = _CONTROL.sub("_", name)[-_LONGEST_NAME:]
    if "." not in name:
        name += mimetypes.guess_extension(kind) or ""
    return ReferenceRecord(digest=hashlib.sha256(content).hexdigest(), name=name, content_type=kind, data=content)
