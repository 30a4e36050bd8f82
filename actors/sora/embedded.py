"""What gateways embed: other servers' ids in their own, and failed videos in the text of an error. Pure."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

from actors.sora.wire import Phase, RemoteVideo, identifier, parse_json, parse_video

_WRAPPED, _LITELLM, _ID = "video_", "litellm:", "video_id:"
WRAPPED = "video_bGl0ZWxsbT"
"""The prefix of every id of a LiteLLM proxy: `litellm:` in base64."""
_LONGEST = 1_000_000
"""Characters of the longest text that is searched for a video."""
_TRIES = 200
"""Braces in a text that are tried as the beginning of one."""
_DEEPEST_TEXT = 5
"""How deeply JSON in texts may be nested."""
_JSON = json.JSONDecoder()


def inner_id(remote_id: str) -> str:
    """The id of the server behind a LiteLLM proxy, which the proxy's own ids contain; any other id is returned as is.

    The proxy writes the id of one video in several ways, so ids are compared by this.
    """
    if not remote_id.startswith(_WRAPPED):
        return remote_id
    packed = remote_id.removeprefix(_WRAPPED).rstrip("=").replace("-", "+").replace("_", "/")
    try:
        text = base64.b64decode(packed + "=" * (-len(packed) % 4), validate=True).decode()
    except ValueError:
        return remote_id
    parts = text.removeprefix(_LITELLM).split(";") if text.startswith(_LITELLM) else []
    inner = next((part.removeprefix(_ID) for part in parts if part.startswith(_ID)), "")
    return inner_id(inner) if inner else remote_id


def failed_inside(body: Any, remote_id: str) -> RemoteVideo | None:
    """The failed video with this id that an error quotes; None if it quotes none.

    Only an outermost video counts: the fields of another video are not searched.
    """
    for document in _videos(body, _DEEPEST_TEXT):
        video = parse_video(document)
        same = inner_id(identifier(document) or "") == inner_id(remote_id)
        if same and video is not None and video.phase is Phase.ENDED_BADLY:
            return video
    return None


def _videos(value: Any, depth: int) -> Iterator[dict[str, Any]]:
    if isinstance(value, str):
        for document in _documents(value) if depth else ():
            yield from _videos(document, depth - 1)
    elif isinstance(value, list):
        for entry in value:
            yield from _videos(entry, depth)
    elif isinstance(value, dict):
        if value.get("object") == "video":
            yield value
        else:
            yield from _videos(list(value.values()), depth)


def _documents(text: str) -> Iterator[Any]:
    """The outermost JSON objects in a text."""
    if len(text) > _LONGEST:
        return
    at = -1
    for _ in range(_TRIES):
        at = text.find("{", at + 1)
        if at < 0:
            return
        try:
            _, end = _JSON.raw_decode(text, at)
        except (ValueError, RecursionError):
            continue
        document = parse_json(text[at:end].encode(errors="replace"))
        if document is not None:
            yield document
        at = end - 1
