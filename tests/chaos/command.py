"""The command line of a program that disturbs at random, as often as asked."""

import argparse
import time
from collections import Counter
from collections.abc import Iterable


def wanted(description: str | None, what: str, usual: int) -> tuple[int, int]:
    """The seed, and how often: `--seed`, and `--kills` or whatever it counts."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(f"--{what}", type=int, default=usual)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    given = vars(parser.parse_args())
    return given["seed"], given[what]


def counted(counts: Counter[str]) -> str:
    """`3 completed, 1 failed`: the most frequent first."""
    return ", ".join(f"{count} {what}" for what, count in counts.most_common())


def concluded(what: str, wrong: Iterable[str]) -> int:
    """Print what went wrong; the exit code."""
    lines = list(wrong)
    print(f"{what}: {len(lines)}")
    for line in lines:
        print(f"  {line}")
    return 1 if lines else 0
