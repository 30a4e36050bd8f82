"""Every file and every function that the documents name is there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLACE = re.compile(r"`((?:actors|storage|tests)/[\w./]*)(?::([\w.]+))?`")

_INSIDE = "cli fetching formats media rabbitmq settings simulator sora video web"
FOLDERS = ["storage", *(f"actors/{name}" for name in _INSIDE.split())]
"""Of one floor each, with a section of their own; of `actors` and `actors/batch` each file is named."""


def places() -> set[tuple[str, str]]:
    texts = [document.read_text() for document in (ROOT / "docs").glob("*.md")]
    return {place for text in texts for place in PLACE.findall(text)}


def names(tree: ast.Module) -> set[str]:
    """Everything that a module defines: `function`, `Class`, `Class.method`."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    top = [node for node in tree.body if isinstance(node, kinds)]
    inner = {f"{node.name}.{each.name}" for node in top for each in node.body if isinstance(each, kinds)}
    return {node.name for node in top} | inner


def test_every_file_has_its_place_in_the_tour() -> None:
    tour = (ROOT / "docs" / "architecture.md").read_text().partition("## Layers")[2]
    tour = tour.partition("## Where something new goes")[0]
    named = [ROOT / path for path, _ in PLACE.findall(tour)]
    floors = [path for path in named if path.is_file()] + [ROOT / folder for folder in FOLDERS]
    files = [path for folder in ("actors", "storage") for path in (ROOT / folder).rglob("*.py")]
    homeless = [path for path in files if not any(path.is_relative_to(floor) for floor in floors)]
    assert {path.name for path in homeless} == {"__init__.py"}


@pytest.mark.parametrize(("path", "name"), sorted(places()))
def test_what_is_named_is_there(path: str, name: str) -> None:
    assert (ROOT / path).exists()
    assert not name or name in names(ast.parse((ROOT / path).read_text()))
