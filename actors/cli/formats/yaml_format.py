"""Reads YAML: plain values without dates (JSON has none), no duplicate keys, and bounded aliases."""

from __future__ import annotations

import functools
import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from actors.cli.formats.common import Request, Unreadable, doubled, request_of, too_deep

if TYPE_CHECKING:
    import yaml

_MOST_VALUES = 1_000_000
_MERGE = "tag:yaml.org,2002:merge"
_TEXT = "tag:yaml.org,2002:str"
_TOO_MUCH = Unreadable(f"its aliases expand to more than {_MOST_VALUES} values: use fewer aliases")


def read_yaml(text: str) -> Request:
    """A request as YAML."""
    request = request_of(load_yaml(text))
    request.locate = Places(text)
    return request


def load_yaml(text: str) -> Any:
    """The document in a text.

    Raises:
        Unreadable: it is not YAML, or stands for too much.
    """
    import yaml

    try:
        with _without_collections():
            document = yaml.load(text, _loader())  # noqa: S506  (a SafeLoader)
        _check_size(document)
    except yaml.MarkedYAMLError as error:
        if "nesting" in str(error.problem):
            raise too_deep() from None
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise Unreadable(
            f"not YAML ({place}{error.problem}): fix it, or give the file the extension of its format"
        ) from None
    except yaml.YAMLError as error:
        raise Unreadable(f"not YAML ({' '.join(str(error).split())}): fix it") from None
    except RecursionError:
        raise too_deep() from None
    except (ValueError, TypeError) as error:
        raise Unreadable(f"can't read a value ({error}): fix it, or put it in quotes") from None
    return document


@contextmanager
def _without_collections() -> Iterator[None]:
    """Pause garbage collection: a large file makes a million objects, all kept; scanning them takes most time."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _loader() -> type[yaml.SafeLoader]:
    import yaml

    base: Any = _base()

    class Loader(base):  # type: ignore[misc]  # one of two
        """Refuses duplicate keys, and merges that expand to too much."""

        def get_single_node(self) -> yaml.Node | None:
            """Look for duplicate keys before merges add those that they may override."""
            root: yaml.Node | None = super().get_single_node()
            known: set[int] = set()
            rest: list[Any] = [root]
            while rest:
                node = rest.pop()
                if isinstance(node, yaml.CollectionNode) and id(node) not in known:
                    known.add(id(node))
                    self._refuse_doubled(node)
                    rest += [value for _, value in node.value] if isinstance(node, yaml.MappingNode) else node.value
            return root

        def _refuse_doubled(self, node: yaml.CollectionNode) -> None:
            lines: dict[Any, int] = {}
            for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():
                if isinstance(key_node, yaml.ScalarNode):  # no other node can be a key
                    as_it_stands = key_node.tag in (_MERGE, _TEXT)
                    key = key_node.value if as_it_stands else self.construct_object(key_node)
                    line = key_node.start_mark.line + 1
                    if key in lines:
                        raise doubled(key, lines[key], line)
                    lines[key] = line

        def flatten_mapping(self, node: yaml.MappingNode) -> None:
            """Merge what `<<` names: each level may contain the one below many times."""
            super().flatten_mapping(node)
            if len(node.value) > _MOST_VALUES:
                raise _TOO_MUCH

    Loader.yaml_implicit_resolvers = {
        first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:timestamp"]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    return Loader


def _base() -> Any:
    """Libyaml's loader, ten times as fast and part of PyYAML's wheels; else the one in Python."""
    import yaml

    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _check_size(document: Any) -> None:
    """Count the values of a document with all aliases expanded: a few lines of YAML may expand to billions."""
    count, rest = 0, [document]
    while rest:
        inner = rest.pop()
        count += 1
        if count > _MOST_VALUES:
            raise _TOO_MUCH
        if isinstance(inner, dict | list | tuple):
            rest += inner.values() if isinstance(inner, dict) else inner


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
            with _without_collections():
                return yaml.compose(self._text, _base())
        except (yaml.YAMLError, RecursionError):  # JSON that is not YAML after all
            return None


def _is_list(node: Any) -> bool:
    return node is not None and node.id == "sequence"


def _member(node: Any, name: str) -> tuple[Any, Any] | None:
    """The member of a mapping by its name, in either spelling."""
    plain = name.replace("_", "").lower()
    pairs = node.value if node is not None and node.id == "mapping" else []
    for key, value in pairs:
        if key.id == "scalar" and (key.value == name or key.value.lower() == plain):
            return key, value
    return None
