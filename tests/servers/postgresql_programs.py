"""Where PostgreSQL's programs are, how they get here, and as whom they run."""

import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from tests.servers.packages import ServerError, find_or_install

_FOLDERS = (
    "/usr/lib/postgresql/*/bin",  # Debian
    "/usr/pgsql-*/bin",  # Red Hat
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
    "/home/linuxbrew/.linuxbrew/opt/postgresql*/bin",
)
_VERSION = re.compile(r"\(PostgreSQL\) \d+")


class RunAs(TypedDict, total=False):
    """What `subprocess` is told about whom to run as; nothing: ourselves."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True)
class Programs:
    """Both programs, of one version, and the user whom they run as: PostgreSQL refuses to be root."""

    initdb: Path
    postgres: Path
    run_as: RunAs


def programs() -> Programs:
    """Those of PostgreSQL, installed if need be.

    Raises:
        ServerError: they are missing; the message says which command brings them.
    """
    return find_or_install("PostgreSQL", _find, "postgresql")


def _find() -> Programs | None:
    run_as = unprivileged()
    return next((found for folder in _folders() if (found := _programs_in(folder, run_as))), None)


def _folders() -> Iterator[Path]:
    yield from (Path(folder) for folder in os.get_exec_path())
    if pg_config := shutil.which("pg_config"):
        told = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, check=False)
        yield Path(told.stdout.strip())
    for pattern in _FOLDERS:
        yield from sorted(Path("/").glob(pattern.lstrip("/")), key=_newest_first)


def _newest_first(folder: Path) -> int:
    number = re.search(r"\d+", str(folder))
    return -int(number[0]) if number else 0


def _programs_in(folder: Path, run_as: RunAs) -> Programs | None:
    """Follow links to where the programs really are, and see that they run, as who will run them."""
    home = (folder / "postgres").resolve().parent
    programs = Programs(home / "initdb", home / "postgres", run_as)
    versions = {_version(program, run_as) for program in (programs.initdb, programs.postgres)}
    return programs if len(versions) == 1 and None not in versions else None


def _version(program: Path, run_as: RunAs) -> str | None:
    if not os.access(program, os.X_OK):
        return None
    try:
        told = subprocess.run([program, "--version"], capture_output=True, text=True, check=False, cwd="/", **run_as)
    except OSError:
        return None
    version = _VERSION.search(told.stdout)
    return version[0] if version else None


def unprivileged() -> RunAs:
    """As whom such a program runs: root is refused."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    raise ServerError("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")
