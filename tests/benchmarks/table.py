"""Runs as a table: medians with their ranges, and ratios rather than times."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.benchmarks.cases import FLOOR, MIB, Case
from tests.benchmarks.contest import Result

Results = dict[str, list[Result]]
"""The runs of a case by peer, the n-th of each made one after the other."""
HEAD = ("", "wall", "x floor", "CPU a video", "x floor", "peak memory", "requests a video", "notes")


@dataclass(frozen=True, slots=True)
class Spread:
    """Some figures of the same thing."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def told(self, digits: int, unit: str = "") -> str:
        """The median, and the range if it is one."""
        low, middle, high = (f"{value:.{digits}f}" for value in (min(self.values), self.median, max(self.values)))
        return f"{middle}{unit}" if low == high else f"{middle}{unit} ({low}-{high})"


def spread(results: Sequence[Result], figure: Callable[[Result], float]) -> Spread:
    return Spread(tuple(map(figure, results)))


def ratio(results: Results, peer: str, figure: Callable[[Result], float]) -> Spread | None:
    """A peer's figure over the floor's of the same turn; None: there is no floor."""
    pairs = list(zip(results[peer], results.get(FLOOR, ()), strict=False))
    return Spread(tuple(figure(own) / (figure(floor) or 1e-9) for own, floor in pairs)) if pairs else None


def rows(case: Case, results: Results) -> list[tuple[str, ...]]:
    """A row for each peer, in the order of `HEAD`."""
    return [_row(case, results, peer) for peer in results if results[peer]]


def _row(case: Case, results: Results, peer: str) -> tuple[str, ...]:
    runs = results[peer]
    walls, cpus = (ratio(results, peer, figure) for figure in (_wall, _cpu))
    return (
        peer, _pace(case, runs), walls.told(2) if walls else "-",
        spread(runs, lambda run: 1000 * run.cpu / case.videos).told(2, " ms"), cpus.told(2) if cpus else "-",
        spread(runs, lambda run: run.peak).told(0, " MB"),
        spread(runs, lambda run: sum(run.requests.values()) / case.videos).told(2), "; ".join(_notes(case, runs)),
    )  # fmt: skip


def _pace(case: Case, runs: list[Result]) -> str:
    if case.content_bytes >= MIB:
        size = case.videos * case.content_bytes / MIB
        return spread(runs, lambda run: size / run.wall).told(0, " MiB/s")
    if not case.ideal:
        return spread(runs, _wall).told(2, " s")
    return spread(runs, lambda run: run.wall / case.ideal).told(3, " x ideal")


def _wall(run: Result) -> float:
    return run.wall


def _cpu(run: Result) -> float:
    return run.cpu


def _notes(case: Case, runs: list[Result]) -> list[str]:
    notes = []
    if again := max(run.paid_again for run in runs):
        notes.append(f"paid again for {again}")
    if (most := max(run.max_in_flight for run in runs)) > case.concurrency:
        notes.append(f"{most} at once")
    for what in ("tasks", "threads"):
        if left := max(len(run.told.get(f"{what}_left", ())) for run in runs):
            notes.append(f"{left} {what} left behind")
    return notes


def text(case: Case, results: Results) -> str:
    """For a terminal."""
    lines = [HEAD, *rows(case, results)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def markdown(case: Case, results: Results) -> str:
    """For a document."""
    lines = [HEAD, ("---",) * len(HEAD), *rows(case, results)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
