"""The package as others get it: wheel and source distribution, and the wheel installed where no source is."""

import email
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.message import Message
from pathlib import Path

import pytest

from actors import __version__
from tests.integration.support import ROOT, until

pytestmark = pytest.mark.integration

NAME = f"sora_batch-{__version__}"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def run(*command: str | Path, cwd: Path) -> str:
    """What a program prints, in an environment of no settings."""
    environment = {"PATH": os.defpath, "HOME": str(cwd)}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def tracked() -> set[str]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {name for name in listing.split("\0") if name}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both, made of a copy of the files under version control; the wheel is made from the sdist."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for name in tracked():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", built, cwd=source)
    return built


@pytest.fixture(scope="module")
def metadata(built: Path) -> Message:
    with zipfile.ZipFile(built / f"{NAME}-py3-none-any.whl") as wheel:
        return email.message_from_bytes(wheel.read(f"{NAME}.dist-info/METADATA"))


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that has the wheel; what it depends on is lent by the environment of the tests.

    A line in a .pth file adds a folder to look into, and follows none of the .pth files there: neither an editable
    installation of the checkout nor another copy of the package comes before the wheel.
    """
    folder = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    python = folder / "bin/python"
    (packages,) = folder.glob("lib/python*/site-packages")
    wheel = built / f"{NAME}-py3-none-any.whl"
    pip = (sys.executable, "-m", "pip", "--python", python)
    run(*pip, "install", "--quiet", "--no-index", "--no-deps", wheel, cwd=folder)
    lent = {str(Path(path).resolve()) for path in sys.path if path.endswith("-packages")}
    (packages / "lent.pth").write_text("\n".join(sorted(lent)))
    return folder / "bin"


def test_the_source_distribution_has_all_that_is_under_version_control(built: Path) -> None:
    with tarfile.open(built / f"{NAME}.tar.gz") as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    assert tracked() - names == set()
    assert {name for name in names - tracked() if not name.startswith("sora_batch.egg-info/")} == {
        ".packaging/description.md", "PKG-INFO",
    }  # fmt: skip


def test_the_wheel_has_the_packages_their_types_and_the_licence(built: Path) -> None:
    with zipfile.ZipFile(built / f"{NAME}-py3-none-any.whl") as wheel:
        names = set(wheel.namelist())
    packages = {name for name in tracked() if name.startswith(("actors/", "storage/"))}
    assert {"actors/py.typed", "storage/py.typed"} <= packages
    assert packages - names == set()
    assert f"{NAME}.dist-info/licenses/docs/LICENSE" in names
    assert {name.partition("/")[0] for name in names} == {"actors", "storage", f"{NAME}.dist-info"}


def test_the_metadata_name_the_licence_and_the_extras(metadata: Message) -> None:
    assert metadata["License-Expression"] == "MIT"
    assert metadata.get_all("License-File") == ["docs/LICENSE"]
    assert metadata["Author"] == "sora-batch developers"
    assert {"simulator", "media", "postgresql", "all", "test"} <= set(metadata.get_all("Provides-Extra") or [])
    assert "Typing :: Typed" in (metadata.get_all("Classifier") or [])


def test_the_extra_all_has_every_other_one_but_that_of_the_tests() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    (everything,) = extras["all"]
    named = set(everything.removeprefix("sora-batch[").removesuffix("]").split(","))
    assert named == set(extras) - {"all", "test"}


def test_no_link_of_the_description_leads_to_a_file_that_an_index_does_not_have(metadata: Message) -> None:
    description = str(metadata.get_payload())
    prose = re.sub(r"^```.*?^```$", "", description, flags=re.MULTILINE | re.DOTALL)
    assert re.findall(r"\]\((?!https?:)[^)]*\)", prose) == []
    named = set(re.findall(r"`(docs/[^`]+)`", prose))
    assert "docs/architecture.md" in named
    assert {path for path in named if not (ROOT / path).exists()} == set()
    assert description.startswith("# sora-batch\n\nThe files named below, such as `docs/architecture.md`, are in")


def test_the_installed_wheel_is_what_runs_and_makes_the_demo(installed: Path, tmp_path: Path) -> None:
    where = "import actors, storage; print(actors.__file__, storage.__file__)"
    for place in run(installed / "python", "-c", where, cwd=tmp_path).split():
        assert Path(place).is_relative_to(installed.parent)
    assert run(installed / "sora-batch", "--version", cwd=tmp_path) == f"sora-batch {__version__}\n"
    said = run(installed / "sora-batch", "demo", cwd=tmp_path)
    assert "completed: 3 of 3 videos" in said
    assert len(list(tmp_path.glob("videos/*/*.mp4"))) == 3


def test_the_installed_wheel_serves_until_sigterm(installed: Path, tmp_path: Path) -> None:
    said = tmp_path / "said"
    with said.open("wb") as stream:
        serving = subprocess.Popen(
            [installed / "sora-batch", "serve", "--simulate"],
            cwd=tmp_path, env={"PATH": os.defpath}, stdin=subprocess.DEVNULL, stderr=stream,
        )  # fmt: skip
    try:
        until(lambda: "serving:" in said.read_text() or serving.poll() is not None)
        assert serving.poll() is None, said.read_text()
        serving.send_signal(signal.SIGTERM)
        assert serving.wait(timeout=20) == 0
    finally:
        serving.kill()
        serving.wait()
    assert (tmp_path / "sora-batch.db").exists()
