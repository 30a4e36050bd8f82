"""How a server that tests need gets onto this machine: found, or installed where we may."""

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


class ServerError(Exception):
    """A server that the tests need is missing, or does not start or stop."""


def find_or_install(name: str, find: Callable[[], T | None], package: str) -> T:
    """Find a server's programs; where they are missing and we may, install its Debian package.

    Raises:
        ServerError: they are missing; the message says which command brings them.
    """
    found, said = find(), ""
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        with one_at_a_time():
            found = find()
            if found is None:
                said = _install(package)
                found = find()
    if found is None:
        raise ServerError(
            f"{name} was not found, neither in PATH nor where systems put it; run: {_remedy(package)}{said}"
        )
    return found


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """What is installed, one process installs: tests run in several, and neither apt-get nor npm waits for another."""
    with (Path(tempfile.gettempdir()) / "sora-batch-tests.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _install(package: str) -> str:
    """What went wrong, if anything did."""
    environment, said = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}, ""
    for command in (["update"], ["install", "-y", "--no-install-recommends", package]):
        done = subprocess.run(["apt-get", *command], capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            said += f"\napt-get {command[0]} ended with {done.returncode}: {done.stderr[-2000:]}"
    return said


def _remedy(package: str) -> str:
    if sys.platform == "darwin":
        return f"brew install {package.removesuffix('-server')}"
    if shutil.which("apt-get"):
        return f"sudo apt-get update && sudo apt-get install -y {package}"
    return f"your system's package manager, for its package like Debian's {package}"
