"""Every file and every function that the documents name is there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLACE = re.compile(r"`((?:actors|storage|tests)/[\w./]*)(?::([\w.]+))?`")


def places() -> set[tuple[str, str]]:
    texts = [document.read_text() for document in (ROOT / "docs").glob("*.md")]
    return {place for text in texts for place in PLACE.findall(text)}


def names(tree: ast.Module) -> set[str]:
    """Everything that a module defines: `function`, `Class`, `Class.method`."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    top = [node for node in tree.body if isinstance(node, kinds)]
    inner = {f"{node.name}.{each.name}" for node in top for each in node.body if isinstance(each, kinds)}
    return {node.name for node in top} | inner


@pytest.mark.parametrize(("path", "name"), sorted(places()))
def test_what_is_named_is_there(path: str, name: str) -> None:
    assert (ROOT / path).exists()
    assert not name or name in names(ast.parse((ROOT / path).read_text()))
