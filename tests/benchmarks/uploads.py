"""What it costs to put a finished file into a bucket: `python -m tests.benchmarks.uploads [--runs N] [--mebibytes N]`.

Each turn puts one file three times into each of two S3 servers that others wrote: by obstore alone with the same parts and
the same checksum, by obstore with the HEAD that compares the size afterwards, and as sora-batch does it, which also looks
first whether the name is taken. Medians, and the median of the ratios within a turn. Then the memory of uploads side by side.

rclone reads an object as a whole for each HEAD, to tell its MD5 as the ETag (`--etag-hash`, by default on). It is measured as
it comes, and with that off, in turns beside each other.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter

import obstore

from storage.bucket_client import BucketOptions
from storage.buckets import _AT_ONCE, PART, Bucket
from tests.servers.s3 import Kind, S3Server, s3_server

MEBIBYTE = 1 << 20
SIDE_BY_SIDE = 8
ALONE = "obstore alone"
SERVERS: dict[str, tuple[Kind, tuple[str, ...]]] = {
    "moto": ("moto", ()),
    "rclone": ("rclone", ()),
    "rclone without MD5": ("rclone", ("--etag-hash", "")),
}


def bucket_of(server: S3Server, prefix: str) -> Bucket:
    given = server.settings(prefix)
    return Bucket(given.pop("VIDEO_STORE"), BucketOptions(given))


def ways(bucket: Bucket, file: Path) -> dict[str, Callable[[str], object]]:
    """Each puts the file under a name."""
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    size, kind = file.stat().st_size, "video/mp4"
    attributes = {"Content-Type": kind, "sha256": sha256}

    def alone(name: str) -> None:
        with file.open("rb") as opened:
            obstore.put(bucket._slow, name, opened, attributes=attributes, chunk_size=PART, max_concurrency=_AT_ONCE)

    def compared(name: str) -> None:
        alone(name)
        assert obstore.head(bucket._quick, name)["size"] == size

    def ours(name: str) -> None:
        bucket.restore(file, f"{bucket.uri}/{name}", kind, size, sha256)

    return {ALONE: alone, "obstore and a HEAD": compared, "sora-batch": ours}


def compare(servers: dict[str, S3Server], file: Path, runs: int) -> list[str]:
    """A line for each server, by its name, and each way."""
    walls: dict[tuple[str, str], list[float]] = {}
    puts = {
        (name, way): put
        for name, server in servers.items()
        for way, put in ways(bucket_of(server, "compared"), file).items()
    }
    for run in range(-2, runs):  # the first two open the connections
        for (name, way), put in puts.items():
            began = perf_counter()
            put(f"b/{way.replace(' ', '-')}-{run}.mp4")
            if run >= 0:
                walls.setdefault((name, way), []).append(perf_counter() - began)
    lines = []
    for (name, way), wall in walls.items():
        base = walls[name, ALONE]
        ratio = statistics.median(mine / other for mine, other in zip(wall, base, strict=True))
        best = min(wall) / min(base)
        lines.append(
            f"{name}: {way}: {statistics.median(wall) * 1000:.1f} ms, {ratio:.2f} x (the fastest {best:.2f} x)"
        )
    return lines


def memory(server: S3Server, file: Path, count: int) -> int:
    """The most memory, in bytes, that a process of its own had with so many uploads side by side."""
    environment = os.environ | server.settings(f"memory-{count}")
    command = [sys.executable, "-m", "tests.benchmarks.uploads", "--put", str(file), "--count", str(count)]
    return int(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


def put_some(file: Path, count: int) -> None:
    """Put a file so often at once; print the most memory that this process has had."""
    given = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    bucket = Bucket(os.environ["VIDEO_STORE"], BucketOptions(given))
    bucket.mark(b"{}")
    size = file.stat().st_size
    threads = [
        threading.Thread(target=bucket.restore, args=(file, f"{bucket.uri}/b/{n}.mp4", "video/mp4", size, "0"))
        for n in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (peak,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    print(int(peak.split()[1]) * 1024)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.uploads", description=__doc__)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--mebibytes", type=int, default=8)
    parser.add_argument("--put", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.put:
        put_some(given.put, given.count)
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "film.mp4"
        file.write_bytes(os.urandom(given.mebibytes * MEBIBYTE))
        with ExitStack() as stack:
            servers = {
                name: stack.enter_context(s3_server(kind, Path(folder) / name, *options))
                for name, (kind, options) in SERVERS.items()
            }
            print("\n".join(compare(servers, file, given.runs)), flush=True)
            for name, server in servers.items():
                some, none = memory(server, file, SIDE_BY_SIDE), memory(server, file, 0)
                each = (some - none) / SIDE_BY_SIDE / MEBIBYTE
                print(f"{name}: {SIDE_BY_SIDE} uploads side by side: {each:.1f} MiB each", flush=True)


if __name__ == "__main__":
    main()
