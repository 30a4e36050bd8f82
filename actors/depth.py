"""How deeply a JSON document is nested: what comes from outside is looked at before anything goes down into it."""

from __future__ import annotations

from typing import Any


def is_nested_deeper(document: Any, levels: int) -> bool:
    """Whether objects and lists lie in one another deeper than this. Needs no stack of its own."""
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
