"""Lets everything go wrong at once, for as long as asked, and says whether the promises were kept.

`python -m tests.chaos --minutes 30 --seed 1 [--bucket] --report FILE` prints a report, and ends with 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

from tests.chaos.run import chaos


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--bucket", action="store_true", help="files go into a bucket, and no folder is shared")
    parser.add_argument("--report", type=Path, help="write the report there, too")
    wanted = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # what was started is ended
    report = chaos(wanted.seed, wanted.minutes, bucket=wanted.bucket)
    text = "\n".join(report.lines())
    print(text)
    if wanted.report:
        wanted.report.write_text(text + "\n")
    for line, count in report.log.most_common(20):
        print(f"{count} x {line}", file=sys.stderr)
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
