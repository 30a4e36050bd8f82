"""Writes what was found into docs/servers.md: a table a server, between two marks."""

import re
import subprocess
from dataclasses import dataclass, field
from datetime import UTC, datetime

from tests.integration.support import ROOT
from tests.servers.real.trials import Outcome

DOCUMENT = ROOT / "docs/servers.md"
_WORDS = {True: "yes", False: "**no**", None: "-"}


@dataclass
class Report:
    """Of one server."""

    name: str
    title: str
    version: str
    rows: list[tuple[str, Outcome, int]] = field(default_factory=list)
    """Trial, outcome, and how many videos were made for it."""

    def lines(self) -> list[str]:
        date = datetime.now(UTC).date().isoformat()
        commit = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
        ours = subprocess.run(commit, capture_output=True, text=True, check=True).stdout.strip()
        head = f"{self.title} {self.version}, {date}, sora-batch at {ours}. `made`: videos begun behind its routes."
        table = ["| trial | works | what happened | made |", "| --- | --- | --- | --- |"]
        return [head, "", *table, *(_row(*row) for row in self.rows)]

    def write(self) -> None:
        """Put it into the document, in the place of the last one."""
        begin, end = f"<!-- begin {self.name} -->", f"<!-- end {self.name} -->"
        text = DOCUMENT.read_text()
        place = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        if not place.search(text):
            raise ValueError(f"{DOCUMENT} has no {begin} ... {end}")
        new = "\n".join([begin, *self.lines(), end])
        DOCUMENT.write_text(place.sub(lambda _: new, text))


def _row(name: str, outcome: Outcome, made: int) -> str:
    told = re.sub(r"\s+", " ", outcome.told).strip().replace("|", "\\|")
    return f"| {name} | {_WORDS[outcome.works]} | {told} | {made} |"
