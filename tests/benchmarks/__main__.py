"""sora-batch beside what a user would otherwise write: `python -m tests.benchmarks`.

Every peer makes the same videos at the same server, each in a process of its own, in turn (A B C, A B C, ...). A
table for each case: medians and, in brackets, the range of the runs; ratios are between neighbours of one turn.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.benchmarks import machine, table
from tests.benchmarks.against import checked_out, compare
from tests.benchmarks.cases import CASES, LISTENING, OURS, PEERS, WITH_RABBITMQ, Case
from tests.benchmarks.contest import PeerError, run
from tests.benchmarks.serving import Serving
from tests.servers.rabbitmq import RabbitMQ


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="of each peer in each case (default: 5)")
    parser.add_argument("--case", action="append", choices=CASES, help="only this one; may be given again")
    parser.add_argument("--peer", action="append", choices=PEERS, help="only this one; may be given again")
    parser.add_argument("--against", metavar="COMMIT", help="this tree beside that commit, in pairs of runs")
    parser.add_argument("--listening", action="store_true", help="with --against: this tree with its listener on")
    parser.add_argument("--markdown", action="store_true", help="print the tables of docs/performance.md")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where files are written")
    return parser.parse_args(arguments)


class Contest:
    """All that was asked for, case by case."""

    def __init__(self, given: argparse.Namespace, server: Serving, amqp_url: str | None) -> None:
        self._given, self._server, self._amqp_url = given, server, amqp_url
        self.failures = 0

    def hold(self, case: Case) -> table.Results:
        """Run a case; a peer that fails is out of it."""
        peers = [peer for peer in PEERS if peer in (self._given.peer or PEERS) and peer not in case.without]
        results: table.Results = {peer: [] for peer in peers}
        for turn in range(1, self._given.runs + 1):
            for peer in list(peers):
                try:
                    result = run(case, peer, self._server, self._given.folder, self._amqp_url)
                except PeerError as error:
                    _aside(f"{case.name}: {error}")
                    peers.remove(peer)
                    self.failures += 1
                else:
                    results[peer].append(result)
                    _aside(f"{case.name}, turn {turn}: {peer} {result.wall:.2f} s, {result.told}")
        return results


def _aside(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    given = options()
    with ExitStack() as stack:
        server = stack.enter_context(Serving())
        if given.against:
            other = stack.enter_context(checked_out(given.against))
            mine = LISTENING if given.listening else OURS
            for name in given.case or CASES:
                print(compare(CASES[name], given.runs, server, given.folder, other, mine), flush=True)
            return 0
        needs_rabbitmq = not WITH_RABBITMQ.isdisjoint(given.peer or PEERS)
        amqp_url = stack.enter_context(RabbitMQ()).url if needs_rabbitmq else None
        contest = Contest(given, server, amqp_url)
        told = table.markdown if given.markdown else table.text
        bullet, heading = ("- ", "### ") if given.markdown else ("", "")
        print("\n".join(bullet + line for line in machine.described(given.folder)))
        for name in given.case or CASES:
            case = CASES[name]
            results = contest.hold(case)
            print(f"\n{heading}{case.title} (`{name}`)\n\n{told(case, results)}", flush=True)
    return 1 if contest.failures else 0


if __name__ == "__main__":
    sys.exit(main())
