"""The accepted jobs of a simulator, in order, and the file that remembers them.

Owns acceptance, deletion, paging and the counts. Reads no clock: whoever calls says what time it is.

The file has one JSON document a line: `{"job": ...}` or `{"deleted": id}`. A line is handed to the operating
system before the request is answered, which a kill -9 cannot undo (a power cut could).
"""

from __future__ import annotations

import heapq
import json
from collections import Counter
from typing import IO, TYPE_CHECKING, Any

from actors.simulator.jobs import Job

if TYPE_CHECKING:
    from pathlib import Path


class Ledger:
    """All jobs that were accepted and not deleted."""

    def __init__(self) -> None:
        """Begin with nothing, in memory only."""
        self.creates = 0
        """Accepted since the start; what a file brought back is not counted again."""
        self.max_in_flight = 0
        """The most jobs that were unfinished at one moment."""
        self._jobs: dict[str, Job] = {}
        self._prompts: Counter[str] = Counter()
        self._number = 0
        self._ends: list[float] = []
        """A heap of the times at which the unfinished jobs end."""
        self._file: IO[str] | None = None

    def open(self, path: Path) -> None:
        """Read what the file remembers, and remember in it from now on."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+", encoding="ascii")
        self._file.seek(0)
        text = self._file.read()
        whole = text.rfind("\n") + 1
        if whole < len(text):  # killed while it wrote: the request of that line was never answered
            self._file.truncate(whole)
        for line in text[:whole].splitlines():
            self._restore(json.loads(line))

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _restore(self, entry: dict[str, Any]) -> None:
        if "deleted" in entry:
            self._jobs.pop(entry["deleted"], None)
        else:
            self._take(Job.restore(entry["job"]))

    def _take(self, job: Job) -> None:
        self._jobs[job.id] = job
        self._number = job.number
        self._prompts[job.prompt] += 1
        heapq.heappush(self._ends, job.ends_at)

    def _remember(self, entry: dict[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(entry) + "\n")
            self._file.flush()

    def next_number(self) -> int:
        """Give the number of the next job."""
        return self._number + 1

    def next_attempt(self, prompt: str) -> int:
        """Tell how often the prompt will have come when it comes once more."""
        return self._prompts[prompt] + 1

    def accept(self, job: Job, now: float) -> None:
        """Add a job."""
        self._remember({"job": job.record()})
        self._take(job)
        self.creates += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight(now))

    def in_flight(self, now: float) -> int:
        """Count the unfinished jobs."""
        while self._ends and self._ends[0] <= now:
            heapq.heappop(self._ends)
        return len(self._ends)

    def find(self, video_id: str) -> Job | None:
        """Give a job by its id."""
        return self._jobs.get(video_id)

    def delete(self, job: Job, *, stop: bool) -> None:
        """Forget a job; unless its work is stopped, it stays in flight to its end."""
        self._remember({"deleted": job.id})
        del self._jobs[job.id]
        if stop and job.ends_at in self._ends:
            self._ends.remove(job.ends_at)
            heapq.heapify(self._ends)

    def page(self, *, after: str | None, limit: int, newest_first: bool) -> tuple[list[Job], bool]:
        """Give the jobs that follow the one named `after`, and whether there are more behind them.

        Raises:
            KeyError: there is no job with the id `after`.
        """
        jobs = list(self._jobs.values())
        if newest_first:
            jobs.reverse()
        start = 0 if after is None else jobs.index(self._jobs[after]) + 1
        return jobs[start : start + limit], len(jobs) > start + limit
