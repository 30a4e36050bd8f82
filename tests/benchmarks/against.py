"""sora-batch beside itself at another commit: `python -m tests.benchmarks --against COMMIT [--case NAME] [--listening]`.

In each of the cases where it is measured, both make the same videos at the same server in turn. Printed are the
quotients of this tree and that commit: processor seconds and SQL statements a video as medians of the pairs, wall time as
the lower quartile. With `--listening` this tree answers HTTP meanwhile, and nobody asks; that commit does not.
"""

from __future__ import annotations

import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.benchmarks.cases import OURS, Case
from tests.benchmarks.contest import ROOT, Result, run
from tests.benchmarks.serving import Serving

_PACKAGES = ("actors", "storage")


@contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """A folder from which that commit's packages are run by the benchmarks of this tree."""
    with tempfile.TemporaryDirectory(prefix="against-") as folder:
        tree, root = Path(folder) / "tree", Path(folder) / "root"
        subprocess.run(["git", "worktree", "add", "--detach", str(tree), commit], cwd=ROOT, check=True)
        try:
            root.mkdir()
            for package in _PACKAGES:
                (root / package).symlink_to(tree / package)
            (root / "tests").symlink_to(ROOT / "tests")
            yield root
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=ROOT, check=True)


def compare(case: Case, runs: int, server: Serving, folder: Path, other: Path, mine: str = OURS) -> str:
    """Run a case in pairs, the first of a pair in turn; a line of quotients. `mine`: which of ours this tree is."""
    pairs: list[tuple[Result, Result]] = []
    for turn in range(runs):
        roots = (ROOT, other) if turn % 2 == 0 else (other, ROOT)
        peers = {ROOT: mine, other: OURS}
        results = {root: run(case, peers[root], server, folder, root=root) for root in roots}
        pairs.append((results[ROOT], results[other]))
    walls = sorted(_quotients(pairs, lambda result: result.wall))
    quartile = statistics.quantiles(walls, n=4, method="inclusive")[0] if runs > 1 else walls[0]
    cpu = statistics.median(_quotients(pairs, lambda result: result.cpu))
    statements = statistics.median(_quotients(pairs, lambda result: result.told["statements"]))
    return f"{case.name:<12} CPU {cpu:.3f}  statements {statements:.3f}  wall {quartile:.3f} ({walls[0]:.3f}-{walls[-1]:.3f})"


def _quotients(pairs: list[tuple[Result, Result]], figure: Callable[[Result], float]) -> list[float]:
    return [figure(ours) / (figure(theirs) or 1e-9) for ours, theirs in pairs]
