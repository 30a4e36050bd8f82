"""How deeply a JSON document is nested: input from outside is checked before anything recurses into it."""

from __future__ import annotations

from typing import Any


def is_nested_deeper(document: Any, levels: int) -> bool:
    """Whether objects and lists are nested deeper than this. Does not recurse."""
    level = [document] if isinstance(document, dict | list) else []
    for _ in range(levels):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True
