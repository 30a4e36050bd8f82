"""Where the figures come from: the machine, the versions, and how long its disk takes to flush."""

from __future__ import annotations

import os
import platform
import sqlite3
import statistics
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from actors import __version__

_PACKAGES = ("aiohttp", "openai", "dramatiq", "pika", "peewee", "pykka")
_FLUSHES = 200


def fdatasync_milliseconds(folder: Path) -> float:
    """The median time to have a small append on the disk."""
    flush = getattr(os, "fdatasync", os.fsync)
    times = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(_FLUSHES):
            file.write(b"x" * 100)
            file.flush()
            began = time.perf_counter()
            flush(file.fileno())
            times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times)


def described(folder: Path) -> list[str]:
    """The machine, its disk, the versions and the date, a line each."""
    packages = ", ".join(f"{name} {_version(name)}" for name in _PACKAGES)
    return [
        f"{_processor()}, {os.cpu_count()} cores, {_memory()}; {_system()}",
        f"one fdatasync of a small append where the files are: {fdatasync_milliseconds(folder):.2f} ms",
        f"sora-batch {__version__}, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {packages}",
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    ]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown processor"
    )


def _memory() -> str:
    return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / (1 << 30):.0f} GiB"


def _system() -> str:
    try:
        return f"{platform.freedesktop_os_release()['PRETTY_NAME']}, {platform.system()} {platform.release()}"
    except OSError:
        return platform.platform()
