"""A profile of the simulator beside the server that it stands for: the same requests, and what is answered otherwise.

Compared are the status, the names and types of what a JSON document holds, and the `param` of an error. What a model
would say, and the word that marks the simulator, are not.
"""

import json
import time
import urllib.error
import urllib.request
from contextlib import closing
from typing import Any

from tests.servers.real.desk import Desk
from tests.servers.real.litellm import Simulator
from tests.servers.real.program import OPENER
from tests.servers.real.server import StubbedServer
from tests.servers.real.trials import Outcome

_NOT_COMPARED = ("simulated", "stage_durations")
_FORMS: dict[str, dict[str, str]] = {
    "create": {"prompt": "a fox", "seconds": "4", "size": "832x480"},
    "create, no size and no seconds": {"prompt": "a fox"},
    "create, fps and num_frames": {"prompt": "a fox", "fps": "12", "num_frames": "9", "seed": "7"},
    "create, no prompt": {"seconds": "4"},
    "create, an empty prompt": {"prompt": ""},
    "create, seconds=4.5": {"prompt": "x", "seconds": "4.5"},
    "create, seconds=0": {"prompt": "x", "seconds": "0"},
    "create, size=big": {"prompt": "x", "size": "big"},
    "create, fps=abc": {"prompt": "x", "fps": "abc"},
    "create, another model": {"prompt": "x", "model": "nobody-has-this"},
    "create, an unknown field": {"prompt": "x", "nonsense": "1"},
    "create, input_reference[file_id]": {"prompt": "x", "input_reference[file_id]": "file-1"},
}
_DOCUMENTS: dict[str, Any] = {
    "create by JSON": {"prompt": "x", "seconds": 4},
    "create by JSON, no prompt": {"seconds": 4},
    "create by JSON, a list": [],
    "create by JSON, input_reference an object": {
        "prompt": "x",
        "input_reference": {"image_url": "data:image/png;base64,AAAA"},
    },
}
_PATHS = {
    "an unknown video": ("GET", "/videos/nope"),
    "an unknown video's file": ("GET", "/videos/nope/content"),
    "DELETE of an unknown video": ("DELETE", "/videos/nope"),
    "PUT": ("PUT", "/videos/nope"),
    "an unknown route": ("GET", "/nothing"),
    "list": ("GET", "/videos"),
    "list, limit=1": ("GET", "/videos?limit=1"),
    "list, limit=0": ("GET", "/videos?limit=0"),
    "list, limit=101": ("GET", "/videos?limit=101"),
    "list, limit=x": ("GET", "/videos?limit=x"),
    "list, order=up": ("GET", "/videos?order=up"),
    "list, after an unknown video": ("GET", "/videos?after=nope"),
}
_OF_A_VIDEO = {
    "a completed video": ("GET", ""),
    "its file": ("GET", "/content"),
    "its file, variant=0": ("GET", "/content?variant=0"),
    "its file, variant=video": ("GET", "/content?variant=video"),
    "its file, variant=thumbnail": ("GET", "/content?variant=thumbnail"),
    "DELETE of a completed video": ("DELETE", ""),
    "a deleted video": ("GET", ""),
}
_BOUNDARY = "the-trials-boundary"

Answers = dict[str, tuple[int, Any]]


def compared(server: StubbedServer, desk: Desk) -> Outcome:
    """Hold the profile of the server's name against it."""
    with Simulator(server.profile, server.user.get("OPENAI_API_KEY")) as simulator:
        theirs, ours = (
            _answers(each.base_url, each.user.get("OPENAI_API_KEY", "none")) for each in (server, simulator)
        )
    differences: dict[str, list[str]] = {}
    for name in theirs:
        differences.setdefault(_difference(theirs[name], ours[name]), []).append(name)
    alike = len(differences.pop("", []))
    told = [f"{' / '.join(names)}: {difference}" for difference, names in differences.items()]
    return Outcome(not told, "; ".join([f"{alike} of {len(theirs)} requests are answered alike", *told]))


def _answers(base: str, key: str) -> Answers:
    found: Answers = {}
    for name, fields in _FORMS.items():
        found[name] = _ask(base, key, "POST", "/videos", _form(fields), f"multipart/form-data; boundary={_BOUNDARY}")
    for name, document in _DOCUMENTS.items():
        found[name] = _ask(base, key, "POST", "/videos", json.dumps(document).encode(), "application/json")
    for name, (method, path) in _PATHS.items():
        found[name] = _ask(base, key, method, path)
    video = found["create"][1]["id"]
    if key:
        found["a wrong key"] = _ask(base, "wrong", "GET", "/videos")
    found["its file, too early"] = _ask(base, key, "GET", f"/videos/{video}/content")
    while _ask(base, key, "GET", f"/videos/{video}")[1]["status"] != "completed":
        time.sleep(0.2)
    for name, (method, path) in _OF_A_VIDEO.items():
        found[name] = _ask(base, key, method, f"/videos/{video}{path}")
    found["the order within one second"] = (200, _order(base, key))
    return found


def _order(base: str, key: str) -> str:
    """How three videos are listed that were created in the same second."""
    while True:
        made = [
            _ask(base, key, "POST", "/videos", _form({"prompt": "x"}), f"multipart/form-data; boundary={_BOUNDARY}")[1]
            for _ in range(3)
        ]
        if len({video["created_at"] for video in made}) == 1:
            break
    ids = [video["id"] for video in made]
    listed = [video["id"] for video in _ask(base, key, "GET", "/videos?limit=100")[1]["data"] if video["id"] in ids]
    return "oldest first" if listed == ids else "newest first" if listed == ids[::-1] else "another"


def _ask(base: str, key: str, method: str, path: str, body: bytes | None = None, kind: str = "") -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {key}"} | ({"Content-Type": kind} if kind else {})
    request = urllib.request.Request(base + path, body, headers, method=method)
    try:
        answer = OPENER.open(request, timeout=30)
    except urllib.error.HTTPError as error:
        answer = error
    with closing(answer):
        text = answer.read()
    try:
        return answer.status, json.loads(text)
    except ValueError:
        return answer.status, answer.headers.get_content_type()


def _form(fields: dict[str, str]) -> bytes:
    parts = (f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{n}"\r\n\r\n{v}\r\n' for n, v in fields.items())
    return "".join([*parts, f"--{_BOUNDARY}--\r\n"]).encode()


def _difference(theirs: tuple[int, Any], ours: tuple[int, Any]) -> str:
    if theirs[0] != ours[0]:
        return f"HTTP {theirs[0]}, the simulator {ours[0]}"
    shapes = (_shape(theirs[1]), _shape(ours[1]))
    if shapes[0] == shapes[1]:
        return ""
    if isinstance(shapes[0], dict) and isinstance(shapes[1], dict):
        keys = sorted(key for key in shapes[0].keys() | shapes[1].keys() if shapes[0].get(key) != shapes[1].get(key))
        return ", ".join(f"`{key}` {shapes[0].get(key, 'absent')}, the simulator {shapes[1].get(key, 'absent')}" for key in keys)  # fmt: skip
    return f"{shapes[0]}, the simulator {shapes[1]}"


def _shape(value: Any) -> Any:
    """What kind of document it is."""
    if isinstance(value, dict):
        flat: dict[str, Any] = {}
        for key, entry in value.items():
            if key in _NOT_COMPARED:
                continue
            inner = _shape(entry)
            flat |= {f"{key}.{name}": kind for name, kind in inner.items()} if isinstance(inner, dict) else {key: inner}
            if key == "param":
                flat[key] = repr(entry)
        return flat
    if isinstance(value, list):
        return f"list of {_names(value[0])}" if value else "empty list"
    return value if isinstance(value, str) and " first" in value else type(value).__name__


def _names(entry: Any) -> str:
    return f"objects with {len(_shape(entry))} fields" if isinstance(entry, dict) else type(entry).__name__
