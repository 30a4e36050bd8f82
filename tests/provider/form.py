"""The fields of a create, from multipart or JSON.

Read by hand: aiohttp's own multipart reader takes most of a millisecond for a small form, and a benchmark of
the product would then measure this server.
"""

import hashlib
import json
import re
from typing import Any

_BOUNDARY = re.compile(r'boundary="?([^";]+)"?', re.IGNORECASE)
_NAME = re.compile(rb'[; ]name="((?:[^"\\]|\\.)*)"', re.IGNORECASE)
_FILENAME = re.compile(rb'filename="((?:[^"\\]|\\.)*)"', re.IGNORECASE)
_TYPE = re.compile(rb"content-type: *([^\r\n]+)", re.IGNORECASE)


def read_fields(content_type: str, body: bytes) -> dict[str, Any]:
    """Return the fields; a file is told as its name, type, length and sha256.

    Raises:
        ValueError: the body is not what its content type says.
    """
    if content_type.startswith("multipart/form-data"):
        return _multipart(content_type, body)
    if content_type.startswith("application/json"):
        return _json(body)
    raise ValueError(f"content type {content_type!r}: send multipart/form-data or application/json")


def _json(body: bytes) -> dict[str, Any]:
    fields = json.loads(body)
    if not isinstance(fields, dict):
        raise ValueError("the body must be a JSON object")
    return fields


def _multipart(content_type: str, body: bytes) -> dict[str, Any]:
    boundary = _BOUNDARY.search(content_type)
    if boundary is None:
        raise ValueError("multipart/form-data without a boundary")
    delimiter = b"--" + boundary[1].encode()
    first, *parts = (b"\r\n" + body).split(b"\r\n" + delimiter)
    if first or not parts or not parts[-1].startswith(b"--"):
        raise ValueError("the multipart body does not start and end with its boundary")
    return dict(_part(part) for part in parts[:-1])


def _part(part: bytes) -> tuple[str, Any]:
    head, blank, value = part.partition(b"\r\n\r\n")
    name = _NAME.search(head)
    if not blank or name is None:
        raise ValueError("a part of the multipart body has no name")
    filename = _FILENAME.search(head)
    return name[1].decode(), value.decode() if filename is None else _file(filename[1], head, value)


def _file(filename: bytes, head: bytes, value: bytes) -> dict[str, Any]:
    content_type = _TYPE.search(head)
    return {
        "filename": filename.decode(),
        "content_type": content_type[1].decode() if content_type else None,
        "bytes": len(value),
        "sha256": hashlib.sha256(value).hexdigest(),
    }
