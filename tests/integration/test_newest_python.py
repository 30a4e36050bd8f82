"""The unit tests on the newest Python that is found here, if that is newer than the one that runs the tests."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.support import ROOT

pytestmark = pytest.mark.integration

NEWER = [f"3.{minor}" for minor in range(20, sys.version_info.minor, -1)]
NEEDED = (".", "hypothesis", "psycopg[binary]", "pytest", "pytest-asyncio", "pytest-mock")
UNITS = ("tests/actors/batch", "tests/actors/sora", "tests/actors/test_errors.py", "tests/actors/test_settings.py")


def newest() -> str | None:
    """The newest Python on the PATH, or among those that pyenv has installed."""
    for version in NEWER:
        own = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
        for python in (*map(str, own), f"python{version}"):
            try:
                done = subprocess.run([python, "-c", "import venv, ssl, sqlite3"], capture_output=True, check=False)
            except OSError:
                continue
            if done.returncode == 0:
                return python
    return None


def test_the_unit_tests_pass_on_the_newest_python(tmp_path: Path) -> None:
    python = newest()
    if python is None:
        pytest.skip(f"no Python newer than {sys.version_info.major}.{sys.version_info.minor} is installed")
    subprocess.run([python, "-m", "venv", tmp_path / "venv"], check=True)
    own = tmp_path / "venv/bin/python"
    # Not editable: an installation of the checkout would leave its traces there.
    subprocess.run([own, "-m", "pip", "install", "--quiet", *NEEDED], cwd=ROOT, check=True, timeout=300)
    subprocess.run([own, "-m", "pip", "uninstall", "--quiet", "--yes", "sora-batch"], cwd=ROOT, check=True)
    pytest_of_it = [own, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "-m", "not integration", "-x"]
    done = subprocess.run([*pytest_of_it, *UNITS], cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
