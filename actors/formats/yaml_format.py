"""Reads a request as YAML, and knows the line of each of its fields."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from actors.documents import load_yaml, without_collections, yaml_base
from actors.formats.common import Request, request_of


def read_yaml(text: str) -> Request:
    """A request as YAML."""
    request = request_of(load_yaml(text))
    request.locate = Places(text)
    return request


class Places:
    """The lines of a request's fields in its YAML or JSON text."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __call__(self, place: Sequence[str]) -> int | None:
        """The line of a place; for a missing one, of its object. None: the text has no such video."""
        node, rest, line = self._root, list(place), None
        if rest[:1] == ["videos"] and _is_list(node):
            rest = rest[1:]
        elif rest[:1] == ["videos"] and _member(node, "videos") is None:  # a single video
            if rest[1:2] != ["0"]:
                return None
            rest = rest[2:]
        for part in rest:
            if _is_list(node):
                if int(part) >= len(node.value):
                    return None
                node = node.value[int(part)]
                line = node.start_mark.line + 1
            else:
                pair = _member(node, part)
                if pair is None:
                    break
                line, node = pair[0].start_mark.line + 1, pair[1]
        return line

    @functools.cached_property
    def _root(self) -> Any:
        import yaml

        try:
            with without_collections():
                return yaml.compose(self._text, yaml_base())
        except (yaml.YAMLError, RecursionError):  # JSON that is not YAML after all
            return None


def _is_list(node: Any) -> bool:
    return node is not None and node.id == "sequence"


def _member(node: Any, name: str) -> tuple[Any, Any] | None:
    """The member of a mapping by its name, in either spelling."""
    plain = name.replace("_", "").lower()
    pairs = node.value if node is not None and node.id == "mapping" else []
    members = {key.value: (key, value) for key, value in reversed(pairs) if key.id == "scalar"}
    return members.get(name) or next((each for key, each in members.items() if key.lower() == plain), None)
