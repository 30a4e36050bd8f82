"""The checks of the code itself: they fail here as they would in an editor."""

import ast
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
PRODUCT = sorted(path for package in ("actors", "storage") for path in (ROOT / package).rglob("*.py"))
LONGEST_FILE, LONGEST_FUNCTION = 400, 50
"""Lines. What is longer does two things: split it by them."""


@pytest.mark.parametrize(
    "command",
    ["ruff check", "ruff format --check", "mypy", "lint-imports"],
)
def test_the_code_passes(command: str) -> None:
    program, *arguments = command.split()
    result = subprocess.run([BIN / program, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_top_level_is_what_was_agreed() -> None:
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    tracked = listing.split("\n")
    top = {name.split("/")[0] for name in tracked if name and not name.startswith(".")}
    assert top <= {"setup.cfg", "pyproject.toml", "actors", "storage", "tests", "rabbitmq.conf", "README.md", "docs"}


def test_every_dependency_has_a_lower_bound_that_is_kept_here() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    wanted = [Requirement(line) for line in (*project["dependencies"], *extras)]
    others = [each for each in wanted if each.name != project["name"]]  # one of its extras names the others
    assert len(others) > 20
    assert [each.name for each in others if {bound.operator for bound in each.specifier} != {">="}] == []
    assert [each.name for each in others if not each.specifier.contains(version(each.name))] == []


def test_no_file_of_the_product_is_too_long() -> None:
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in PRODUCT}
    assert len(lines) > 200
    assert {name: count for name, count in lines.items() if count > LONGEST_FILE} == {}


def test_no_function_of_the_product_is_too_long() -> None:
    lengths = {
        f"{path.relative_to(ROOT)}:{node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for path in PRODUCT
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert len(lengths) > 1000
    assert {name: count for name, count in lengths.items() if count > LONGEST_FUNCTION} == {}
