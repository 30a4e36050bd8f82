"""The checks of the code itself: they fail here as they would in an editor."""

import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent


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
