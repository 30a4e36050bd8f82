"""Reads YAML and JSON from outside: no duplicate keys, no dates, bounded aliases."""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import yaml

_PART = re.compile(r'"((?:[^"\\]|\\.)*)"(\s*:)?|[{}]', re.DOTALL)
_MOST_VALUES = 1_000_000
_MERGE = "tag:yaml.org,2002:merge"
_TEXT = "tag:yaml.org,2002:str"


class Unreadable(Exception):
    """What is wrong with a file, and how to fix it."""


_TOO_MUCH = Unreadable(f"its aliases expand to more than {_MOST_VALUES} values: use fewer aliases")


class OtherFormat(Unreadable):
    """It is not in the format that it was read as."""


class Doubled(Unreadable):
    """A key stands twice in one object."""

    def __init__(self, key: Any, first: int, second: int) -> None:
        """`first`, `second`: its lines."""
        where = f"line {first}" if second == first else f"lines {first} and {second}"
        super().__init__(f"duplicate key {key!r} in one object ({where}): remove one, or start another object")


def too_deep() -> Unreadable:
    """An error for nesting that is too deep."""
    return Unreadable("nested too deeply: use fewer levels")


def load_json(text: str, first_line: int = 1, *, exact: bool = False) -> Any:
    """A JSON value without duplicate keys; `first_line`: its number in the file; `exact`: fractions are Decimals.

    Raises:
        Unreadable: it is not JSON.
    """
    try:
        parse_float, parse_constant = (Decimal, Decimal) if exact else (float, _refuse)
        document = json.loads(text, parse_float=parse_float, parse_constant=parse_constant)
        _refuse_doubled_keys(text, first_line)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno + first_line - 1}, column {error.colno}"
        raise OtherFormat(f"not JSON ({place}: {error.msg}): fix it") from None
    except RecursionError:
        raise too_deep() from None
    except ValueError:
        raise Unreadable("a number has too many digits: shorten it") from None
    return document


def _refuse(constant: str) -> None:
    raise Unreadable(f"{constant} is not a JSON value: write a number or null")


def _refuse_doubled_keys(text: str, first_line: int) -> None:
    """Refuse a duplicate key in an object of valid JSON: the parser would keep only the last."""
    objects: list[dict[str, int]] = []
    for part in _PART.finditer(text):
        if part[0] == "{":
            objects.append({})
        elif part[0] == "}":
            objects.pop()
        elif part[2]:
            key = json.loads(f'"{part[1]}"')
            first = objects[-1].setdefault(key, part.start())
            if first != part.start():
                lines = [text.count("\n", 0, place) + first_line for place in (first, part.start())]
                raise Doubled(key, *lines)


def load_yaml(text: str, *, exact: bool = False) -> Any:
    """The document in a YAML text; `exact`: fractions are Decimals.

    Raises:
        Unreadable: it is not YAML, or stands for too much.
    """
    import yaml

    try:
        with without_collections():
            document = yaml.load(text, _exact(_loader()) if exact else _loader())  # noqa: S506  (a SafeLoader)
        _check_size(document)
    except yaml.MarkedYAMLError as error:
        if "nesting" in str(error.problem):
            raise too_deep() from None
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise OtherFormat(f"not YAML ({place}{error.problem}): fix it") from None
    except yaml.YAMLError as error:
        raise Unreadable(f"not YAML ({' '.join(str(error).split())}): fix it") from None
    except RecursionError:
        raise too_deep() from None
    except (ValueError, TypeError) as error:
        raise Unreadable(f"can't read a value ({error}): fix it, or put it in quotes") from None
    return document


@contextmanager
def without_collections() -> Iterator[None]:
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

    base: Any = yaml_base()

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
                        raise Doubled(key, lines[key], line)
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


def _exact(loader: type[yaml.SafeLoader]) -> type[yaml.SafeLoader]:
    loader.add_constructor("tag:yaml.org,2002:float", lambda _, node: _decimal(node.value))
    return loader


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text.lower().replace(".inf", "inf").replace(".nan", "nan").replace("_", ""))
    except InvalidOperation:
        raise ValueError(f"{text} is not a number") from None


def yaml_base() -> Any:
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


def json_or_text(text: str, line: int = 1) -> Any:
    """A text as JSON if it parses, else as it is: `24` is a number, `film noir` a text.

    Args:
        text: of a cell, or an option.
        line: where it begins in its file.

    Raises:
        Unreadable: it has a duplicate key.
    """
    try:
        return load_json(text, line)
    except Unreadable as error:
        if isinstance(error, Doubled):
            raise
        return text
