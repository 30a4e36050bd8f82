"""What the package `actors` offers: each public name, its types, and a user's program under `mypy --strict`."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import types
import typing
from inspect import getmembers, isclass, iscoroutinefunction, isfunction, signature
from pathlib import Path
from typing import Any

import pytest

import actors

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("users_program.py")
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
DOORS = (actors.BatchService, actors.AsyncBatchService, actors.BatchClient, actors.AsyncBatchClient)


def imported(source: str) -> set[str]:
    """The names that a program imports from `actors`."""
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    return {alias.name for node in nodes if node.module == "actors" for alias in node.names}


def documented() -> set[str]:
    """The names that programs in the documents import."""
    pattern = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    programs = [each for path in DOCUMENTS for each in pattern.findall(path.read_text())]
    return set().union(*(imported(each) for each in programs if "from actors import" in each))


def test_a_users_programs_pass_a_strict_check(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM.read_text())
    (tmp_path / "documented.py").write_text(f"from actors import {', '.join(sorted(documented()))}\n")
    every = sorted(set(actors.__all__) - {"__version__"})
    (tmp_path / "star.py").write_text(f"from actors import *\nprint({', '.join(every)})\n")
    # As a user calls it who has installed the package: beside no checkout, and with no settings of ours.
    command = [sys.executable, "-m", "mypy", "--strict", "program.py", "documented.py", "star.py"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_each_name_is_there_and_is_told_the_same_to_a_type_checker() -> None:
    tree = ast.parse(Path(actors.__file__).read_text())
    (told,) = (node for node in tree.body if isinstance(node, ast.If))
    homes = {
        alias.name: node.module for node in told.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }  # fmt: skip
    assert homes == actors._HOME_OF
    assert set(actors.__all__) == {*homes, "__version__"}
    for name in actors.__all__:
        assert getattr(actors, name) is not None


def named(hint: Any) -> set[type]:
    """The classes of ours within a type."""
    if isinstance(hint, type) and not isinstance(hint, types.GenericAlias):
        return {hint} if hint.__module__.split(".")[0] in ("actors", "storage") else set()
    parts = hint if isinstance(hint, list | tuple) else typing.get_args(hint)
    return set().union(*map(named, parts))


def hints(callable_: Any) -> dict[str, Any]:
    """The types of a function, those included that its module imports for type checkers alone."""
    function = getattr(callable_, "__wrapped__", callable_)
    every = {name: getattr(actors, name) for name in actors.__all__}
    return typing.get_type_hints(function, {**every, **function.__globals__, "Self": Any})


def test_each_documented_method_of_the_service_has_a_coroutine_with_the_same_parameters() -> None:
    text = "".join(path.read_text() for path in DOCUMENTS)
    names = {each for each in re.findall(r"\bservice\.([a-z]\w*)\(", text) if hasattr(actors.BatchService, each)}
    assert names > {"create_batch", "prune", "waits"}
    for name in names:
        plain, asynchronous = (signature(getattr(door, name)) for door in DOORS[:2])
        given = [each for each in plain.parameters if each != "spelled"]  # the HTTP API's own
        assert list(asynchronous.parameters) == given, name
        assert iscoroutinefunction(getattr(actors.AsyncBatchService, name))


@pytest.mark.parametrize("door", DOORS)
def test_every_type_that_a_public_method_takes_or_gives_can_be_imported(door: type) -> None:
    methods = [member for name, member in getmembers(door, isfunction) if not name.startswith("_")]
    properties = [member.fget for _, member in getmembers(door, lambda member: isinstance(member, property))]
    known = {getattr(actors, name) for name in actors.__all__}
    members = named(actors.Command)  # the union has a name, its members have none
    seen: set[type] = set()
    rest = set().union(
        *(named(hint) for function in [door.__init__, *methods, *properties] for hint in hints(function).values())
    )
    while rest:
        each = rest.pop()
        seen.add(each)
        assert each in known | members | {door}, f"{each.__name__} of {each.__module__}"
        fields = getattr(each, "model_fields", {})  # and what is within it
        rest |= set().union(*(named(field.annotation) for field in fields.values())) - seen
    assert isclass(door)
